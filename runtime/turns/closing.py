"""The append group that ends a turn, and the snapshot that comes with it when one is due (S17, S34)."""

from typing import TYPE_CHECKING

import msgspec

from actors.turn import Turn
from events.codec import canonical_hash
from events.envelope import NewEvent
from events.ids import Version
from events.limits import SNAPSHOT_BYTES, SNAPSHOT_EVENTS, STATE_HASH_EVERY
from events.store import Append, InboxStatus, Snapshot
from runtime.items import Item
from runtime.turns.records import append_of, with_records

if TYPE_CHECKING:
    from runtime.cell import Cell


def closing_group(
    cell: "Cell", item: Item, turn: Turn, events: list[NewEvent], status: InboxStatus, reply: bytes, *, code: int | None = None
) -> Append:
    """The group that ends a turn; a snapshot that is due comes with it (S17)."""
    if turn.sends:
        cell.shard.senders.add((cell.kind.name, turn.method.name))
    if turn.sends or turn.timers or turn.timers_gone or item.command.source is not None:
        events = with_records(item, turn, events, cell.fork)
        item.timers, item.timers_gone = turn.timers, turn.timers_gone
    version = cell.version + len(events)
    cell.snapshot_bytes += turn.payload_bytes
    snapshot = None
    if status is InboxStatus.DONE and turn.emitted:
        due = version - cell.snapshot_version >= SNAPSHOT_EVENTS or cell.snapshot_bytes >= SNAPSHOT_BYTES
        # Never of a fork: its first event says how it is bound to others.
        if due := due and cell.fork is None:
            body = cell.kind.encode_state(cell.state)
            snapshot = Snapshot(stream=cell.stream, version=Version(version), state=body, shape=cell.kind.shape)
            cell.snapshot_version, cell.snapshot_bytes, cell.base_bytes = version, 0, len(body)
        if due or version // STATE_HASH_EVERY != cell.version // STATE_HASH_EVERY:
            events = [*events[:-1], msgspec.structs.replace(events[-1], state_hash=canonical_hash(cell.state))]
    # S24: nobody can repeat a command whose id we made up, so only one that the log knows already has to be ended there.
    remembered = turn.journaled or item.command.explicit or item.stored is not None
    inbox = cell.entry(item, status, reply, code) if remembered else None
    group = append_of(
        cell.shard.code_version, cell.stream, cell.version, item, events, inbox, turn.sends, snapshot, turn.timers, turn.timers_gone
    )
    return group if cell.fork is None else cell.of_fork(group)
