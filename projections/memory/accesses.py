"""How often memories were found since somebody last asked: what recalls leave behind, so that they stay reads.

The counts are in the memory of the process that answers; whoever runs it reports them to the memory actors in lots. A process that is
killed loses those of its last second, and nothing else.
"""

import threading
from collections.abc import Iterable
from typing import Final

NAMES_MAX: Final = 5_000
"""Of one workspace between two reports; what is found beyond them is not counted."""
WORKSPACES_MAX: Final = 1_000


class Accesses:
    """Counts by workspace and memory. Thread-safe."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def found(self, workspace: str, memories: Iterable[str]) -> None:
        """These were answers of one recall."""
        with self._lock:
            if workspace not in self._counts and len(self._counts) >= WORKSPACES_MAX:
                return
            counts = self._counts.setdefault(workspace, {})
            for memory in memories:
                if memory in counts or len(counts) < NAMES_MAX:
                    counts[memory] = counts.get(memory, 0) + 1

    def take(self) -> dict[str, dict[str, int]]:
        """All counts since the last time, which are forgotten here."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return {workspace: found for workspace, found in counts.items() if found}
