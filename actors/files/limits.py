"""Every bound of the file and command tools."""

FILE_BYTES_MAX = 10 * 1024 * 1024
"""Larger files are neither read, written nor changed unless a deployment's rules say so (the predecessor's 10 MB)."""

PATH_BYTES_MAX = 1_024
NAME_BYTES_MAX = 255
"""Of one file or folder: what ext4, XFS, APFS and NTFS take."""

READ_BYTES_MAX = 512 * 1024
"""One reply carries at most this much of a file: half of a message, since JSON may double what has to be escaped."""

CHANGES_KEPT = 1_000
"""Changes that can be rolled back one by one; older ones only through a checkpoint."""

CHECKPOINTS_KEPT = 200
CHECKPOINT_FILES_MAX = 50_000
IGNORE_BYTES_MAX = 1024 * 1024
"""Of one ``.gitignore``; a longer one counts as none."""

LINE_CHARS_SHOWN = 300
REFUSALS_SHOWN = 100
"""Refused files that one event names."""

GIT_TIMEOUT_S = 120.0

COMMAND_TIMEOUT_S = 120.0
COMMAND_END_S = 30.0
"""What a program's step has beyond the program's own timeout, to end it politely and take down what it said."""
COMMAND_OUTPUT_BYTES_MAX = 64 * 1024
COMMAND_MEMORY_BYTES_MAX = 2 * 1024**3
COMMAND_FILE_BYTES_MAX = 256 * 1024 * 1024
COMMAND_PROCESSES_MAX = 512
