"""One live actor: its mailbox, its state, and the pipelining of its turns (S14 to S19).

Short turns are decided one after another on the actor's own uncommitted state; each becomes one append group, and its reply waits for the
commit. The first effect of a turn is a barrier: from there on the actor belongs to that turn until it ends. A cell has a task only while
its mailbox holds something.
"""

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from actors.errors import (
    ActorError,
    IdReused,
    NondeterminismError,
)
from actors.journal import TURN_COMPLETED, Forked, Opened
from actors.registry import ActorType
from actors.short import decide_now
from actors.turn import Suspended, Turn
from events.envelope import NewEvent
from events.errors import SupersededError
from events.limits import MESSAGES_AT_ONCE, OUTBOX_PER_PAIR_MAX, PIPELINE_MAX
from events.store import Append, Committed, InboxEntry, InboxStatus, Outcome
from runtime.branches.forks import group_of_fork
from runtime.context import current_turn
from runtime.exchange import Reply
from runtime.items import Item, KnownError, LostError, NoRoomError, StaleError, first_of
from runtime.mailboxes import Mailbox
from runtime.ownership.handing_on import hand_on
from runtime.stream_ends import refuse_closed
from runtime.supervision import engine_failed, make_room, recovery_failed
from runtime.turns import dead_letters
from runtime.turns.closing import closing_group
from runtime.turns.commits import HeldCommits
from runtime.turns.control import NO_CONTROLS, Control, Look, add_control, submit_controls
from runtime.turns.doubt import was_done
from runtime.turns.driver import NoEffects, TurnDriver
from runtime.turns.endings import end_cancelled, end_expired, end_journaled, fail, park, refuse
from runtime.turns.outbox_room import has_room, refuse_full, tight
from runtime.turns.outcomes import short_outcome
from runtime.turns.queries import answer_beside, query_reply
from runtime.turns.records import append_of, entry_of, remembered_error
from runtime.turns.recovery import Recovered
from runtime.turns.reopening import let_holder_go_first, reopen, stored_status
from runtime.turns.retries import not_yet

if TYPE_CHECKING:
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.cell")
_NONE: Final[deque[Item]] = deque()
"""What an idle actor has pending: never filled, because an empty deque takes 760 bytes."""
_NO_EFFECTS: Final = NoEffects()


class Cell:
    """One live actor of one shard."""

    __slots__ = (
        "_held", "_settled", "base_bytes", "closed", "committed", "controls", "driver", "failures", "fork", "handed_on", "holding",
        "inflight", "item", "key", "kind", "mailbox", "paused", "pending", "position", "requeued", "rested_at", "resting", "shard",
        "snapshot_bytes", "snapshot_version", "state", "stream", "task", "time", "turn", "version", "weight",
    )  # fmt: skip

    def __init__(self, shard: "Shard", kind: ActorType[Any], key: str, stream: Any) -> None:
        self.shard = shard
        self.kind = kind
        self.key = key
        self.stream = stream
        self.mailbox = Mailbox()
        self.inflight: dict[str, Item] = {}
        self.pending = _NONE
        self.state: Any = None
        self.version = 0
        self.committed = 0
        self.position = 0
        self.time = 0
        self.controls: list[Control | Look] = NO_CONTROLS
        self.task: asyncio.Task[Any] | None = None
        self.item: Item | None = None
        self.turn: Turn | None = None
        self.driver: TurnDriver | None = None
        self.fork: Forked | None = None
        self._held: HeldCommits | None = None
        self._settled: asyncio.Future[None] | None = None
        self.requeued: list[Item] = []
        self.paused = 0.0
        self.handed_on = False
        self.snapshot_version = 0
        self.snapshot_bytes = 0
        self.base_bytes = 0
        self.closed: str | None = None
        self.failures: list[float] | None = None
        self.holding = False
        """An open turn waits for its next try."""
        self.resting = True
        self.rested_at = 0.0
        self.weight = 0

    # -- arrival ------------------------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        waits = self._unsettled or self.requeued or self.controls or len(self.mailbox)
        return self.task is None and not waits

    def receive(self, item: Item) -> None:
        """Queue `item`, or attach it to the same command under way (S24). Never blocks.

        Raises:
            IdReused: the id is under way with another method or other arguments.
            Overloaded: the mailbox is full; tells that are stored already are never refused.
        """
        command = item.command
        if item.doubtful and (copy := self.under_way(command.command_id)) is not None:
            copy.replies.extend(item.replies)
            return
        if command.explicit and (same := self.inflight.get(command.command_id)) is not None:
            if same.method is not item.method or same.arguments != item.arguments:
                raise IdReused(f"{command.command_id} is the id of another command to {self.stream}", command_id=command.command_id)
            same.replies.extend(item.replies)
            same.stored = same.stored or item.stored
            if item.from_inbox and same.from_inbox:
                self.shard.stored_done(self.stream)
            same.from_inbox = same.from_inbox or item.from_inbox
            return
        if item.method.query:
            if (self.holding or (self.turn is not None and self.turn.journaled)) and answer_beside(self, item):
                return
            if self.stream in self.shard.waits.held:
                add_control(self, Look(item))
                return
        at_once = item.method.short and self._may_decide_now(item)
        if not at_once and item.stored is None and self.mailbox.full:
            make_room(self, item)
        if self.resting:
            self.stir()
        if command.explicit and not item.method.query:
            self.inflight[command.command_id] = item
        if at_once:
            self._decide_now(item)
            return
        self.mailbox.append(item)
        if command.sender is not None and self.driver is not None and self.driver.asks and item.stored is None:
            self.shard.probes.blocked(self)
        self.wake()

    def stir(self) -> None:
        if self.resting:
            self.resting = False
            self.shard.passivation.busy += 1

    def under_way(self, command_id: str) -> Item | None:
        """The command if it waits, runs or is being committed here."""
        items = (*self.mailbox, *self.pending, *self.requeued, *([self.item] if self.item is not None else []))
        return self.inflight.get(command_id) or next((item for item in items if item.command.command_id == command_id), None)

    def wake(self) -> None:
        if self.shard.lost or self.handed_on:
            hand_on(self)
        elif self.task is None:
            if self.controls or self.mailbox.ready or self.mailbox.held:
                if self._has_work:
                    self.task = self.shard.spawn(self._run(), name=f"cell {self.stream}")
            elif not (self.pending or self.requeued or (self._held is not None and self._held.open)):
                self._rest()

    def drop(self, item: Item) -> None:
        """Forget `item`, which stands in the inbox, without an answer."""
        if self.inflight.get(item.command.command_id) is item:
            del self.inflight[item.command.command_id]
        if item.from_inbox:
            item.from_inbox = False
            self.shard.stored_done(self.stream)

    @property
    def _has_work(self) -> bool:
        """A held actor decides nothing, but an answer to its wait is taken."""
        if self.controls and any(not control.submitted for control in self.controls):
            return True
        return self.mailbox.ready > 0 and self.stream not in self.shard.waits.held

    def _rest(self) -> None:
        """Nothing to do: give back what a busy time needed, and wait for passivation."""
        self.pending, self._held, self.controls = _NONE, None, NO_CONTROLS
        self.mailbox.trim()
        self.shard.passivation.rested(self)

    # -- the loop -----------------------------------------------------------------------------------------------------------------

    def _may_decide_now(self, item: Item) -> bool:
        """Nothing is under way or waits, and the state is at hand."""
        return (
            self.task is None and self.state is not None and not self.mailbox.ready and item.stored is None and not item.doubtful
            and self.closed is None and not self.requeued and not self.paused and len(self.pending) < PIPELINE_MAX
            and len(self.shard.outbox) < OUTBOX_PER_PAIR_MAX
        )  # fmt: skip

    def _decide_now(self, item: Item) -> None:
        """A turn that cannot suspend, on the spot: a task for each would cost more than most of them do. `item` has not expired: it has
        just come in."""
        if item.method.query:
            self._answer(item)
        else:
            turn = Turn(self.kind, self.key, item.command, item.method, self.state, self.version, _NO_EFFECTS, self.shard.seed())
            token = current_turn.set(item.command)
            try:
                item.reply = decide_now(turn, item.arguments)
                self._end_short(item, turn)
            except (Exception, SystemExit) as error:  # noqa: BLE001  a handler may raise anything; ending such a turn may take time
                if not isinstance(error, Exception):
                    error = RuntimeError(f"the handler called sys.exit({error.code!r})")
                self.task = self.shard.spawn(self._run((item, turn, error)), name=f"cell {self.stream}")
                return
            finally:
                current_turn.reset(token)
        if not self.pending:
            self.wake()

    async def _run(self, failed: tuple[Item, Turn, Exception] | None = None) -> None:
        """failed: a turn that was decided on the spot and raised."""
        try:
            if failed is not None:
                await self._handle(*failed)
            decided = 0
            while self._has_work and not self.shard.lost:
                decided += 1
                if decided % MESSAGES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # short turns let go of the loop nowhere
                    continue
                if self.paused:
                    pause_s, self.paused = self.paused, 0.0
                    if not await self.shard.tries.sleep(self, pause_s):
                        hand_on(self)  # the shard is leaving: its next owner tries again
                    continue
                if self.state is None and not await self.recover():
                    continue
                if self.controls:
                    submit_controls(self)
                if not self.mailbox.ready or self.stream in self.shard.waits.held:
                    continue  # or the shard was lost meanwhile
                item = self.mailbox.popleft()
                if self.closed is not None:
                    await refuse_closed(self, item, self.closed)
                    continue
                if item.letter is not None and await not_yet(self, item):
                    continue
                if item.method.query and not self._expired(item):
                    self._answer(item)
                elif item.command.method[0] == "_":
                    await dead_letters.decide(self, item)
                elif tight(self.shard) and not has_room(self, item):
                    continue
                elif item.cancelled or not item.doubtful or not await was_done(self, item):
                    await self._handle(item)
        finally:
            self.task = None
            self.turn = None
        self.wake()

    def _expired(self, item: Item) -> bool:
        deadline = item.command.deadline_ms
        return item.stored is not InboxStatus.RUNNING and deadline is not None and self.shard.now_ms() > deadline

    async def recover(self) -> bool:
        """Fold the stream again after everything submitted has an outcome. False if the actor cannot be recovered: then everybody who
        waits is told why, and the next command tries again."""
        await self.settle()
        try:
            recovered: Recovered = await self.shard.recover(self.kind, self.stream)
        except SupersededError:
            self.shard.superseded()
            return False
        except Exception as error:  # noqa: BLE001  an apply may raise anything; it becomes this actor's failure and nobody else's
            await recovery_failed(self, error)
            return False
        self.state, self.closed = recovered.state, recovered.closed
        self.version = self.committed = recovered.version
        let_holder_go_first(self, recovered.journal)
        self.fork, self.key = recovered.fork, (recovered.fork and recovered.fork.id) or self.key
        self.position = max((event.position for event in recovered.journal), default=self.position)
        self.snapshot_version = recovered.snapshot_version
        self.snapshot_bytes, self.base_bytes = recovered.tail_bytes, recovered.snapshot_bytes
        return True

    def _answer(self, item: Item) -> None:
        """A query in mailbox order, on the speculative state (S17)."""
        if (reply := query_reply(self, item, self.state)) is not None:
            self.after_what_it_saw(item, reply)

    def after_what_it_saw(self, item: Item, reply: Reply) -> None:
        """An answer that rests on uncommitted state leaves with its commit; if that fails, it is made again."""
        if self.pending:
            self.pending[-1].after.append((item, reply))
        else:
            self.finish(item, reply)

    def new_turn(self, item: Item, state: Any, driver: TurnDriver, again: tuple[Opened | None, list[Any]] = (None, [])) -> Turn:
        seed = "" if item.method.query else self.shard.seed()
        opened, bases = again
        return Turn(
            self.kind, self.key, item.command, item.method, state, self.version, driver, seed, started=opened, bases=bases,
            epoch=self.shard.epoch,
        )  # fmt: skip

    async def _handle(self, item: Item, turn: Turn | None = None, failed: Exception | None = None) -> None:
        """Run one command to the end of its turn, or put it back where it has to be decided again. failed: what `turn` has raised."""
        item.error = None
        again: tuple[Opened | None, list[Any]] = (None, [])
        if item.stored is InboxStatus.RUNNING:
            reopened = await reopen(self, item)
            if reopened is None:
                return
            again = reopened
        driver = TurnDriver(self, item)
        if turn is None:
            turn = self.new_turn(item, self.state, driver, again)
        turn.bind(self.task)
        self.item, self.turn, self.driver = item, turn, driver
        token = current_turn.set(item.command)
        began = self.shard.clock.monotonic()
        try:
            try:
                if failed is None and self._expired(item):
                    await end_expired(self, item)
                elif failed is None and item.cancelled:
                    await end_cancelled(self, item)
                else:
                    await self._decide(item, turn, failed, began)
            except Exception as error:  # noqa: BLE001  nothing of one actor may end the worker
                await engine_failed(self, item, turn, error, began)
        except StaleError:
            self.state = None
            item.stored = InboxStatus.RUNNING if turn.journaled else await stored_status(self, item)
            self.mailbox.appendleft(item)
        except KnownError as known:
            self.state = None
            if known.entry.code is None and known.entry.reply is None:
                item.stored = known.entry.status  # accepted before, and not finished: this is it
                self.mailbox.appendleft(item)
            else:
                self.finish(item, self.remembered(item, known.entry))
        except NoRoomError:
            self.state = None if turn.emitted else self.state
            refuse_full(self, item)
        except LostError:
            self.shard.superseded()
            self.shard.forward(item)
        finally:
            self.item = self.turn = self.driver = None
            self.shard.once.discard(self)
            current_turn.reset(token)

    async def _decide(self, item: Item, turn: Turn, failed: Exception | None, began: float) -> None:
        try:
            if failed is not None:
                raise failed
            item.deciding = True
            try:
                item.reply = await turn.decide(item.arguments)
            finally:
                item.deciding = False
        except Suspended:
            return
        except (StaleError, LostError, KnownError, NoRoomError):
            raise
        except asyncio.CancelledError:
            if not item.cancelled or self.task is None:
                raise
            self.task.uncancel()
            await end_cancelled(self, item, journaled=turn.journaled)
        except BaseExceptionGroup as group:
            # Concurrent steps raise together; what unwinds the turn comes first, else the first failure stands for all.
            for unwinds in (LostError, KnownError, StaleError):
                if found := group.subgroup(unwinds):
                    raise first_of(found) from None
            error = first_of(group)
            if turn.suspended:
                return
            if not isinstance(error, Exception):
                raise
            await self._end_badly(item, turn, error, began)
        except SystemExit as error:
            await self._end_badly(item, turn, RuntimeError(f"the handler called sys.exit({error.code!r})"), began)
        except Exception as error:  # noqa: BLE001  a handler may raise anything; it becomes its answer
            if not turn.suspended:
                await self._end_badly(item, turn, error, began)
        else:
            if turn.journaled:
                await end_journaled(self, item, turn, InboxStatus.DONE, TURN_COMPLETED, {"reply": msgspec.Raw(item.reply)}, began)
            else:
                self._end_short(item, turn)

    async def _end_badly(self, item: Item, turn: Turn, error: Exception, began: float) -> None:
        if isinstance(error, ActorError):
            await refuse(self, item, turn, error, began)
        elif isinstance(error, NondeterminismError):
            await park(self, item, turn, error, began)
        else:
            await fail(self, item, turn, error, began)

    # -- how a turn ends ----------------------------------------------------------------------------------------------------------

    def _end_short(self, item: Item, turn: Turn) -> None:
        """One append group, no waiting: the next command may be decided at once (S14)."""
        if not (turn.emitted or turn.sends or turn.timers or turn.timers_gone or item.command.explicit or item.stored is not None):
            # Nothing to record and nobody can ask again: like a query.
            self.after_what_it_saw(item, self.stand(item.reply))
            return
        self.submit(item, closing_group(self, item, turn, turn.emitted, InboxStatus.DONE, item.reply))

    # -- append groups ------------------------------------------------------------------------------------------------------------

    def group(self, item: Item, events: list[NewEvent], inbox: InboxEntry | None) -> Append:
        """An append group of `item` on top of everything submitted so far."""
        return self.of_fork(append_of(self.shard.code_version, self.stream, self.version, item, events, inbox))

    def of_fork(self, group: Append) -> Append:
        """`group` as it may leave this actor: a fork holds back what would leave it (S33)."""
        return group if self.fork is None else group_of_fork(self.fork, group)

    def entry(self, item: Item, status: InboxStatus, reply: bytes | None, code: int | None) -> InboxEntry:
        return entry_of(self.stream, item, status, reply, code, self.shard.clock)

    def submit(self, item: Item, group: Append) -> None:
        """Append the group of a turn that ends now, without waiting; `short_outcome` hears what became of it."""
        item.base, item.misled = self.version, False
        self.version += len(group.events)
        if self.pending is _NONE:
            self.pending = deque()
        self.pending.append(item)
        self.shard.commit.submit(group, partial(short_outcome, self, item))

    # -- outcomes -----------------------------------------------------------------------------------------------------------------

    def recorded(self, outcome: Committed) -> None:
        """Something of the turn that holds this actor is durable."""
        self.stands_at(outcome)
        self.shard.committed(outcome)
        self.shard.waits.moved(self.stream)

    async def commit_held(self, group: Append) -> Outcome:
        """Commit a group of the turn that holds this actor. Its versions count from here on: a control may be submitted upon them."""
        self.version += len(group.events)
        if self._held is None:
            self._held = HeldCommits(self.shard.commit, self.settle_if_done)
        return await self._held.commit(group)

    def settle_if_done(self) -> None:
        if self.pending or self._unsettled:
            return
        if self.requeued:
            self.mailbox.extendleft(reversed(self.requeued))
            self.requeued.clear()
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        self.wake()

    @property
    def _unsettled(self) -> bool:
        if self.pending or (self._held is not None and self._held.open):
            return True
        return bool(self.controls) and any(control.submitted for control in self.controls)

    async def settle(self) -> None:
        """Wait until every group submitted so far has an outcome."""
        while self._unsettled:
            if self._settled is None or self._settled.done():
                self._settled = asyncio.get_running_loop().create_future()
            await self._settled

    def stands_at(self, outcome: Committed) -> None:
        self.committed, self.position, self.time = outcome.version, outcome.position, outcome.time

    def stand(self, body: bytes = b"null", error: ActorError | None = None) -> Reply:
        return Reply(body, error, self.committed, self.position, self.time)

    def finish(self, item: Item, reply: Reply) -> None:
        if reply.error is None and (item.timers or item.timers_gone):
            self.shard.timers.remove(self.stream, item.timers_gone)
            self.shard.timers.set(item.timers)
        if self.inflight or item.from_inbox:
            self.drop(item)
        item.answer(reply)

    def remembered(self, item: Item, entry: InboxEntry) -> Reply:
        """The original answer to a repeated id (S24)."""
        item.timers = item.timers_gone = ()  # what this decision scheduled is in no log
        if item.attempts or item.unknown:
            self.shard.reconcile()  # it was written after all: what it sends and schedules was not taken up
        error = remembered_error(item, entry)
        return self.stand(entry.reply or b"null") if error is None else Reply(error=error)
