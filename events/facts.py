"""Events as those need them who fold them: without what a state is not made of."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from events.envelope import RecordedEvent
from events.errors import InvariantError
from events.ids import StreamId

if TYPE_CHECKING:
    from events.store import Snapshot

FORKED: Final = "stream.forked"
"""The type of the control event that a fork begins with: it holds the state of its parent, so a state is made of it too (S33)."""
Fact = tuple[int, StreamId, str, bytes | None]
"""(position, stream, ``tag:schema version``, payload) of a verified state event, or of `FORKED`; None where the payload alone says too
little."""
PlainEvent = tuple[int, str, bytes]
"""(version, ``tag:schema version``, payload) of a verified state event of one stream."""


def in_full(events: Sequence[RecordedEvent | PlainEvent]) -> Sequence[RecordedEvent]:
    """`events` of a read that asked for no plain ones.

    Raises:
        InvariantError: one came plain all the same.
    """
    found = [event for event in events if isinstance(event, RecordedEvent)]
    if len(found) != len(events):
        raise InvariantError("an event came plain that was asked for in full")
    return found


class ShardFacts(Protocol):
    """The part of `ShardStore` that recovery reads."""

    async def tail(
        self, stream: StreamId, shape: str, plain: Container[str]
    ) -> "tuple[Snapshot | None, Sequence[RecordedEvent | PlainEvent]]":
        """The newest snapshot of that shape, and the events after it, in order: `load` at a fraction of the price.

        plain: the ``tag:schema version`` of which version and payload alone are enough. Such state events may come as `PlainEvent`: their
        hashes are verified as everywhere (I-20), the columns outside of the hash are not read. Any other event, sealed and erased ones
        among them, comes in full.

        Raises:
            QuarantinedError: the stream does not verify (I-20).
        """
        ...
