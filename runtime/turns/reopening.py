"""Turns that run again: what their journal says, and on which states their finished segments were decided (S19, S20)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from actors.journal import WAIT_OPENED, Opened, Wait, derived_id, effect_event, holder_of, open_turn, opened_wait
from actors.past import segment_bases
from events.envelope import NewEvent, RecordedEvent
from events.errors import CorruptLogError, CuebookError, InvariantError, SupersededError
from events.limits import RESTART_FIRST_S
from events.store import InboxStatus, ShardStore, WaitEntry
from runtime.items import Item

if TYPE_CHECKING:
    from runtime.cell import Cell

log = structlog.get_logger("cuebook.cell")
_WAITS_OF_A_NAME_MAX = 10_000


async def reopen(cell: "Cell", item: Item) -> tuple[Opened | None, list[Any]] | None:
    """The journal of `item`, which is RUNNING, and the states its finished segments began with. None if it is put back, because they
    cannot be read now."""
    await cell.settle()
    try:
        opened, bases = await _read(cell, item.command.command_id)
    except SupersededError:
        cell.shard.superseded()
        return None
    except CuebookError as error:
        log.warning("turn_not_reopened", stream=cell.stream, command_id=item.command.command_id, error=error.message)
        cell.paused = RESTART_FIRST_S
        cell.mailbox.appendleft(item)
        return None
    if cell.state is None:
        cell.mailbox.appendleft(item)
        return None
    if opened is not None and opened.segments:
        # S10 bounds what its caller waits for, and that one was told 202 long ago.
        item.command = msgspec.structs.replace(item.command, deadline_ms=None)
    return opened, bases


async def _read(cell: "Cell", command_id: str) -> tuple[Opened | None, list[Any]]:
    """While a turn waited others may have been decided, and a snapshot written: then its stream is read from the beginning."""
    store, kind = cell.shard.store, cell.kind
    snapshot, events = await store.load(cell.stream, kind.shape)
    opened = open_turn(events, command_id)
    if opened is None and snapshot is not None:
        snapshot, events = await store.load(cell.stream, "")
        opened = open_turn(events, command_id)
    if opened is None or not opened.segments:
        return opened, []
    try:
        state = kind.initial() if snapshot is None else kind.decode_state(snapshot.state)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptLogError(f"the snapshot of {cell.stream} cannot be read: {error}") from error
    return opened, segment_bases(kind, events, opened.segments, state)


async def journal_of(cell: "Cell", command_id: str) -> Opened | None:
    """The journal of a turn that has not ended; None if there is none. Raises: CuebookError: the log cannot be read."""
    store = cell.shard.store
    _, events = await store.load(cell.stream, cell.kind.shape)
    opened = open_turn(events, command_id)
    if opened is None:  # it may stand before the snapshot
        _, events = await store.load(cell.stream, "")
        opened = open_turn(events, command_id)
    return opened


async def stored_status(cell: "Cell", item: Item) -> InboxStatus | None:
    """What the log knows of a command whose barrier has an unknown outcome: if it was written, its turn has begun there."""
    try:
        entry = await cell.shard.store.inbox(cell.stream, item.command.command_id)
    except CuebookError:
        return item.stored
    return entry.status if entry is not None and entry.code is None and entry.reply is None else item.stored


def let_holder_go_first(cell: "Cell", journal: Iterable[RecordedEvent]) -> None:
    """Several turns may run again after a crash: the one that was in the middle of a segment goes on from the state it was at (S19)."""
    command_id = holder_of(journal)
    holder = None if command_id is None else cell.under_way(command_id)
    if holder is not None and holder is not cell.item and holder.stored is InboxStatus.RUNNING and holder in cell.mailbox:
        cell.mailbox.remove(holder)
        cell.mailbox.appendleft(holder)


def number_of(wait: WaitEntry) -> int:
    """Which use of its name a wait is: its id says so."""
    for n in range(1, _WAITS_OF_A_NAME_MAX):
        if derived_id(wait.stream, wait.command_id, "wait", wait.name, n) == wait.wait_id:
            return n
    raise InvariantError(f"the wait {wait.wait_id} of {wait.stream} was not made for {wait.name!r} of {wait.command_id}")


async def parked_step(store: ShardStore, wait: WaitEntry) -> Wait:
    """The wait of an ambiguous ``once`` step, with the step. It stands behind every snapshot, because it holds its actor."""
    _, events = await store.load(wait.stream, "")
    for event in reversed(events):
        if event.type == WAIT_OPENED and (found := opened_wait(event)).wait_id == wait.wait_id:
            return found
    raise InvariantError(f"the stream {wait.stream} does not hold the beginning of its wait {wait.wait_id}")


def outcome_events(wait: Wait, value: msgspec.Raw) -> list[NewEvent]:
    """What a person said of an ambiguous step, as its journal entry; none if it shall be repeated."""
    if wait.step is None:
        return []
    said = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    if "result" in said:
        return [effect_event(wait.step, "completed", {"result": said["result"]})]
    if "error" in said:
        message = msgspec.json.decode(said["error"], type=str)
        return [effect_event(wait.step, "failed", {"type": "Error", "message": message})]
    return []
