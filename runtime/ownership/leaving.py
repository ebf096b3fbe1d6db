"""Letting go of a shard: drain, and what becomes of steps that do not end in time (S5)."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from actors.journal import Use, Wait, open_turn, wait_event
from events.errors import CuebookError
from events.ids import CommandId
from events.store import Append, Committed, WaitEntry
from runtime.items import LostError, StaleError
from runtime.turns.commits import commit_held

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.leaving")
_CANCEL_S: Final = 1.0


async def leave(shard: "Shard", drain_s: float, may_cut: Callable[[], bool] = lambda: True) -> None:
    """Drain for `drain_s`, then cancel steps that may be repeated and park those that may happen only once.

    may_cut: a voluntary move never cuts a ``once`` step off, so it goes on waiting while that runs, until this says that the process ends.
    """
    while not await shard.drain(drain_s):
        if shard.once and not may_cut():
            continue
        await _park_once(shard)
        shard.abandon()
        return


async def _park_once(shard: "Shard") -> None:
    """What is cut off now will be ambiguous: the question is put at once, so that it is known while nothing runs (S21)."""
    cut: list[tuple[Cell, str, dict[Use, Wait | None]]] = []
    for cell in list(shard.once):
        if cell.task is None or cell.turn is None:
            continue
        cut.append((cell, cell.turn.command.command_id, dict(cell.turn.once_running)))
        cell.task.cancel()
        await asyncio.wait([cell.task], timeout=_CANCEL_S)
    await shard.commit.drain()  # perhaps its result is on the way
    for cell, command_id, questions in cut:
        try:
            await _ask(cell, command_id, questions)
        except (CuebookError, StaleError, LostError) as error:
            # The next owner comes upon the open step, and asks.
            log.warning("step_not_parked", stream=cell.stream, command_id=command_id, error=repr(error))


async def _ask(cell: "Cell", command_id: str, questions: dict[Use, Wait | None]) -> None:
    shard = cell.shard
    _, events = await shard.store.load(cell.stream, "")
    opened = open_turn(events, command_id)
    if opened is None:
        return  # it has ended after all
    asked = [
        question
        for use, question in questions.items()
        if question is not None and (known := opened.entries.get(use)) is not None and not known.finished
    ]
    if not asked:
        return
    now_us = shard.clock.wall_us()
    first = next(event for event in events if event.command_id == command_id)
    group = Append(
        stream=cell.stream, expected_version=events[-1].version, command_id=CommandId(command_id), correlation_id=first.correlation_id,
        causation_id=first.causation_id, sender=first.sender, traceparent=first.traceparent, code_version=shard.code_version,
        events=[wait_event("opened", each, {"expires_at_us": None, "schema": msgspec.Raw(each.schema or b"null")}) for each in asked],
        waits=[
            WaitEntry(
                stream=cell.stream, wait_id=each.wait_id, name=each.name, command_id=CommandId(command_id), opened_at_us=now_us,
                expires_at_us=None, schema=each.schema,
            )
            for each in asked
        ],
    )  # fmt: skip
    outcome = await commit_held(shard.commit, group)
    if isinstance(outcome, Committed):
        shard.committed(outcome)
