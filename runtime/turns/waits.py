"""The open waits of one shard: who waits for what, and how a wait ends (S20, S21, S22).

A turn that waits is nowhere but in the log: it has no task, and its actor need not be in memory. When its wait ends, by an answer, by its
timeout or by a cancel, that is committed ahead of the mailbox, and the turn is delivered like the open turn of a crash: it runs again
from its journal. The first end wins; the inbox row under the wait's own id remembers which one it was.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from actors.errors import ActorError, BadPayload, Cancelled, Gone, IdReused, Rejected, Unavailable, Unknown, Waiting, error_body
from actors.journal import PARKED_STEP, TURN_CANCELLED, Wait, end_event, wait_event
from actors.json_schema import check
from actors.registry import field_of
from actors.turn import Command
from events.codec import args_hash, canonical, decode_strict, encode
from events.envelope import NewEvent
from events.errors import CuebookError, SupersededError
from events.ids import CommandId, Position, StreamId, Version
from events.store import Append, Committed, Duplicate, InboxEntry, InboxStatus, Outcome, TimerEntry, WaitEntry
from runtime.exchange import Reply, ReplyTo
from runtime.items import Item
from runtime.turns.below import cancels_below, with_sends
from runtime.turns.control import Look, add_control, commit_control, control_error
from runtime.turns.opening import EXPIRE, timer_id_of
from runtime.turns.reopening import journal_of, number_of, outcome_events, parked_step
from runtime.turns.spoken import send_end
from runtime.turns.watches import Watches

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.waits")
ANSWER: Final = "_answer"
CANCEL: Final = "_cancel"
_TAKEN_UP_S: Final = 0.05
_EARLY_MS: Final = 100
"""How long before its deadline an asker hears that the turn waits: the word must arrive while it listens."""


class AnswerArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which wait of the addressed actor, and the answer."""

    wait_id: str
    value: msgspec.Raw


def answer_of(body: bytes) -> AnswerArguments:
    """Raises: BadPayload: not ``{"wait_id": "...", "value": ...}``."""
    try:
        decode_strict(body or b"{}")
        return msgspec.json.decode(body or b"{}", type=AnswerArguments)
    except (msgspec.DecodeError, CuebookError) as error:
        raise BadPayload(f"{ANSWER}: {error}", field=field_of(error)) from error


class Asker:
    """Somebody who asked for a command whose turn waits: answered with its reply, or at its own deadline with 202."""

    __slots__ = ("command", "late", "reply")

    def __init__(self, command: Command, reply: ReplyTo) -> None:
        self.command = command
        self.reply = reply
        self.late: asyncio.TimerHandle | None = None

    def __call__(self, reply: Reply) -> None:
        self.stop()
        self.reply(reply)

    def stop(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None


class OpenWait:
    """One wait, and who listens. ended: set while its end is on the way into the log."""

    __slots__ = ("args_hash", "askers", "ended", "method", "wait")

    def __init__(self, wait: WaitEntry, method: str, args_hash: str) -> None:
        self.wait = wait
        self.method = method
        self.args_hash = args_hash
        self.askers: list[Asker] = []
        self.ended: asyncio.Future[None] | None = None


class Waits:
    """See the module. open: by stream and wait. held: streams whose actor is held by an ambiguous ``once`` step, with the wait's id."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self.open: dict[tuple[str, str], OpenWait] = {}
        self._commands: dict[tuple[str, str], OpenWait] = {}
        self._counts: Counter[str] = Counter()
        self.held: dict[str, str] = {}
        self.watches = Watches(shard)

    def __len__(self) -> int:
        return len(self.open)

    # -- what waits ---------------------------------------------------------------------------------------------------------------

    def known(self) -> set[tuple[str, str]]:
        """What is open now, by stream and wait."""
        return set(self.open)

    def load(
        self, waits: Sequence[WaitEntry], entries: Sequence[InboxEntry], known: AbstractSet[tuple[str, str]] = frozenset()
    ) -> list[InboxEntry]:
        """Take up the waits that stand in the log; returns the `entries` that do not wait and so are to be delivered.

        Args:
            known: what was open before the log was read: where it is not there any more, an append of unknown outcome has ended it.
        """
        for key in sorted(known - {(wait.stream, wait.wait_id) for wait in waits}):
            if (opened := self.open.get(key)) is not None:
                self._drop(opened)
                self._ask_again(opened)
        by_key = {(entry.stream, entry.command_id): entry for entry in entries}
        for wait in waits:
            if (wait.stream, wait.wait_id) in self.open:
                continue
            entry = by_key.get((wait.stream, wait.command_id))
            if entry is None:
                log.warning("wait_without_turn", stream=wait.stream, wait_id=wait.wait_id)
            else:
                self._add(OpenWait(wait, entry.method, entry.args_hash))
        return [entry for entry in entries if (entry.stream, entry.command_id) not in self._commands]

    def _add(self, opened: OpenWait) -> None:
        wait = opened.wait
        self.open[wait.stream, wait.wait_id] = self._commands[wait.stream, wait.command_id] = opened
        self._counts[wait.stream] += 1
        if wait.name.startswith(PARKED_STEP):
            self.held[wait.stream] = wait.wait_id

    def _drop(self, opened: OpenWait) -> None:
        wait = opened.wait
        if self.open.pop((wait.stream, wait.wait_id), None) is None:
            return
        if self._commands.get((wait.stream, wait.command_id)) is opened:
            del self._commands[wait.stream, wait.command_id]
        self._counts[wait.stream] -= 1
        if not self._counts[wait.stream]:
            del self._counts[wait.stream]
        if self.held.get(wait.stream) == wait.wait_id:
            del self.held[wait.stream]
        self._shard.timers.remove(wait.stream, [timer_id_of(wait.wait_id)])

    def forget(self, stream: str) -> None:
        """The stream was erased: who waited for one of its turns is told so."""
        for opened in [each for key, each in self.open.items() if key[0] == stream]:
            self._drop(opened)
            gone = Gone(f"{stream} is erased", stream=stream)
            for asker in opened.askers:
                asker(Reply(error=gone))
        self.watches.forget(stream)

    def moved(self, stream: StreamId) -> None:
        """Something of this actor was committed: queries may have waited for that."""
        if self.watches.open:
            self.watches.moved(stream)

    def count(self, stream: str) -> int:
        return self._counts[stream]

    def find(self, stream: str, wait_id: str) -> WaitEntry | None:
        """The wait, if it is open."""
        opened = self.open.get((stream, wait_id))
        return None if opened is None else opened.wait

    def waits(self, stream: str, command_id: str) -> bool:
        """Whether the turn of that command waits."""
        return (stream, command_id) in self._commands

    def opened(self, cell: "Cell", item: Item, wait: WaitEntry) -> None:
        """The wait of `item` is committed: from here on its turn is in the log only."""
        known = self.open.get((wait.stream, wait.wait_id))
        if known is None:
            known = OpenWait(wait, item.method.name, item.args_hash())
            self._add(known)
        askers = [reply if isinstance(reply, Asker) else Asker(item.command, reply) for reply in item.replies]
        item.replies.clear()
        # Its actor is free, and knows nothing of it any more.
        if cell.item is item:
            cell.item = None
        cell.drop(item)
        for asker in askers:
            self._listen(known, asker)
        if wait.stream in self.held:
            self._hold(cell)

    def rejoin(self, cell: "Cell", item: Item, wait_id: str) -> bool:
        """Let `item`, which stands in this wait by its journal, wait. False if the wait is not known here: the log is read meanwhile."""
        if (row := self.find(cell.stream, wait_id)) is None:
            self._shard.reconcile()
            cell.paused = _TAKEN_UP_S
            return False
        self.opened(cell, item, row)
        return True

    def attach(self, command: Command, reply: ReplyTo) -> bool:
        """Let a repeat of a command whose turn waits listen for its reply. False if it does not wait.

        Raises:
            IdReused: another method, or other arguments.
        """
        found = self._commands.get((command.stream, command.command_id))
        if found is None:
            return False
        if found.method != command.method or found.args_hash != args_hash(command.method, command.args or b"{}"):
            raise IdReused(f"{command.command_id} is the id of another command to {command.stream}", command_id=command.command_id)
        self._listen(found, Asker(command, reply))
        return True

    def _listen(self, opened: OpenWait, asker: Asker) -> None:
        """S20: 202 at the asker's deadline, at once if it has none."""
        deadline_ms = asker.command.deadline_ms
        wait_ms = 0 if deadline_ms is None or not asker.command.patient else deadline_ms - self._shard.now_ms() - _EARLY_MS
        if wait_ms <= 0:
            asker(Reply(error=self._waiting(opened)))
            return
        opened.askers.append(asker)

        def late() -> None:
            opened.askers.remove(asker)
            asker(Reply(error=self._waiting(opened)))

        asker.late = asyncio.get_running_loop().call_later(wait_ms / 1_000, late)

    def _waiting(self, opened: OpenWait) -> ActorError:
        """202, also where the turn is held by a step of its own (S21): 503 would say that it was not done, and it may yet be."""
        wait = opened.wait
        fields = {"parked": True, "reason": "parked"} if wait.name.startswith(PARKED_STEP) else {}
        return Waiting(f"{wait.stream}.{opened.method} waits for {wait.name}", wait_id=wait.wait_id, command_id=wait.command_id, **fields)

    def parked(self, stream: str) -> Unavailable:
        """What asks of an actor hear that is held (S21)."""
        return Unavailable(
            f"{stream} is held: nobody knows whether a step that may happen once did; say so: cuebook waits answer",
            reason="parked", parked=True, wait_id=self.held.get(stream), retry_after_ms=1_000,
        )  # fmt: skip

    def _hold(self, cell: "Cell") -> None:
        """Nothing is decided here until a person has answered: what only asks is told, what is kept waits, and a query may look."""
        for item in [item for item in cell.mailbox if item.stored is None]:
            cell.mailbox.remove(item)
            if item.method.query:
                add_control(cell, Look(item))
            else:
                cell.finish(item, Reply(error=self.parked(cell.stream)))

    # -- how a wait ends ----------------------------------------------------------------------------------------------------------

    def answer(self, command: Command, reply: ReplyTo) -> None:
        """``_answer {wait_id, value}``: the first wins; the same answer again is told the same, another 409 with the winner (S22).

        Raises:
            BadPayload: the arguments, or the value is not what the wait asks for; then it stays open.
        """
        given = answer_of(command.args)
        opened = self.open.get((command.stream, given.wait_id))
        if opened is not None:
            check(opened.wait.schema, msgspec.json.decode(given.value), opened.wait.name.removeprefix(PARKED_STEP))
        self._shard.spawn(self._answer(command, given, reply), name=f"answer {command.stream}")

    async def _answer(self, command: Command, given: AnswerArguments, reply: ReplyTo) -> None:
        opened = await self._mine(command.stream, given.wait_id)
        if opened is None:
            reply(await self._late(command.stream, given))
            return
        wait = opened.wait
        said = encode({"command_id": wait.command_id, "value": given.value, "by": command.sender})
        try:
            which = await self._which(opened)
            fields = {"value": given.value, "by": command.sender}
            events = [wait_event("answered", which, fields), *outcome_events(which, given.value)]
            outcome = await self._end(opened, command, events, ANSWER, given.value, said)
        except CuebookError as error:
            reply(Reply(error=Unavailable(error.message, retry_after_ms=500)))
            return
        finally:
            self._ended(opened)
        if isinstance(outcome, Committed):
            reply(Reply(_answered(wait.command_id), version=outcome.version, position=outcome.position, time=outcome.time))
        elif isinstance(outcome, Duplicate):
            reply(await self._late(command.stream, given))
        elif isinstance(outcome, SupersededError):
            self._shard.exchange.forward(command, reply)
        else:
            reply(Reply(error=control_error(self._shard.cell_of(command.stream), outcome)))

    async def _mine(self, stream: str, wait_id: str) -> OpenWait | None:
        """The wait if it is open, claimed: nobody else ends it until `_ended`."""
        while (opened := self.open.get((stream, wait_id))) is not None and opened.ended is not None:
            await asyncio.shield(opened.ended)
        if opened is not None:
            opened.ended = asyncio.get_running_loop().create_future()
        return opened

    def _ended(self, opened: OpenWait) -> None:
        if opened.ended is not None:
            opened.ended.set_result(None)
            opened.ended = None

    async def _which(self, opened: OpenWait) -> Wait:
        """The wait as its turn knows it."""
        wait = opened.wait
        if wait.name.startswith(PARKED_STEP):
            return await parked_step(self._shard.store, wait)
        return Wait(name=wait.name, n=number_of(wait), wait_id=wait.wait_id)

    async def _end(
        self, opened: OpenWait, command: Command, events: list[NewEvent], method: str, value: bytes | msgspec.Raw, said: bytes
    ) -> Outcome | CuebookError:
        """Commit an end of the wait after which its turn goes on, and let it."""
        wait, shard = opened.wait, self._shard
        entry = await shard.store.inbox(wait.stream, wait.command_id)
        if entry is None:
            return Duplicate(entry=self._row(wait, command, method, value, said))
        row = self._row(wait, command, method, value, said)

        def build(version: int) -> Append:
            return self._group(wait, entry, command, version, events, row, [wait.wait_id])

        outcome = await commit_control(shard.cell_of(wait.stream), build)
        if isinstance(outcome, SupersededError):
            shard.superseded()
        if isinstance(outcome, Duplicate) and outcome.entry.args_hash == row.args_hash and outcome.entry.causation_id == row.causation_id:
            # An outcome that was unknown: it was ours.
            outcome = Committed(events=(), version=Version(0), position=Position(0), time=0)
        if isinstance(outcome, Committed):
            askers = opened.askers
            self._drop(opened)
            if not shard.lost:
                shard.deliver(entry, askers)
                # Where the opening of the wait had an unknown outcome its turn still stands in the mailbox, and only attaches.
                shard.cell_of(wait.stream).wake()
        return outcome

    def _row(self, wait: WaitEntry, command: Command, method: str, value: bytes | msgspec.Raw, said: bytes) -> InboxEntry:
        """What remembers how the wait ended."""
        now_us = self._shard.clock.wall_us()
        return InboxEntry(
            stream=wait.stream, command_id=CommandId(wait.wait_id), method=method, args_hash=args_hash(method, bytes(value)),
            status=InboxStatus.DONE, reply=said, sender=command.sender, causation_id=command.command_id,
            correlation_id=command.correlation_id, received_at_us=now_us, completed_at_us=now_us,
        )  # fmt: skip

    def _group(
        self, wait: WaitEntry, entry: InboxEntry, command: Command, version: int, events: list[NewEvent], row: InboxEntry, gone: list[str]
    ) -> Append:
        return Append(
            stream=wait.stream, expected_version=Version(version), command_id=wait.command_id, events=events,
            causation_id=command.command_id, correlation_id=entry.correlation_id or entry.command_id, traceparent=command.traceparent,
            sender=command.sender, code_version=self._shard.code_version, received_time=command.time, inbox=row,
            timers_gone=[timer_id_of(wait_id) for wait_id in gone], waits_gone=gone,
        )  # fmt: skip

    async def _late(self, stream: StreamId, given: AnswerArguments) -> Reply:
        """The wait is not open: what does the log remember of it?"""
        try:
            row = await self._shard.store.inbox(stream, CommandId(given.wait_id))
        except CuebookError as error:
            return Reply(error=Unavailable(error.message, retry_after_ms=500))
        if row is None or row.method not in (ANSWER, EXPIRE, CANCEL):
            return Reply(error=Unknown(f"{stream} has no wait {given.wait_id!r}", wait_id=given.wait_id))
        said = msgspec.json.decode(row.reply or b"{}", type=dict[str, Any])
        if row.method == ANSWER and row.args_hash == args_hash(ANSWER, bytes(given.value)):
            return Reply(_answered(said["command_id"]))
        how = {ANSWER: "was answered already", EXPIRE: "has expired", CANCEL: "was cancelled"}[row.method]
        return Reply(error=Rejected(f"the wait {given.wait_id} {how}", wait_id=given.wait_id, winner=said))

    def expire(self, timers: Iterable[TimerEntry]) -> None:
        """The timeouts of these waits have passed."""
        for timer in timers:
            self._shard.spawn(self._expire(timer), name=f"expire {timer.stream}")

    async def _expire(self, timer: TimerEntry) -> None:
        wait_id = msgspec.json.decode(timer.args, type=dict[str, str])["wait_id"]
        opened = await self._mine(timer.stream, wait_id)
        if opened is None:
            return  # answered at the same moment: its timer went with it
        wait = opened.wait
        command = Command(
            stream=wait.stream, method=EXPIRE, args=timer.args, command_id=CommandId(timer.timer_id), explicit=True,
            received_at_us=self._shard.clock.wall_us(), sender=wait.stream,
        )  # fmt: skip
        try:
            which = Wait(name=wait.name, n=number_of(wait), wait_id=wait_id)
            events = [wait_event("expired", which, {})]
            outcome = await self._end(opened, command, events, EXPIRE, b"{}", encode({"expired": True, "command_id": wait.command_id}))
        except CuebookError as error:
            outcome = error
        finally:
            self._ended(opened)
        if not isinstance(outcome, Committed | Duplicate) and not self._shard.lost:
            log.warning("wait_expires_late", stream=wait.stream, wait_id=wait_id)
            self._shard.timers.again([timer])

    def cancel(self, stream: StreamId, command_id: str, reply: ReplyTo) -> bool:
        """``_cancel`` of a command whose turn waits. False if it does not."""
        if (stream, command_id) not in self._commands:
            return False
        self._shard.spawn(self._cancel(stream, command_id, reply), name=f"cancel {stream}")
        return True

    async def _cancel(self, stream: StreamId, command_id: str, reply: ReplyTo) -> None:
        found = self._commands.get((stream, command_id))
        opened = None if found is None else await self._mine(stream, found.wait.wait_id)
        if opened is None:
            self._shard.cancel(stream, command_id, reply)  # somebody ended the wait first: it goes on, or has ended
            return
        try:
            outcome = await self._end_cancelled(opened)
        except CuebookError as error:
            outcome = error
        finally:
            self._ended(opened)
        if isinstance(outcome, Committed):
            reply(Reply(encode({"status": "cancelled"})))
        elif isinstance(outcome, Duplicate):
            self._shard.cancel(stream, command_id, reply)
        else:
            reply(Reply(error=control_error(self._shard.cell_of(stream), outcome)))

    async def _end_cancelled(self, opened: OpenWait) -> Outcome | CuebookError:
        wait, shard = opened.wait, self._shard
        error = Cancelled(f"{wait.command_id} was cancelled", command_id=wait.command_id)
        entry = await shard.store.inbox(wait.stream, wait.command_id)
        if entry is None:
            return CuebookError(f"{wait.stream} has lost the row of {wait.command_id}")
        now_us = shard.clock.wall_us()
        ended = msgspec.structs.replace(
            entry, status=InboxStatus.FAILED, args=None, reply=canonical(error_body(error)), code=error.number, completed_at_us=now_us
        )
        command = Command(stream=wait.stream, method=CANCEL, args=b"{}", command_id=wait.command_id, explicit=True, received_at_us=now_us)
        mine = [other for other in self.open.values() if other.wait.command_id == wait.command_id and other.wait.stream == wait.stream]
        gone = [other.wait.wait_id for other in mine]
        events = [end_event(TURN_CANCELLED, {"command_id": wait.command_id}, error=error.message)]
        cell = shard.cell_of(wait.stream)
        journal = await journal_of(cell, wait.command_id)

        def build(version: int) -> Append:
            group = self._group(wait, entry, command, version, events, ended, gone)
            sends = cancels_below(
                journal, msgspec.structs.replace(command, correlation_id=entry.correlation_id), cell.fork, cell.kind.beside
            )
            return cell.of_fork(with_sends(group, sends, cell.fork)) if sends else group

        outcome = await commit_control(cell, build)
        if isinstance(outcome, SupersededError):
            shard.superseded()
        if isinstance(outcome, Committed):
            for other in mine:
                askers, other.askers = other.askers, []
                self._drop(other)
                for asker in askers:
                    asker(Reply(error=error))
            send_end(shard, msgspec.structs.replace(command, method=opened.method))
            row = self._row(wait, command, CANCEL, b"{}", encode({"cancelled": True, "command_id": wait.command_id}))
            await commit_control(cell, lambda version: self._group(wait, entry, command, version, [], row, []))
            cell.wake()  # a held actor goes on
        return outcome

    # -- the end of ownership -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Tell nobody anything more."""
        for opened in self.open.values():
            for asker in opened.askers:
                asker.stop()
        self.watches.stop()

    def hand_on(self) -> None:
        """The next owner answers who still listens (S5, S9)."""
        for opened in self.open.values():
            self._ask_again(opened)
        self.watches.hand_on()

    def _ask_again(self, opened: OpenWait) -> None:
        askers, opened.askers = opened.askers, []
        for asker in askers:
            asker.stop()
            self._shard.exchange.forward(asker.command, asker.reply)


def _answered(command_id: str) -> bytes:
    return encode({"status": "answered", "command_id": command_id})
