"""The part of the log port by which streams end: archived, or erased (S24, S29). Adapters: `closing_sqlite`, `closing_memory`."""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from events.envelope import RecordedEvent
from events.ids import StreamId, Version


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """What `archive` or `erase` came to. version, hash: of the last event of the stream, which says it. already: it was so before.

    key_ids: the keys that something of it was sealed under. events: what it recorded to say so.
    """

    stream: StreamId
    shard: int
    version: Version
    hash: str
    status: str
    already: bool
    key_ids: Sequence[str] = ()
    events: Sequence[RecordedEvent] = ()


CLOSED_BY: Final = {"stream.archived": "archived", "stream.erased": "erased"}
"""The events of ours that end a stream, and what its status is then. They are never sealed: they say nothing of it."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure that is not finished. is_plain: clear text of it may be left in unused parts of the file."""

    stream: StreamId
    requested_by: str
    key_ids: Sequence[str]
    is_plain: bool


class ShardClosing(Protocol):
    """What `store.ShardStore` offers beside appending. Raises as `append` where nothing else is said."""

    async def keys_of(self, stream: StreamId) -> Sequence[str]:
        """Every key that something of `stream` was ever sealed under, in order of their ids (S29)."""
        ...

    async def archive(self, stream: StreamId) -> Closed:
        """Verify `stream`, cancel its timers, and close it for good, in one transaction. Twice does no harm.

        Raises:
            UnknownStreamError: it has no events. StreamBusyError: something of it is under way. StreamClosedError: it is
                erased. CorruptLogError: it does not verify. Else as `append`.
        """
        ...

    async def erase(self, stream: StreamId, requested_by: str) -> Closed:
        """Remove what `stream` says, in one transaction: payloads and salts, and its rows in every other table; what is
        under way in it is dropped. The chain verifies afterwards. Twice does no harm.

        Not finished before its keys are destroyed and `scrub` and `erased` were called: `erasure.finish_erasures`.

        Raises:
            UnknownStreamError: the log never named it. Else as `append`.
        """
        ...

    async def erasures(self) -> Sequence[Erasure]:
        """Erasures of this shard that are not finished."""
        ...

    async def scrub(self) -> bool:
        """Rewrite the shard so that no byte of what was removed is left in it. False if a reader holds an older state
        of it: try again. Raises as `append`."""
        ...

    async def erased(self, stream: StreamId) -> None:
        """The erasure of `stream` is finished. Raises as `append`."""
        ...
