"""Stored commands whose handler fails: tried again with backoff, then a dead letter (design.md 6, F-22).

A tell, a send or a timer has nobody who would try again, so the actor does. Each failed attempt is one commit: what failed, the count and
the time of the next try, so that a restart neither forgets nor repeats one. Meanwhile

- a short turn has left nothing behind: its sender's later tells wait for it, so that their order holds (S25, I-16); asks and other senders
  pass;
- a turn with a journal stays open and holds its actor, as any open turn does (S15): it runs again from its journal, so that steps that are
  finished are not repeated, and what failed is done again.

Both only as long as the few attempts take, about ten seconds in all. Then the letter is dead, its sender goes on, and a person has it
tried again or drops it (`cuebook dead`).

Backoff and jitter: exponential with equal jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from actors.errors import HandlerFailed, error_body
from actors.journal import DEAD_LETTER, TURN_FAILED, TURN_RETRIED, end_event, fired_events
from actors.turn import Turn
from events.codec import canonical
from events.envelope import NewEvent
from events.letters import Letter, LetterState, Supervision, letter_with
from events.limits import RETRY_ATTEMPTS_MAX, RETRY_FACTOR, RETRY_FIRST_S, RETRY_MAX_S
from events.store import Committed, Duplicate, InboxStatus
from runtime.items import Item, KnownError, StaleError
from runtime.ownership.handing_on import hand_on
from runtime.saying import said
from runtime.turns.spoken import send_end

if TYPE_CHECKING:
    from runtime.cell import Cell

log = structlog.get_logger("cuebook.retries")


def backoff_s(attempts: int, chance: float) -> float:
    """How long to wait after so many failed attempts. chance: 0 to 1; half of the wait depends on it."""
    whole = min(RETRY_MAX_S, RETRY_FIRST_S * RETRY_FACTOR ** (attempts - 1))
    return whole * (0.5 + 0.5 * chance)


class Tries:
    """What waits for its next try in one shard. Nothing outlives `stop`."""

    def __init__(self) -> None:
        self._handles: dict[int, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._sleeping: set[asyncio.Future[bool]] = set()
        self.stopped = False

    def __len__(self) -> int:
        return len(self._handles)

    def later(self, waiting: object, delay_s: float, then: Callable[[], None]) -> None:
        """Call `then` after `delay_s`, or at once by `now`; never after `stop`. waiting: an item, or an actor."""

        def due() -> None:
            del self._handles[id(waiting)]
            then()

        if not self.stopped:
            self._handles[id(waiting)] = asyncio.get_running_loop().call_later(delay_s, due), due

    def now(self, item: Item) -> None:
        """`item` need not wait any longer: it was cancelled."""
        if (waiting := self._handles.get(id(item))) is not None:
            waiting[0].cancel()
            waiting[1]()

    async def sleep(self, waiting: object, delay_s: float) -> bool:
        """Wait in the actor's own task. waiting: as `later`. False if `stop` cut it short."""
        if self.stopped:
            return False
        woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(True)

        self.later(waiting, delay_s, wake)
        self._sleeping.add(woken)
        try:
            return await woken
        finally:
            self._sleeping.discard(woken)

    def stop(self) -> None:
        """The shard decides nothing more: what waits stands in the inbox, and the next owner goes on with it."""
        self.stopped = True
        for handle, _ in self._handles.values():
            handle.cancel()
        self._handles.clear()
        for woken in list(self._sleeping):
            if not woken.done():
                woken.set_result(False)


async def attempt_failed(cell: "Cell", item: Item, turn: Turn, kind: str, message: str) -> None:
    """The handler of a stored command failed with an exception of class `kind`: record it, and try again later or give up.

    Raises:
        StaleError: the log has moved; decide again. KnownError: the command has ended elsewhere. LostError: the shard has another owner.
    """
    if not turn.journaled:
        await cell.settle()
        if cell.state is None and not await cell.recover():
            cell.mailbox.appendleft(item)  # nothing was recorded: this attempt does not count
            return
    known = item.letter
    attempts = 1 if known is None else known.attempts + 1
    now_us = cell.shard.clock.wall_us()
    command = item.command
    letter = Letter(
        stream=cell.stream, command_id=command.command_id, state=LetterState.RETRYING, method=command.method, args_hash=item.args_hash(),
        attempts=attempts, reason=f"{kind}: {message}"[:2_000], failed_at_us=now_us, event_ids=() if known is None else known.event_ids,
        sender=command.sender, causation_id=command.causation_id, correlation_id=command.correlation_id, traceparent=command.traceparent,
        source=command.source, received_at_us=command.received_at_us,
    )  # fmt: skip
    fields: dict[str, Any] = {"method": command.method, "type": kind, "message": message[:2_000]}
    if attempts < RETRY_ATTEMPTS_MAX:
        delay_s = backoff_s(attempts, int(cell.shard.seed(), 16) / 2**64)
        next_try_us = now_us + int(delay_s * 1_000_000)
        letter = msgspec.structs.replace(letter, next_try_us=next_try_us)
        event = end_event(TURN_RETRIED, {**fields, "attempt": attempts, "next_try_us": next_try_us}, error=letter.reason[:500])
        status = InboxStatus.RUNNING if turn.journaled else InboxStatus.QUEUED
        item.letter = letter_with(letter, await _commit(cell, item, [event], status, Supervision(letter=letter)))
        item.stored = status
        if turn.journaled:
            cell.state = None  # fold again: the journal of the next attempt is what the log holds
        cell.mailbox.appendleft(item)
        log.info("command_retried", stream=cell.stream, method=command.method, attempt=attempts, delay_s=round(delay_s, 3))
        return
    await _give_up(cell, item, turn, letter, fields)


async def _give_up(cell: "Cell", item: Item, turn: Turn, letter: Letter, fields: dict[str, Any]) -> None:
    letter = msgspec.structs.replace(letter, state=LetterState.DEAD, args=item.command.args or b"{}")
    failure = HandlerFailed(f"{cell.kind.name}.{item.method.name} failed {letter.attempts} times: {letter.reason}")
    item.reply = canonical(error_body(failure))
    fired = [] if turn.journaled else fired_events(item.command.source)
    events = [*fired, end_event(TURN_FAILED, fields, error=letter.reason[:500]), dead_letter_event(letter)]
    await _commit(cell, item, events, InboxStatus.FAILED, Supervision(letter=letter), reply=item.reply, code=failure.number)
    send_end(cell.shard, item.command)
    told = said(cell.kind.sealed, letter.reason)
    log.warning("dead_letter", stream=cell.stream, method=letter.method, command_id=letter.command_id, **told)
    cell.finish(item, cell.stand(error=failure))


def dead_letter_event(letter: Letter) -> NewEvent:
    """The record of a command that is given up. A handler had its arguments, so they are JSON."""
    arguments = msgspec.Raw(letter.args or b"{}")
    fields = {"command_id": letter.command_id, "method": letter.method, "arguments": arguments, "attempts": letter.attempts}
    return end_event(DEAD_LETTER, {**fields, "reason": letter.reason}, error=letter.reason[:500])


async def _commit(
    cell: "Cell",
    item: Item,
    events: list[NewEvent],
    status: InboxStatus,
    supervision: Supervision,
    *,
    reply: bytes | None = None,
    code: int | None = None,
) -> Any:
    group = cell.group(item, events, cell.entry(item, status, reply, code))
    outcome = await cell.commit_held(msgspec.structs.replace(group, supervision=supervision))
    if isinstance(outcome, Duplicate):
        raise KnownError(outcome.entry)
    if not isinstance(outcome, Committed):
        raise StaleError
    cell.recorded(outcome)
    return outcome.events


async def not_yet(cell: "Cell", item: Item) -> bool:
    """Whether `item`, just taken from the mailbox, has to wait for its next try; then it is put away, and comes again by itself."""
    letter, shard = item.letter, cell.shard
    if letter is None or letter.next_try_us is None or item.cancelled:
        return False
    # By the wall clock, since it may be another process that waits now; a clock that was set back costs one whole backoff at most.
    left_s = min(RETRY_MAX_S, (letter.next_try_us - shard.clock.wall_us()) / 1_000_000)
    if left_s <= 0:
        return False
    if item.stored is not InboxStatus.RUNNING:
        shard.tries.later(item, left_s, lambda: _again(cell, item))
        cell.mailbox.hold(item)
        return True
    if cell.state is None and not await cell.recover():
        cell.mailbox.appendleft(item)
        return True
    cell.holding = True
    try:
        if await shard.tries.sleep(item, left_s):
            return False
    finally:
        cell.holding = False
    # The shard is leaving: what waits behind the open turn goes to the next owner, with it.
    cell.drop(item)
    hand_on(cell)
    return True


def _again(cell: "Cell", item: Item) -> None:
    if item.letter is not None:
        # It has waited, whatever the wall clock says meanwhile: one that was set back would let it wait again and again.
        item.letter = msgspec.structs.replace(item.letter, next_try_us=None)
    cell.mailbox.release(item)
    cell.wake()
