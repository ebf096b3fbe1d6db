"""Every bound of the analysers, so that hostile or enormous input costs a known amount and never the process."""

FILE_BYTES_MAX = 5 * 1024 * 1024
"""A Python file above this size is listed and counted, but not analysed."""

FILES_MAX = 200_000
"""A folder with more files is refused: a report of it would help nobody."""

BINARY_PROBE_BYTES = 8_192
"""Git's own rule (`buffer_is_binary`): a NUL byte this near the start makes a file binary."""

READ_CHUNK_BYTES = 1024 * 1024

GIT_TIMEOUT_S = 60.0
HISTORY_TIMEOUT_S = 30.0
HISTORY_COMMITS_MAX = 1_000
HISTORY_FILES_MAX = 20

LINT_TIMEOUT_S = 120.0
LINT_ARGUMENT_BYTES_MAX = 96 * 1024
"""Paths per ruff process, in bytes: far below the 128 KiB that Linux allows for one argument list entry set."""

MESSAGE_CHARS_MAX = 300
"""A finding's message is cut here: a linter may quote a whole line of minified code."""

DIAGRAM_NODES_MAX = 40
HTML_FINDINGS_MAX = 5_000
HTML_FILES_MAX = 2_000
HTML_HOT_SPOTS_MAX = 15
MARKDOWN_FINDINGS_MAX = 200
