"""The port of the engine: a view that remembers how far it has come, in one step with what it holds. Adapters: `view_sqlite` for a
`Projection`; the cache keeps one in Valkey.

Positions are a vector: shard to the position of the last event that the view has seen; a shard that is not named stands at 0.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from events.envelope import RecordedEvent
from events.ids import StreamId

ERASED: Final = "stream.erased"
"""The tag of the event that ends an erased stream (S29). It reaches every view, whatever it handles."""

Positions = Mapping[int, int]


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that this view applies no further since one of its events could not be applied: order within a stream is never broken.

    shard, position, version, type: of that event. stream: empty where the damage hides it, then that event alone is parked. held: how many
    later events of the stream wait behind it. reason: class and text of the error.
    """

    stream: StreamId
    shard: int
    position: int
    version: int
    type: str
    reason: str
    parked_at_us: int
    held: int = 0


class View(Protocol):
    """One view as the engine drives it: from one task, one call at a time.

    It is a view of one log, whose incarnation its maker is given. What it holds of another one has to count as nothing: after a restore the
    same positions may name other events.
    """

    name: str
    version: int
    handles: Sequence[str]
    """Tags that `apply` is given, beside `ERASED`."""
    sealed: bool
    """Whether events of sealed actors are given too, without payload."""

    async def positions(self) -> Positions:
        """The checkpoint, as stored. Raises: ViewUnavailableError."""
        ...

    async def parked(self) -> Sequence[Parked]:
        """The streams that are parked, as stored. Raises: ViewUnavailableError."""
        ...

    async def apply(
        self, events: Sequence[RecordedEvent], *, expected: Positions, positions: Positions, parked: Sequence[Parked] = ()
    ) -> None:
        """Bring `events` in, in this order, and move the checkpoint, in one atomic step: after a crash both have happened, or neither.

        `events` may be empty: then only the checkpoint moves. An event of type `ERASED` means: forget its stream (every row, vector, cached
        value of it, and its entry among the parked) so that no byte of it stays.

        Args:
            expected: the checkpoint that this rests on, compared inside the same step: of two projectors only one gets further.
            positions: the whole new checkpoint.
            parked: streams whose entry is new or has another count; stored in the same step.

        Raises:
            CheckpointError: the stored checkpoint is not `expected`. PoisonError: an event cannot be applied; `index` says which.
            RebuildNeededError: the view cannot go on as it is. ViewUnavailableError: try the same again. In all four nothing was written.

        Cancelling the caller does not stop a commit that has begun: read `positions` again.
        """
        ...

    async def release(self, stream: StreamId, events: Sequence[RecordedEvent], *, expected: Positions) -> None:
        """Apply the events that were held back of a parked stream and remove its entry, in one atomic step; the checkpoint stays, since it
        has passed them. Raises as `apply`; of a PoisonError the events before it were not kept either."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...
