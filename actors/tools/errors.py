"""What an analyser may raise, grouped by what the caller should do.

AnalysisError
├── WorkspaceError       the path is wrong: tell the user, do not retry
├── FileChangedError     the file is not the one in the inventory: take the inventory again
└── AnalyserMissingError an optional tool is not installed or does not run: go on without it and say so
"""

from __future__ import annotations


class AnalysisError(Exception):
    """An analyser could not do its work."""

    code = "analysis_failed"


class WorkspaceError(AnalysisError):
    """The given path is not a folder that can be examined, or a path leaves it."""

    code = "workspace_invalid"


class FileChangedError(AnalysisError):
    """The bytes on disk are not those the inventory saw."""

    code = "file_changed"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} changed while the code base was being examined")
        self.path = path


class AnalyserMissingError(AnalysisError):
    """A tool such as ruff is absent, timed out or gave no answer that can be read."""

    code = "analyser_missing"

    def __init__(self, tool: str, reason: str) -> None:
        super().__init__(f"{tool}: {reason}")
        self.tool = tool
        self.reason = reason
