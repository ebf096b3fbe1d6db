"""The finished segments of a turn that runs again (S19, S20): committed, so compared and neither applied nor recorded a second time."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from actors.errors import NondeterminismError
from actors.journal import Segment, Use, sent_event
from actors.registry import ActorType
from events.envelope import Kind, RecordedEvent
from events.errors import InvariantError
from events.store import OutboxEntry


class Past:
    """Where a re-run stands in its finished segments; false once it is through them."""

    __slots__ = ("_bases", "_compared", "_done", "_muted", "_segments")

    def __init__(self, segments: Sequence[Segment], bases: Sequence[Any], *, muted: bool) -> None:
        """
        Args:
            bases: the states that the segments were decided on. muted: their chunks went out under this owner already.
        """
        self._segments = segments
        self._bases = bases
        self._muted = muted
        self._done = 0
        self._compared = 0

    def __bool__(self) -> bool:
        return self._done < len(self._segments)

    @property
    def muted(self) -> bool:
        return self._muted and bool(self)

    def state(self, present: Any) -> Any:
        """What the handler sees now: the state of its segment, behind the last wait the actor's own."""
        return self._bases[self._done] if self else present

    def follow(self, tag: str, version: int, payload: bytes) -> None:
        """Raises: NondeterminismError: the next event of the segment is another one, or there is none."""
        emitted = self._segments[self._done].emitted
        if self._compared >= len(emitted) or emitted[self._compared] != (tag, version, payload):
            raise self._diverged(tag)
        self._compared += 1

    def end(self, sends: Sequence[OutboxEntry], wait: Use) -> None:
        """The segment's own wait is reached. Raises: NondeterminismError: it had emitted more, or sent something else."""
        segment = self._segments[self._done]
        if self._compared != len(segment.emitted):
            raise self._diverged(None)
        if [sent_event(send.receiver, send.method, send.args, send.command_id).payload for send in sends] != segment.sent:
            raise NondeterminismError(f"before {wait} other messages are sent now than were recorded", recorded=None, asked=str(wait))
        self._done += 1
        self._compared = 0

    def _diverged(self, tag: str | None) -> NondeterminismError:
        emitted, at = self._segments[self._done].emitted, self._compared
        recorded = emitted[at][0] if at < len(emitted) else None
        found, wanted = recorded or "no further event", tag or "none"
        return NondeterminismError(
            f"event {at + 1} of a part that is committed is {found}; the code now emits {wanted}, or with other fields",
            recorded=recorded, asked=tag,
        )  # fmt: skip


def segment_bases(kind: ActorType[Any], events: Iterable[RecordedEvent], segments: Sequence[Segment], state: Any) -> list[Any]:
    """The states that `segments` were decided on, from `state`, which is used up, and the `events` after it in order.

    Raises:
        InvariantError: the events do not reach back to the beginning of the turn.
    """
    bases: list[Any] = []
    for event in events:
        while len(bases) < len(segments) and segments[len(bases)].first_version == event.version:
            bases.append(kind.decode_state(kind.encode_state(state)))
        if len(bases) == len(segments):
            break
        if event.kind is Kind.STATE:
            kind.apply(state, event)
    if len(bases) < len(segments):
        raise InvariantError(f"the events of an open turn hold no beginning of segment {len(bases) + 1}")
    return bases


NO_PAST: Final = Past((), (), muted=False)
