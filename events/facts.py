"""Events as those need them who fold them: without what a state is not made of."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Protocol

from events.envelope import RecordedEvent
from events.ids import StreamId

if TYPE_CHECKING:
    from events.store import Snapshot

Fact = tuple[int, str, str, bytes | None]
"""(position, stream, ``tag:schema version``, payload) of a verified state event; None where the payload alone says too little."""
PlainEvent = tuple[int, str, bytes]
"""(version, ``tag:schema version``, payload) of a verified state event of one stream."""


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
