"""What a test gets that runs verbs of the command line in its own process: see the fixtures `verb_on` and `cuebook`."""

from pathlib import Path
from typing import Any, Protocol

Ran = tuple[int, list[Any], str]
"""Exit code, rows of stdout, stderr."""


class VerbOn(Protocol):
    """Runs a verb on the deployment in `data`."""

    def __call__(self, data: Path, *arguments: str) -> Ran: ...


class Verb(Protocol):
    """Runs a verb on the test's own deployment, or on the one in `data`."""

    def __call__(self, *arguments: str, data: Path | None = None) -> Ran: ...
