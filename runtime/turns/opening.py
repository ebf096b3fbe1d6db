"""How a turn comes to wait: the one group that holds its segment and its wait (S15, S20)."""

from typing import TYPE_CHECKING, Final

import msgspec

from actors.journal import Wait, started_event, wait_event
from actors.turn import Turn
from events.codec import encode
from events.store import Append, InboxStatus, TimerEntry, WaitEntry
from runtime.items import Item
from runtime.turns.records import append_of, with_records

if TYPE_CHECKING:
    from runtime.cell import Cell

EXPIRE: Final = "_expire"
"""What the timer of a wait calls."""


def timer_id_of(wait_id: str) -> str:
    """The durable timer of a wait's timeout."""
    return f"wait-{wait_id}"


def wait_group(cell: "Cell", item: Item, turn: Turn, wait: Wait) -> tuple[Append, WaitEntry]:
    """The group that opens a wait, with everything that the turn did since its start or last wait; a parked step commits nothing else."""
    shard, stream = cell.shard, cell.stream
    now_us = shard.clock.wall_us()
    expires_at_us = None if wait.timeout_us is None else now_us + wait.timeout_us
    row = WaitEntry(
        stream=stream, wait_id=wait.wait_id, name=wait.name, command_id=item.command.command_id, opened_at_us=now_us,
        expires_at_us=expires_at_us, schema=wait.schema,
    )  # fmt: skip
    opened = wait_event(
        "opened", wait, {"expires_at_us": expires_at_us, "schema": None if wait.schema is None else msgspec.Raw(wait.schema)}
    )
    if wait.step is not None:
        return msgspec.structs.replace(cell.group(item, [opened], None), waits=(row,)), row
    timers = list(turn.timers)
    if expires_at_us is not None:
        timers.append(
            TimerEntry(
                stream=stream, timer_id=timer_id_of(wait.wait_id), due_us=expires_at_us, wall=False, every_us=None, method=EXPIRE,
                args=encode({"wait_id": wait.wait_id}), set_at_us=now_us, correlation_id=item.command.correlation_id,
            )
        )  # fmt: skip
    first = [] if turn.journaled else [started_event(turn.started(shard.code_version))]
    events = [*with_records(item, turn, [*first, *turn.emitted], cell.fork), opened]
    inbox = None if turn.journaled else cell.entry(item, InboxStatus.RUNNING, None, None)
    group = append_of(
        shard.code_version, stream, cell.version, item, events, inbox, turn.sends, timers=timers, timers_gone=turn.timers_gone
    )
    return msgspec.structs.replace(cell.of_fork(group), waits=(row,)), row
