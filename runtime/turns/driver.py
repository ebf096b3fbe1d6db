"""The driver of one turn against the log: the barrier, the journal, and what a handler asks of the world (S15, S17)."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors import LogFull, Overloaded
from actors.journal import Stood, Wait, fired_events, started_event
from actors.models.port import Models
from actors.step_cache import StepCache
from actors.turn import Call, Turn
from events.codec import encode
from events.crash_points import CrashPoint, reached
from events.envelope import NewEvent
from events.errors import InvariantError
from events.ids import CommandId, StreamId
from events.limits import FULL_RETRY_S, WAITS_PER_ACTOR_MAX
from events.store import Append, Committed, Conflict, Duplicate, InboxStatus, Outcome
from runtime.branches.forks import call_of_fork
from runtime.exchange import Reply
from runtime.items import Item, KnownError, StaleError
from runtime.turns.edges import Edge
from runtime.turns.opening import wait_group
from runtime.turns.outbox_room import check_send
from runtime.turns.records import conflict_error
from runtime.wire import VIEW_AFTER, VIEW_CALLER

_CONFLICTS_MAX = 3

if TYPE_CHECKING:
    from runtime.cell import Cell


class NoEffects:
    """The driver of a turn that awaits nothing: it can have no effects, so one serves all."""

    __slots__ = ()
    step_cache: StepCache | None = None
    models: Models | None = None
    code_version: str | None = None
    home = 0

    def wall_us(self) -> int:
        return 0  # nothing is recorded here that it could decide

    async def record(self, turn: Turn, events: list[NewEvent]) -> int:
        raise _no_effects(turn)

    async def ask(self, turn: Turn, call: Call, note: Callable[[Stood], None]) -> bytes:
        raise _no_effects(turn)

    def answered(self, turn: Turn, stood: Stood) -> None:
        raise _no_effects(turn)

    async def query_view(self, turn: Turn, projection: str, operation: str, body: bytes, fresh: bool) -> bytes:
        raise _no_effects(turn)

    async def run_step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        raise InvariantError("a step was started in a turn that had ended")

    async def suspend(self, turn: Turn, wait: Wait) -> None:
        raise _no_effects(turn)

    def still_waits(self, turn: Turn, wait_id: str) -> None:
        raise _no_effects(turn)

    def under_way(self, command_id: CommandId) -> bool:
        raise InvariantError("a turn that awaits nothing knows no other turns")

    def once_changed(self, turn: Turn) -> None:
        raise _no_effects(turn)

    def check_send(self, turn: Turn, receiver: StreamId) -> None:
        """There is room: else its actor had not been let go on the spot (S25)."""

    def send_chunk(self, turn: Turn, offset: int, data: Any) -> None:
        raise _no_effects(turn)

    def before_first_emit(self, turn: Turn) -> None:
        """Nothing is committed that queries would have to see."""


def _no_effects(turn: Turn) -> InvariantError:
    return InvariantError(f"{turn.method.name} had ended when it asked for an effect: a step, ask or view must be awaited by the handler")


class TurnDriver:
    """Adapter of `actors.turn.Driver`. One per turn."""

    __slots__ = ("_asking", "_asking_since", "_busy", "_cell", "_item", "_opening", "_seen", "asks", "committed_state")

    def __init__(self, cell: "Cell", item: Item) -> None:
        self._cell = cell
        self._item = item
        self._opening: asyncio.Future[None] | None = None
        self._asking = self._busy = 0
        self._seen: dict[int, int] = {}
        """By shard, where the actors that this turn asked stood when they answered."""
        self.asks: dict[str, Edge] = {}
        """The asks that the turn waits for, by command id (S23)."""
        self._asking_since = 0.0
        self.committed_state: Any = None
        """What queries see once this turn has changed the working state; None while both are the same."""

    @property
    def step_cache(self) -> StepCache | None:
        """None for a fork: what it does again, it does itself (S33)."""
        return None if self._cell.fork is not None else self._cell.shard.exchange.step_cache

    @property
    def models(self) -> Models | None:
        return self._cell.shard.exchange.models

    @property
    def code_version(self) -> str | None:
        return self._cell.shard.code_version

    @property
    def home(self) -> int:
        return self._cell.shard.number

    @property
    def opening(self) -> bool:
        """The journal was begun, whether that is in the log yet or not."""
        return self._opening is not None

    def only_asks_since(self) -> float | None:
        """Since when (monotonic) this turn has done nothing but wait for other actors; None if something of its own is under way."""
        return self._asking_since if self._asking and not self._busy else None

    def wall_us(self) -> int:
        return self._cell.shard.clock.wall_us()

    async def record(self, turn: Turn, events: list[NewEvent]) -> int:
        self._busy += 1
        try:
            return await self._record(turn, events)
        finally:
            self._busy -= 1

    async def _record(self, turn: Turn, events: list[NewEvent]) -> int:
        cell = self._cell
        if not turn.journaled:
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_future()
                return await self._open(turn, events, self._opening)
            await self._opening
            if not turn.journaled:
                raise StaleError
        return self._recorded(turn, await cell.commit_held(cell.group(self._item, events, None)))

    async def _open(self, turn: Turn, events: list[NewEvent], opening: asyncio.Future[None]) -> int:
        """The barrier. If it fails the handler unwinds, and so do concurrent steps of it that wait for `opening`."""
        cell = self._cell
        try:
            await cell.settle()
            if cell.state is None:
                raise StaleError
            first = started_event(turn.started(cell.shard.code_version))
            events = [*fired_events(turn.command.source), first, *events]
            group = cell.group(self._item, events, cell.entry(self._item, InboxStatus.RUNNING, None, None))
            outcome = await self._commit_first(group)
            turn.journaled = True
            at_us = self._recorded(turn, outcome)
            if turn.emitted:
                self.committed_state = (await cell.shard.recover(cell.kind, cell.stream)).state
            if self._item.cancelled:
                raise asyncio.CancelledError  # it came while this was on its way
            return at_us
        finally:
            if not opening.done():
                opening.set_result(None)

    async def _commit_first(self, group: Append) -> Committed:
        """The group that begins the journal of a turn."""
        self._item.committing = True
        try:
            outcome = await self._cell.commit_held(group)
        finally:
            self._item.committing = False
        if isinstance(outcome, Duplicate):
            raise KnownError(outcome.entry)
        if isinstance(outcome, Conflict):
            self._item.attempts += 1
            if self._item.attempts > _CONFLICTS_MAX:
                raise conflict_error(self._cell.stream, outcome)
            raise StaleError
        return outcome

    async def suspend(self, turn: Turn, wait: Wait) -> None:
        """S20: one transaction for what the turn did since its start or last wait, and the wait."""
        cell, item, shard = self._cell, self._item, self._cell.shard
        if wait.step is None and shard.waits.count(cell.stream) >= WAITS_PER_ACTOR_MAX:
            raise Overloaded(f"{cell.stream} waits for {WAITS_PER_ACTOR_MAX} answers already", retry_after_ms=1_000)
        if not turn.journaled:
            await cell.settle()
            if cell.state is None:
                raise StaleError
        group, row = wait_group(cell, item, turn, wait)
        committed = await self._commit_first(group)
        turn.journaled = True
        turn.flush_chunks()
        self._recorded(turn, committed)
        shard.timers.remove(cell.stream, group.timers_gone)
        shard.timers.set(group.timers)
        if wait.step is not None and turn.emitted:
            cell.state = None  # not committed: the turn emits it again when it goes on
        shard.waits.opened(cell, item, row)
        if item.cancelled:
            shard.waits.cancel(cell.stream, item.command.command_id, lambda _: None)

    def still_waits(self, turn: Turn, wait_id: str) -> None:
        """An append of unknown outcome did open the wait (S18). If it is not open here, it is still being taken up, or it ended after the
        journal was read: the turn reads it again. Nothing of it may be let go before somebody else has it."""
        if not self._cell.shard.waits.rejoin(self._cell, self._item, wait_id):
            raise StaleError

    def under_way(self, command_id: CommandId) -> bool:
        cell = self._cell
        return cell.shard.waits.waits(cell.stream, command_id) or cell.under_way(command_id) is not None

    def once_changed(self, turn: Turn) -> None:
        if turn.once_running:
            self._cell.shard.once.add(self._cell)
        else:
            self._cell.shard.once.discard(self._cell)

    def check_send(self, turn: Turn, receiver: StreamId) -> None:
        check_send(self._cell, turn, receiver)

    def _recorded(self, turn: Turn, outcome: Outcome) -> int:
        if not isinstance(outcome, Committed):
            raise StaleError
        self._cell.recorded(outcome)
        turn.time = outcome.time
        turn.recorded = outcome.events[-1].version
        reached(CrashPoint.TURN_JOURNALED)
        return outcome.events[-1].recorded_at_us

    async def ask(self, turn: Turn, call: Call, note: Callable[[Stood], None]) -> bytes:
        shard = self._cell.shard
        if self._cell.fork is not None:
            call = call_of_fork(self._cell.fork, call)
        self._asking += 1
        self._asking_since = shard.clock.monotonic()
        self.asks[call.command_id] = Edge(call.command_id, self._cell.stream, call.receiver, turn.time)
        if self._cell.mailbox.ready:
            shard.probes.blocked(self._cell)
        try:
            # A started turn goes on behind its own deadline (S10), and what it has done until then must be told.
            within = msgspec.structs.replace(turn.command, deadline_ms=None) if call.settles else turn.command
            reply = await self._ask(turn, call, shard.call_deadline_ms(within, call.timeout_s))
        finally:
            self._asking -= 1
            del self.asks[call.command_id]
        self._item.received_time = max(self._item.received_time, reply.time)
        if reply.position:
            stood = Stood(shard.exchange.shard_of(call.receiver), shard.exchange.shards, reply.position)
            self.answered(turn, stood)
            note(stood)
        if reply.error is not None:
            raise reply.error
        return reply.body

    async def _ask(self, turn: Turn, call: Call, deadline_ms: int) -> Reply:
        """A full disk over there is waited out as one here is: a turn that has begun is not given up for that (S18)."""
        shard = self._cell.shard
        while True:
            reply = await shard.exchange.ask(call, turn, deadline_ms)
            full = isinstance(reply.error, LogFull) and not reply.error.final
            if not full or shard.now_ms() + FULL_RETRY_S * 1_000 >= deadline_ms:
                return reply
            await asyncio.sleep(FULL_RETRY_S)

    def answered(self, turn: Turn, stood: Stood) -> None:
        # After an import into another number of shards positions count anew, and the one here might never be reached.
        if stood.shards == self._cell.shard.exchange.shards:
            self._seen[stood.shard] = max(stood.position, self._seen.get(stood.shard, 0))

    async def query_view(self, turn: Turn, projection: str, operation: str, body: bytes, fresh: bool) -> bytes:
        shard = self._cell.shard
        # The body is an object that the turn has encoded. A fork asks about the workspace of its parent: its own has no memory yet (S33).
        own: dict[str, Any] = {VIEW_CALLER: f"{turn.kind.name}/{turn.key}"}
        if fresh:
            seen = {**self._seen, shard.number: max(self._cell.position, self._seen.get(shard.number, 0))}
            own[VIEW_AFTER] = {str(number): position for number, position in sorted(seen.items())}
        body = encode(own)[:-1] + (b"," if len(body) > 2 else b"") + body[1:]
        return await shard.exchange.query_view(projection, operation, body, shard.call_deadline_ms(turn.command, None))

    async def run_step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        self._busy += 1
        try:
            if inspect.iscoroutinefunction(function):
                result = await function(*args, **kwargs)
            else:
                # With the context of the step, which holds its idempotency key.
                result = await self._cell.shard.run_in_thread(partial(copy_context().run, function, *args, **kwargs))
                if inspect.isawaitable(result):
                    result = await result
        finally:
            self._busy -= 1
        reached(CrashPoint.STEP_RAN)
        return result

    def send_chunk(self, turn: Turn, offset: int, data: Any) -> None:
        shard = self._cell.shard
        attempt, place = shard.spoken.add(turn, offset, data)
        shard.exchange.chunk(turn.command, attempt, place, data, end=False)

    def before_first_emit(self, turn: Turn) -> None:
        if turn.journaled:
            kind = self._cell.kind
            self.committed_state = kind.decode_state(kind.encode_state(turn.state))
