"""One owned shard: the actors that live in it, its writer, and what arrives for it.

A shard lives as long as this process owns it. Once it is superseded it decides nothing more, tells no caller success, and forwards what is
unanswered to the new owner (S18).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
import structlog

from actors.errors import ActorError, DeadlinePassed, Overloaded, TooLarge
from actors.registry import ActorType
from actors.turn import Command
from events.clock import Clock, Entropy
from events.codec import args_hash, canonical_hash
from events.commit_slot import CommitSlot
from events.crash_points import CrashPoint, reached
from events.errors import CorruptLogError, CuebookError
from events.group_commit import GroupCommit
from events.ids import CommandId, StreamId, parse_stream_id
from events.letters import Letter, LetterState, StoppedActor
from events.limits import ARGUMENTS_BYTES_MAX, ASK_DEADLINE_S, LIVE_ACTORS_BUSY_MAX
from events.sealed.sealing import Sealer
from events.store import Accepted, Arrival, Committed, InboxEntry, InboxStatus, Ownership, PendingSend, ShardStore, TimerEntry, WaitEntry
from runtime import stream_ends
from runtime.app import App
from runtime.backlog import Backlog
from runtime.cell import Cell
from runtime.exchange import Exchange, Reply, ReplyTo
from runtime.items import Item
from runtime.ownership.handing_on import hand_on_turn
from runtime.passivation import LiveBounds, Passivation
from runtime.supervision import record_restart, restart, stopped_error
from runtime.tasks import Tasks
from runtime.turns.cancel import cancel_live, cancelled_before
from runtime.turns.dead_letters import METHODS as LETTER_METHODS
from runtime.turns.dead_letters import undeliverable
from runtime.turns.opening import EXPIRE
from runtime.turns.own_methods import Spoken, take_own
from runtime.turns.probes import Probes, check_chain
from runtime.turns.recovery import Recovered, recover
from runtime.turns.retries import Tries
from runtime.turns.taking_up import TakingUp
from runtime.turns.timers import Timers, arrival_of_timer
from runtime.turns.waits import Asker, Waits

log = structlog.get_logger("cuebook.shard")
_GAP_AGAIN_S: Final = 0.05
_HAND_ON_AFTER_S: Final = 0.2
"""An ask that has an owner is answered long before."""


class ShardStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard is doing, for `status`, tests and metrics."""

    shard: int
    epoch: int
    live_actors: int
    waiting: int
    tells_queued: int
    commits: int
    turns: int
    events: int


class Shard:
    """The owner's side of one shard."""

    def __init__(
        self,
        store: ShardStore,
        ownership: Ownership,
        app: App,
        exchange: Exchange,
        tasks: Tasks,
        clock: Clock,
        entropy: Entropy,
        threads: ThreadPoolExecutor,
        on_lost: Callable[["Shard"], None],
        *,
        bounds: LiveBounds | None = None,
        slot: CommitSlot | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        self.number = ownership.shard
        self.epoch = ownership.epoch
        self.incarnation = ownership.incarnation
        self.store = store
        self.app = app
        self.exchange = exchange
        self.clock = clock
        self.code_version = app.code_version
        self.cells: OrderedDict[StreamId, Cell] = OrderedDict()
        self.passivation = Passivation(self.cells, bounds or LiveBounds(), clock.monotonic)
        self.sealer, self.erasing = sealer, asyncio.Lock()
        self.lost = False
        self.draining = False
        self.commit = GroupCommit(store, lambda work: tasks.spawn(work, name=f"commit {self.number}"), self.reconcile, slot=slot)
        self._entropy = entropy
        self._seeds: list[str] = []
        self._tasks = tasks
        self._threads = threads
        self._on_lost = on_lost
        self._left: tuple[Sequence[InboxEntry], Sequence[PendingSend], Sequence[TimerEntry], Sequence[WaitEntry]] = ((), (), (), ())
        self.waits = Waits(self)
        self.spoken = Spoken(ownership.epoch)
        self.timers = Timers(clock, self._timers_due)
        self._gaps: dict[tuple[StreamId, StreamId, str], int] = {}
        self._taking_up = TakingUp(self)
        self._letters: dict[tuple[StreamId, CommandId], Letter] = {}
        self.tries = Tries()
        self.probes = Probes(self)
        self.senders: set[tuple[str, str]] = set()
        """(type, method) of commands that have sent to another shard (S25)."""
        self.once: set[Cell] = set()
        """Actors in the middle of a ``once`` step: the shard is not given away by choice (S5)."""
        self.stopped: dict[StreamId, StoppedActor] = {}
        self._restartable: list[StreamId] = []
        self.tells = 0
        self.backlog = Backlog(self)
        self.outbox: dict[tuple[StreamId, StreamId, str, int], PendingSend] = {}
        self._resend: asyncio.TimerHandle | None = None

    async def load(self) -> None:
        """Read what a former owner left: commands accepted but not finished, and sends not yet acknowledged."""
        letters = await self.store.letters()
        self._letters = {(each.stream, each.command_id): each for each in letters if each.state is LetterState.RETRYING}
        # Other code than that which failed may do better.
        stopped = await self.store.stopped()
        self.stopped = {each.stream: each for each in stopped if each.code_version == self.code_version}
        self._restartable = [each.stream for each in stopped if each.stream not in self.stopped]
        self._left = await self._read_left()

    async def _read_left(self) -> tuple[Sequence[InboxEntry], Sequence[PendingSend], Sequence[TimerEntry], Sequence[WaitEntry]]:
        store = self.store
        return await store.unfinished(), await store.unsent(), await store.timers(), await store.waits()

    def start(self) -> None:
        """Take up what `load` found, before anything else: a turn that is open in the log must not be opened a second time."""
        entries, rows, timers, waits = self._left
        self._left = (), (), (), ()
        # S20: an open wait costs no task and no live actor.
        entries = self.waits.load(waits, entries)
        # An open turn holds its actor: nothing that came before it may be decided between its entries (S15).
        for entry in sorted(entries, key=lambda entry: entry.status is not InboxStatus.RUNNING):
            self.deliver(entry)
        self._carry(rows)
        self.timers.set(timers)
        for stream in self._restartable:
            self.spawn(record_restart(self, stream, f"the code is {self.code_version} now"), name=f"restart {stream}")
        self.spawn(stream_ends.finish_left(self), name=f"erasures {self.number}")

    # -- arrival ------------------------------------------------------------------------------------------------------------------

    def receive(self, command: Command, reply: ReplyTo) -> None:
        """Take one ask. Every refusal is answered at once and leaves no trace; never blocks, never raises."""
        try:
            if self.draining or self.lost:
                self.exchange.forward(command, reply)
                return
            self._take(command, reply, None)
        except ActorError as error:
            reply(Reply(error=error))

    def _take(self, command: Command, reply: ReplyTo | None, stored: InboxStatus | None, askers: Sequence[ReplyTo] = ()) -> None:
        cell = self.cells.get(command.stream)
        kind = self.app.registry.type(command.stream.partition("/")[0]) if cell is None else cell.kind
        if command.method.startswith("_") and take_own(self, kind, command, reply):
            return
        if self.stopped and command.stream in self.stopped:
            self._to_stopped(command, reply)
            return
        method = kind.methods.get(command.method) or LETTER_METHODS.get(command.method) or kind.method(command.method)
        if len(command.args) > ARGUMENTS_BYTES_MAX:
            raise TooLarge(f"the arguments have {len(command.args):,} bytes, allowed are {ARGUMENTS_BYTES_MAX:,}")
        if stored is None and command.deadline_ms is not None and self.now_ms() > command.deadline_ms:
            raise self.deadline_passed()
        if command.chain:
            check_chain(command, method)
        item = Item(command, method, method.decode(command.args), reply, stored)
        if askers:
            item.replies.extend(askers)
        if stored is None and reply is not None and self.waits.open and not method.query:
            if self.waits.attach(command, reply):
                return
            if command.stream in self.waits.held:
                raise self.waits.parked(command.stream)
        if self._letters and stored is not None:
            item.letter = self._letters.pop((command.stream, command.command_id), None)
        (cell or self._cell(command.stream, kind, stored)).receive(item)

    def cancel(self, stream: StreamId, command_id: str, reply: ReplyTo) -> None:
        """``_cancel`` of a command that waits, runs, waits for an answer, or has ended (S22)."""
        if not self._cancel_here(stream, command_id, reply):
            self.spawn(self._cancel_before(stream, command_id, reply), name=f"cancel {stream}")

    def _cancel_here(self, stream: StreamId, command_id: str, reply: ReplyTo) -> bool:
        cell = self.cells.get(stream)
        return (cell is not None and cancel_live(cell, command_id, reply)) or self.waits.cancel(stream, command_id, reply)

    async def _cancel_before(self, stream: StreamId, command_id: str, reply: ReplyTo) -> None:
        told = await cancelled_before(self, stream, command_id)
        # What had not ended may have come while the log was read.
        if told.error is None or not self._cancel_here(stream, command_id, reply):
            reply(told)

    def _to_stopped(self, command: Command, reply: ReplyTo | None) -> None:
        """What stands in the inbox of a stopped actor stays there; who asks is told."""
        if reply is None:
            self.stored_done(command.stream)
        else:
            raise stopped_error(self.stopped[command.stream])

    async def restart(self, stream: StreamId, reply: ReplyTo) -> None:
        reply(await restart(self, stream, "asked for"))

    def cell_of(self, stream: StreamId) -> Cell:
        """The cell of an actor, made if it is not in memory. Raises: Unknown: this app has no such type."""
        return self._cell(stream, self.app.registry.type(stream.partition("/")[0]), InboxStatus.RUNNING)

    def _cell(self, stream: StreamId, kind: ActorType[Any], stored: InboxStatus | None) -> Cell:
        cell = self.cells.get(stream)
        if cell is None:
            if stored is None and len(self.cells) >= LIVE_ACTORS_BUSY_MAX:
                raise Overloaded(f"shard {self.number} has {LIVE_ACTORS_BUSY_MAX:,} actors at work", retry_after_ms=500)
            cell = self.cells[stream] = Cell(self, kind, parse_stream_id(stream)[1], stream)
        return cell

    def deliver(self, entry: InboxEntry, askers: Sequence[Asker] = ()) -> None:
        """Hand a stored command to its actor: a tell (QUEUED), or an open turn that runs again (RUNNING), with those who wait for it."""
        if self.lost or (entry.status is InboxStatus.QUEUED and not askers and self.backlog.leaves(entry.stream)):
            return  # it stands in the inbox, and is found there: by the new owner, or by us when there is room
        self.hand_over(entry, askers)

    def hand_over(self, entry: InboxEntry, askers: Sequence[Asker] = ()) -> None:
        """`deliver`, whether there is room or not."""
        self.tells += 1
        command = Command(
            stream=entry.stream, method=entry.method, args=entry.args or b"", command_id=entry.command_id, explicit=True,
            received_at_us=entry.received_at_us, sender=entry.sender, causation_id=entry.causation_id,
            correlation_id=entry.correlation_id, traceparent=entry.traceparent, deadline_ms=entry.deadline_ms, source=entry.source,
        )  # fmt: skip
        try:
            self._take(command, None, entry.status, askers)
        except ActorError as error:
            # The refusal must not be lost, and there is no handler to refuse it: the row itself becomes the record (S11).
            self.spawn(undeliverable(self, entry, error), name=f"refuse {entry.stream}")

    def args_hash(self, command: Command) -> str:
        """What a repeat of a tell is compared by (S24); of the raw bytes where they are no JSON."""
        try:
            return args_hash(command.method, command.args or b"{}")
        except msgspec.DecodeError:
            return canonical_hash([command.method, command.args.hex()])

    def stored_done(self, stream: StreamId) -> None:
        """A stored command of `stream` is under way no more."""
        self.tells -= 1
        self.backlog.less(stream)

    def _timers_due(self, timers: list[TimerEntry]) -> None:
        self.waits.expire(timer for timer in timers if timer.method == EXPIRE)
        if calls := self.timers.firing(timer for timer in timers if timer.method != EXPIRE):
            self.spawn(self._fire(calls), name=f"timers {self.number}")

    async def _fire(self, timers: list[TimerEntry]) -> None:
        """Due timers become inbox rows, each with its removal or its next date (S26)."""
        now_us = self.clock.wall_us()
        fired = [arrival_of_timer(timer, now_us) for timer in timers]
        try:
            results = await self.accept([arrival for arrival, _ in fired])
        except CuebookError as error:
            if not self.lost:
                log.warning("timers_late", shard=self.number, error=error.message)
                self.timers.again(timers)
            return
        reached(CrashPoint.TIMER_ACCEPTED)
        self.timers.fired(timers, [following for _, following in fired], [done.result for done in results])

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Accepted]:
        """Commit tells into the inbox, then hand the new ones to their actors (S11)."""
        results = await self.commit.accept(arrivals)
        taken = [arrival.entry for arrival, result in zip(arrivals, results, strict=True) if result.result == "taken"]
        self._hand_out(taken)
        return results

    def _hand_out(self, entries: Sequence[InboxEntry]) -> None:
        """Rows that a commit has just put into the inbox."""
        if self._taking_up.in_doubt and entries:
            self._taking_up.begin()
            return
        for entry in entries:
            self.deliver(entry)

    def reconcile(self) -> None:
        """Take up what stands in the log and is not under way: after a commit that was written although its outcome was unknown."""
        self._taking_up.begin()

    @property
    def decides(self) -> bool:
        return not self.lost and not self.draining

    async def take_up(self) -> Callable[[], None]:
        """For `runtime.turns.taking_up`."""
        known = self.waits.known()
        entries, rows, timers, waits = await self._read_left()

        def hand_out() -> None:
            for entry in self.waits.load(waits, entries, known):
                cell = self.cells.get(entry.stream)
                if cell is None or cell.under_way(entry.command_id) is None:
                    self.deliver(entry)
            self._carry([row for row in rows if (row.sender, row.entry.receiver, row.incarnation, row.n) not in self.outbox])
            self.timers.set(timer for timer in timers if not self.timers.knows(timer))

        return hand_out

    # -- sends to other shards (S25) ----------------------------------------------------------------------------------------------

    def _carry(self, rows: Sequence[PendingSend]) -> None:
        if not rows:
            return
        for row in rows:
            self.outbox[(row.sender, row.entry.receiver, row.incarnation, row.n)] = row
        self.exchange.send(rows)
        reached(CrashPoint.OUTBOX_SENT)
        if self._resend is None:
            self._resend = asyncio.get_running_loop().call_later(1.0, self._send_again)

    def _send_again(self) -> None:
        """What nobody has acknowledged goes out again; there is a timer only while something is outstanding."""
        self._resend = None
        if not self.lost and self.outbox:
            self.exchange.send(list(self.outbox.values()))
            self._resend = asyncio.get_running_loop().call_later(1.0, self._send_again)

    def drop_sends(self, sender: StreamId) -> None:
        self.outbox = {key: row for key, row in self.outbox.items() if key[0] != sender}

    async def acknowledged(self, keys: Sequence[tuple[StreamId, StreamId, str, int]]) -> None:
        """The receivers have committed these rows: delete them with the next batch."""
        known = [key for key in keys if key in self.outbox]
        if known:
            await self.commit.acknowledge(known)
        for key in known:  # only now: if that commit fails they are sent, and acknowledged, again
            self.outbox.pop(key, None)

    def missing(self, sender: StreamId, receiver: StreamId, incarnation: str, expected: int) -> None:
        """The receiver has a gap: send that pair again from number `expected`, once for all the gaps that it reports together."""
        pair = (sender, receiver, incarnation)
        if pair in self._gaps:
            self._gaps[pair] = min(self._gaps[pair], expected)
            return
        self._gaps[pair] = expected
        asyncio.get_running_loop().call_later(_GAP_AGAIN_S, self._fill_gap, pair)

    def _fill_gap(self, pair: tuple[StreamId, StreamId, str]) -> None:
        expected = self._gaps.pop(pair)
        if not self.lost:
            self.exchange.send([row for key, row in self.outbox.items() if key[:3] == pair and key[3] >= expected])

    # -- what cells need ----------------------------------------------------------------------------------------------------------

    async def recover(self, kind: ActorType[Any], stream: StreamId) -> Recovered:
        try:
            return recover(kind, *await self.store.tail(stream, kind.shape, kind.plain))
        except CorruptLogError:  # perhaps only its snapshot, which is never needed (I-8)
            return recover(kind, *await self.store.load(stream, ""))

    def committed(self, outcome: Committed) -> None:
        """Everything that leaves with a commit: events, hint, sends."""
        self.exchange.committed(self.number, outcome.position, outcome.events)
        if outcome.delivered:
            self._hand_out(outcome.delivered)
        if outcome.pending:
            self._carry(outcome.pending)

    def forward(self, item: Item) -> None:
        if item.stored is not None:
            return  # it stands in the inbox: the new owner finds it there
        replies = list(item.replies)
        item.replies.clear()

        def answer(reply: Reply) -> None:
            for send in replies:
                send(reply)

        self.exchange.forward(item.command, answer)

    def superseded(self) -> None:
        """Another owner has taken this shard: decide nothing more (I-5)."""
        if self.lost:
            return
        self.lost = True
        self.timers.stop()
        self.passivation.stop()
        self.tries.stop()
        self.probes.stop()
        self.waits.hand_on()
        log.warning("superseded", shard=self.number, epoch=self.epoch)
        for cell in self.cells.values():
            cell.wake()
        self._on_lost(self)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        return self._tasks.spawn(coroutine, name=name)

    async def run_in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def seed(self) -> str:
        if not self._seeds:
            drawn = self._entropy.token_bytes(4_096).hex()  # one call to the system for many turns
            self._seeds = [drawn[start : start + 16] for start in range(0, len(drawn), 16)]
            self._seeds.reverse()
        return self._seeds.pop()

    def now_ms(self) -> int:
        return self.clock.wall_us() // 1_000

    def call_deadline_ms(self, command: Command, timeout_s: float | None) -> int:
        """The smaller of the call's own time and what is left of the caller's (S10)."""
        own = self.now_ms() + int((ASK_DEADLINE_S if timeout_s is None else timeout_s) * 1_000)
        return own if command.deadline_ms is None else min(own, command.deadline_ms)

    def deadline_passed(self) -> ActorError:
        return DeadlinePassed("the deadline passed before the turn began; it was not done")

    # -- ending -------------------------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> bool:
        """Stop taking commands, let what is queued finish, flush. True if everything ended in time (S5)."""
        self.draining = True
        if self._resend is not None:
            self._resend.cancel()
            self._resend = None
        self.timers.stop()
        self.passivation.stop()
        self.tries.stop()
        self.probes.stop()
        ended = True
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    while running := self._running():
                        self._hand_on_asking()
                        await asyncio.wait(running, timeout=_HAND_ON_AFTER_S / 4)
                    # What comes of the last commits may put a command back, and its actor to work: not upon a file that is closed.
                    await self.commit.drain()
                    if not self._running():
                        break
        except TimeoutError:
            ended = False
        await self.commit.drain()
        self.waits.hand_on()
        return ended

    def _running(self) -> list[asyncio.Task[Any]]:
        """A task that was cancelled before its first step has ended without saying so."""
        return [cell.task for cell in self.cells.values() if cell.task is not None and not cell.task.done()]

    def _hand_on_asking(self) -> None:
        """Whoever is asked may live in a shard that moves too, even in this one: it has an owner again only once we have let go."""
        before = self.clock.monotonic() - _HAND_ON_AFTER_S
        for cell in self.cells.values():
            since = None if cell.driver is None or cell.handed_on else cell.driver.only_asks_since()
            if since is not None and since < before:
                hand_on_turn(cell)

    def abandon(self) -> None:
        """Answer nobody, write nothing more: what is open is taken up by the next owner from its journal."""
        self.lost = True
        self.timers.stop()
        self.passivation.stop()
        self.tries.stop()
        self.probes.stop()
        self.waits.stop()
        for cell in self.cells.values():
            if cell.task is not None:
                cell.task.cancel()

    @property
    def idle(self) -> bool:
        """No actor has anything to do."""
        return self.passivation.busy == 0

    def statistics(self) -> ShardStatistics:
        done = self.commit.statistics()
        return ShardStatistics(
            shard=self.number, epoch=self.epoch, live_actors=len(self.cells),
            waiting=sum(len(cell.mailbox) for cell in self.cells.values()), tells_queued=self.tells, commits=done.commits,
            turns=done.groups, events=done.events,
        )  # fmt: skip
