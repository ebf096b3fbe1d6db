"""What supervision keeps in the log beside events: commands whose handler failed, and actors that were stopped (design.md 6).

Records only, as `store`; every adapter keeps them in the transaction of the turn that they tell of.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from events.envelope import RecordedEvent
from events.ids import CommandId, EventId, StreamId

if TYPE_CHECKING:
    from events.store import InboxEntry


class LetterState(StrEnum):
    """`RETRYING`: its inbox row is unfinished, and it is tried again at `next_try_us`. `DEAD`: given up, until a person decides."""

    RETRYING = "retrying"
    DEAD = "dead"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A stored command (tell, send, timer) whose handler failed.

    attempts: how often it was tried. next_try_us: wall clock, None if dead. reason: class and text of the last failure. event_ids: of the
    events that its failures recorded, oldest first; the store adds those of the append that brings the letter. args: JSON, only if dead:
    before, they stand in its inbox row. The rest is as it was received.
    """

    stream: StreamId
    command_id: CommandId
    state: LetterState
    method: str
    args_hash: str
    attempts: int
    reason: str
    failed_at_us: int
    next_try_us: int | None = None
    event_ids: Sequence[EventId] = ()
    args: bytes | None = None
    sender: str | None = None
    causation_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    source: str | None = None
    received_at_us: int = 0


class StoppedActor(msgspec.Struct, frozen=True, kw_only=True):
    """An actor that is not started any more, because it failed too often. It stays so for this `code_version` only: other code may do
    better. reason: code of the error; message: its text."""

    stream: StreamId
    reason: str
    message: str
    failures: int
    stopped_at_us: int
    code_version: str | None = None


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an append that only failures need.

    letter: inserted or replaced. letters_gone: of the group's stream. revived: dead letters of the group's stream that are to be tried
    again: their inbox rows become QUEUED, and they are in `Committed.delivered`. stopped: inserted or replaced; restarted: the group's
    stream is stopped no more.
    """

    letter: Letter | None = None
    letters_gone: Sequence[CommandId] = ()
    revived: Sequence["InboxEntry"] = ()
    stopped: StoppedActor | None = None
    restarted: bool = False


def letter_with(letter: Letter, events: Sequence[RecordedEvent]) -> Letter:
    """`letter` with the ids of what its append recorded."""
    if not events:
        return letter
    return msgspec.structs.replace(letter, event_ids=(*letter.event_ids, *(event.event_id for event in events)))
