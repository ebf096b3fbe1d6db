"""What is under way, and what waits for whom: from the rows that a shard has yet to work off, and the journals of open turns."""

from typing import Any, Final

import msgspec

from events.envelope import RecordedEvent
from events.ids import StreamId
from events.letters import Letter, LetterState
from events.store import InboxEntry, InboxStatus, LogReader
from runtime.past.causes import payload_of

_JOURNAL_EVENTS_MAX: Final = 1_000
"""How far back an open turn is looked for in its stream."""


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not done. what: queued | running | step | ask | view | wait | send | timer | retrying | dead | stopped.

    waits_for: who must do something first: an actor, what a step runs, "answer NAME" for a person, a time; for a queued command its own
    actor's mailbox. since_us: wall time; due_us: when it ends or goes on by itself, None if it does not.
    """

    shard: int
    actor: StreamId
    what: str
    waits_for: str
    method: str | None
    command_id: str | None
    correlation_id: str | None
    since_us: int | None
    due_us: int | None = None


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All that is open; damages: rows that cannot be read."""

    open: list[Open]
    damages: list[str]


async def under_way(reader: LogReader) -> Listing:
    """What every shard has yet to do, oldest first within each. Committed rows only: what a worker only holds in memory is not here."""
    found: list[Open] = []
    damages: list[str] = []
    for shard in range(reader.shards):
        rows = await reader.under_way(shard)
        damages += rows.damages
        for entry in rows.commands:
            found += await _command(reader, shard, entry)
        found += [
            Open(
                shard=shard, actor=send.sender, what="send", waits_for=send.entry.receiver, method=send.entry.method,
                command_id=send.entry.command_id, correlation_id=send.entry.correlation_id, since_us=send.time,
            )
            for send in rows.sends
        ]  # fmt: skip
        found += [
            Open(
                shard=shard, actor=wait.stream, what="wait", waits_for=f"answer {wait.name} ({wait.wait_id})", method=None,
                command_id=wait.command_id, correlation_id=None, since_us=wait.opened_at_us, due_us=wait.expires_at_us,
            )
            for wait in rows.waits
        ]  # fmt: skip
        found += [
            Open(
                shard=shard, actor=timer.stream, what="timer", waits_for="its time", method=timer.method, command_id=timer.timer_id,
                correlation_id=timer.correlation_id, since_us=timer.set_at_us, due_us=timer.due_us,
            )
            for timer in rows.timers
        ]  # fmt: skip
        found += [_letter(shard, letter) for letter in await reader.letters(shard)]
        found += [
            Open(
                shard=shard, actor=each.stream, what="stopped", waits_for=f"other code, after {each.failures} failures: {each.message}",
                method=None, command_id=None, correlation_id=None, since_us=each.stopped_at_us,
            )
            for each in await reader.stopped(shard)
        ]  # fmt: skip
    return Listing(open=found, damages=damages)


def _letter(shard: int, letter: Letter) -> Open:
    after = f"after {letter.attempts} attempts: {letter.reason}"
    waits_for = f"a person, {after}" if letter.state is LetterState.DEAD else f"its next try, {after}"
    return Open(
        shard=shard, actor=letter.stream, what=letter.state.value, waits_for=waits_for, method=letter.method, command_id=letter.command_id,
        correlation_id=letter.correlation_id, since_us=letter.received_at_us or None, due_us=letter.next_try_us,
    )  # fmt: skip


async def _command(reader: LogReader, shard: int, entry: InboxEntry) -> list[Open]:
    plain = Open(
        shard=shard, actor=entry.stream, what=entry.status.value, waits_for="its turn", method=entry.method, command_id=entry.command_id,
        correlation_id=entry.correlation_id, since_us=entry.received_at_us or None,
        due_us=None if entry.deadline_ms is None else entry.deadline_ms * 1_000,
    )  # fmt: skip
    if entry.status is InboxStatus.QUEUED:
        return [plain]
    effects = await _effects(reader, entry)
    if not effects:
        return [msgspec.structs.replace(plain, waits_for="its handler")]
    return [
        msgspec.structs.replace(plain, what=event.type.partition(".")[0], waits_for=_whom(event), since_us=event.recorded_at_us)
        for event in effects
    ]


async def _effects(reader: LogReader, entry: InboxEntry) -> list[RecordedEvent]:
    """The steps, asks and views of a running command that have begun and not ended. Its waits have rows of their own."""
    head = await reader.head(entry.stream)
    if head is None:
        return []
    begun: dict[tuple[str, Any, Any, Any], RecordedEvent] = {}
    for event in await reader.read_stream(entry.stream, after=max(0, head.version - _JOURNAL_EVENTS_MAX), limit=_JOURNAL_EVENTS_MAX):
        kind, _, outcome = event.type.partition(".")
        if event.command_id != entry.command_id or kind not in ("step", "ask", "view"):
            continue
        payload = payload_of(event)
        use = (kind, payload.get("name"), payload.get("key"), payload.get("n"))
        if outcome == "started":
            begun[use] = event
        else:
            begun.pop(use, None)
    return list(begun.values())


def _whom(event: RecordedEvent) -> str:
    payload = payload_of(event)
    return str(payload.get("receiver") or payload.get("projection") or payload.get("name"))
