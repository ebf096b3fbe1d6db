"""Which streams a folder may hold, in memory.

A new thread has nothing to read. To learn that from the file takes a turn of the reading thread, for which a busy event loop gives the
interpreter up several times: 20 graphs at once, each on a thread of its own, ran a fifth slower for it (2026-11).
"""

from collections.abc import Iterable
from typing import Final

STREAMS_MAX: Final = 100_000
"""About 7 MB, and 60 ms to read their names when the folder is opened. With more, every thread that is not in memory is looked up."""


class KnownStreams:
    """What its owner knows; another writer's streams are not among them. Use it under the guard of the threads.

    names: of all streams that there are; None if they are more than `STREAMS_MAX`.
    """

    def __init__(self, names: Iterable[str] | None) -> None:
        self._hashes: set[int] | None = None if names is None else set(map(hash, names))

    def may_hold(self, stream: str) -> bool:
        """False: there is surely none of that name. Of two names with one hash, both may be there."""
        return self._hashes is None or hash(stream) in self._hashes

    def add(self, stream: str) -> None:
        """It is about to be written, or was."""
        if self._hashes is not None:
            self._hashes.add(hash(stream))
            if len(self._hashes) > STREAMS_MAX:
                self._hashes = None
