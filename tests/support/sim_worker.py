"""One simulated worker: the real shards and exchange of a worker process, over a store and a network that a seed owns.

What `runtime.node` does with files, locks and NATS is done here in its plainest form: take, serve, give up, hand over.
"""

import asyncio
import random
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, cast

import msgspec
from nats.aio.msg import Msg

from actors.turn import Command
from events.clock import Entropy
from events.codec import encode
from events.commit_slot import CommitSlot
from events.errors import CuebookError
from events.ids import CommandId, StreamId
from events.in_memory.store_memory import MemoryLog, MemoryShard
from events.limits import PAUSE_NOTICED_S, WRITE_LOCK_S
from events.store import Accepted, Append, Arrival, Committed, InboxEntry, Outcome, Ownership, PendingSend, Snapshot
from runtime.exchange import Reply, ReplyTo
from runtime.over_nats.exchange_nats import NatsExchange
from runtime.over_nats.tells_nats import TellIntake
from runtime.ownership.leaving import leave
from runtime.ownership.seats import Seat
from runtime.passivation import LiveBounds
from runtime.shard import Shard
from runtime.tasks import Tasks, end
from runtime.wire import Subjects
from tests.support.sim_bank import APP, LUCK, PERFORM
from tests.support.sim_exchange import SimBroker, SimConnection, Trace
from tests.support.sim_history import Executed, History, Taken, Told, Written
from tests.support.sim_loop import Process, SimClock, SimLoop

_OFFER_S: Final = 1.0
_TICK_S: Final = 0.5
"""How soon a worker that runs notices from its files that a shard has another owner."""


class Disk(msgspec.Struct, kw_only=True):
    """How slow the disk is: seconds per read or commit, and the chance that one takes much longer."""

    delay_s: float = 0.001
    slow: float = 0.0
    slow_s: float = 2.0


class World(msgspec.Struct, kw_only=True):
    """What all processes of one run share."""

    loop: SimLoop
    chance: random.Random
    clock: SimClock
    entropy: Entropy
    log: MemoryLog
    broker: SimBroker
    subjects: Subjects
    disk: Disk
    history: History
    trace: Trace
    threads: ThreadPoolExecutor
    bounds: LiveBounds
    bad_luck: dict[str, int] = {}
    """How often each handler that depends on luck will still fail."""

    def lucky(self, key: str) -> bool:
        left = self.bad_luck.setdefault(key, self.chance.choice((0, 0, 1, 3, 7)))
        self.bad_luck[key] = max(0, left - 1)
        return left == 0


class SimStore(MemoryShard):
    """The store in memory, as slow as a disk, which writes down who wrote what."""

    def __init__(self, world: World, shard: int, worker: str) -> None:
        super().__init__(world.log, shard)
        self._world = world
        self._worker = worker

    async def _wait(self) -> None:
        disk, chance = self._world.disk, self._world.chance
        if chance.random() < disk.slow:
            await asyncio.sleep(chance.random() * disk.slow_s)
        elif chance.random() < 0.7:
            await asyncio.sleep(chance.random() * disk.delay_s)

    async def take(self, worker: str, *, wait_s: float = WRITE_LOCK_S) -> Ownership:
        await self._wait()
        ownership = await super().take(worker, wait_s=wait_s)
        self._world.history.taken.append(Taken(self.shard, ownership.epoch, worker))
        self._world.trace("takes", f"shard {self.shard} epoch {ownership.epoch}")
        await self._wait()
        return ownership

    async def commit(
        self, groups: Sequence[Append], arrivals: Sequence[Any] = (), sends: Sequence[Any] = (), *, keys: Sequence[Any] = ()
    ) -> Any:
        await self._wait()
        try:
            return await super().commit(groups, arrivals, sends, keys=keys)
        except CuebookError as error:
            self._world.trace("commit fails", f"shard {self.shard}: {type(error).__name__} {[group.command_id for group in groups]}")
            raise
        finally:
            await self._wait()

    def _decide(self, group: Append) -> Outcome:
        outcome = super()._decide(group)
        epoch = 0 if self._ownership is None else self._ownership.epoch
        what = f"{group.stream} {group.command_id} {[event.type for event in group.events]}"
        status = "" if group.inbox is None else group.inbox.status
        self._world.trace("commits", f"shard {self.shard} epoch {epoch}: {what} {status} -> {type(outcome).__name__}")
        if isinstance(outcome, Committed):
            positions = tuple(event.position for event in outcome.events)
            self._world.history.written.append(
                Written(shard=self.shard, worker=self._worker, epoch=epoch, command_id=group.command_id, positions=positions)
            )
        return outcome

    def _take_arrival(self, arrival: Arrival) -> Accepted:
        accepted = super()._take_arrival(arrival)
        entry = arrival.entry
        self._world.trace("accepts", f"{entry.source} {entry.stream}.{entry.method} {entry.command_id}: {accepted.result}")
        return accepted

    async def load(self, stream: StreamId, shape: str) -> tuple[Snapshot | None, Sequence[Any]]:
        await self._wait()
        found = await super().load(stream, shape)
        await self._wait()
        return found

    async def tail(self, stream: StreamId, shape: str, plain: Container[str]) -> tuple[Snapshot | None, Sequence[Any]]:
        return await self.load(stream, shape)

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        await self._wait()
        found = await super().inbox(stream, command_id)
        await self._wait()
        return found

    async def unfinished(self) -> Sequence[InboxEntry]:
        await self._wait()
        found = await super().unfinished()
        await self._wait()
        return found

    async def unsent(self) -> Sequence[PendingSend]:
        found = await super().unsent()
        await self._wait()
        return found


class SimShard(Shard):
    """A shard that writes down every answer it gives."""

    world: World
    worker: str

    def receive(self, command: Command, reply: ReplyTo) -> None:
        query = command.method in _QUERIES

        def answer(said: Reply) -> None:
            self.world.history.told.append(
                Told(
                    at_s=self.world.loop.time(), worker=self.worker, epoch=self.epoch, stream=command.stream, method=command.method,
                    command_id=command.command_id, body=said.body if said.error is None else None,
                    number=said.error.number if said.error else None, outcome=said.error.outcome if said.error else "done",
                    version=said.version, query=query,
                )
            )  # fmt: skip
            what = said.body.decode() if said.error is None else f"{said.error.number} {said.error.message}"
            self.world.trace("answers", f"{command.stream}.{command.method} {command.command_id}: {what}")
            reply(said)

        self.world.trace("receives", f"{command.stream}.{command.method} {command.command_id} at epoch {self.epoch}")
        super().receive(command, answer)


_QUERIES = frozenset({"balance", "job", "_state"})


class SimWorker:
    """One worker process."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.process = Process(name)
        world.loop.add(self.process)
        self.process.set(PERFORM, self._perform)
        self.process.set(LUCK, world.lucky)
        self._world = world
        self.tasks = Tasks(self._died)
        self.slot = CommitSlot()
        self.connection = SimConnection(world.broker, self.process)
        self.exchange = NatsExchange(cast(Any, self.connection), world.subjects, self.tasks, world.clock, name)
        self.seats: dict[int, Seat] = {}
        self._in_doubt: set[int] = set()
        self.ready = False
        self.ending = False
        """SIGTERM: it gets no further shards, hands over those it has, and goes."""

    def _died(self, error: BaseException) -> None:
        self._world.history.problems.append(f"a task of {self.name} died: {error!r}")

    def start(self, coroutine: Any, what: str) -> None:
        """Let this process do something, whatever state it is in."""
        self.process.run(self.tasks.spawn, coroutine, name=what)

    async def begin(self) -> None:
        await self.exchange.start()
        await self.connection.subscribe(self._world.subjects.control, cb=self._on_control)
        self.ready = True
        while True:
            await asyncio.sleep(_TICK_S)
            for number, seat in list(self.seats.items()):
                if seat.shard is not None and seat.shard.epoch != self._world.log.content(number).epoch:
                    await self.give_up(number)

    async def _on_control(self, message: Msg) -> None:
        said = msgspec.json.decode(message.data)
        if said["op"] == "taken":
            self.exchange.ask_again(said["shard"])

    # -- ownership ----------------------------------------------------------------------------------------------------------------

    async def sit(self, number: int) -> Seat:
        """Listen and buffer."""
        seat = self.seats.get(number)
        if seat is None:
            seat = self.seats[number] = Seat()
            self._in_doubt.discard(number)
            seat.listening = await self.exchange.listen(number, partial(self._on_message, number, seat))
        return seat

    async def accept_offer(self, number: int, epoch: int, ready: asyncio.Event) -> None:
        (await self.sit(number)).offered(epoch)
        ready.set()

    def _on_message(self, number: int, seat: Seat, message: Msg) -> None:
        if number in self._in_doubt:
            seat.buffer.append(message)
        else:
            seat.handler(message)

    def woke(self, slept_s: float) -> None:
        """S3, S10: it was stopped for so long. What it owns is doubtful until it has looked."""
        self._in_doubt.update(self.seats)
        self.exchange.paused = slept_s > PAUSE_NOTICED_S
        self.start(self._look(), "look")

    async def _look(self) -> None:
        """Which shards are still ours? One that is just being taken looks when it is."""
        for number, seat in list(self.seats.items()):
            if seat.shard is not None and seat.store is not None and (await seat.store.info()).owner_epoch != seat.shard.epoch:
                await self.give_up(number)
            elif seat.shard is not None:
                self._in_doubt.discard(number)
                self._release_copies(seat)
        await self.connection.flush()
        self.exchange.paused = False

    def _release_copies(self, seat: Seat) -> None:
        with self.exchange.copies():
            seat.release_buffer()

    async def take(self, number: int) -> None:
        """S2, S5: subscribe and buffer, bump the epoch, serve."""
        seat = await self.sit(number)
        if seat.store is not None:
            return
        world = self._world
        seat.store = SimStore(world, number, self.name)
        ownership = await seat.store.take(self.name)
        shard = SimShard(
            seat.store, ownership, APP, self.exchange, self.tasks, world.clock, world.entropy, world.threads, self._on_lost,
            bounds=world.bounds, slot=self.slot,
        )  # fmt: skip
        shard.world, shard.worker = world, self.name
        await shard.load()
        if self.seats.get(number) is not seat:
            return
        seat.taken(ownership.epoch)
        seat.shard = shard
        seat.handler = self.exchange.serve(shard)
        shard.start()
        if number in self._in_doubt:
            await self._look()
        else:
            self._release_copies(seat)
        if self.seats.get(number) is not seat:
            return
        intake = TellIntake(cast(Any, self.connection), world.subjects, shard, world.clock)
        seat.tells = self.tasks.spawn(intake.run(), name=f"tells {number}")
        self.exchange.announce({"op": "taken", "shard": number, "worker": self.name})

    def _on_lost(self, shard: Shard) -> None:
        self._world.trace("superseded", f"shard {shard.number} epoch {shard.epoch}")
        self.tasks.spawn(self.give_up(shard.number), name=f"give up {shard.number}")

    async def give_up(self, number: int) -> None:
        """Another owner has the shard: hand on what is unanswered (I-5, S18)."""
        seat = self.seats.get(number)
        if seat is None:
            return
        if seat.shard is not None:
            seat.shard.superseded()
            seat.shard.abandon()
        self.exchange.forget(number)
        seat.drop()
        await self._close(number)

    async def hand_over(self, number: int, heir: "SimWorker | None", drain_s: float, done: Callable[[], None]) -> None:
        """S5: the heir listens and buffers, then stop listening, finish, release. Without an heir, or one that listens in time, only a
        worker that is ending lets go."""
        seat = self.seats.get(number)
        if seat is None or seat.shard is None:
            done()
            return
        if not await self._offer(number, seat.shard.epoch, heir) and not self.ending:
            done()
            return
        await self.exchange.stop_listening(seat.take_listening())
        await self._stop_tells(seat)
        await leave(seat.shard, drain_s, lambda: self.ending)
        if self.seats.get(number) is not seat:
            done()
            return
        self.exchange.forget(number)
        await self._close(number)
        self._world.trace("hands over", f"shard {number}")
        done()

    async def _offer(self, number: int, epoch: int, heir: "SimWorker | None") -> bool:
        if heir is None:
            return False
        self.exchange.share(number, True)
        ready = asyncio.Event()
        heir.start(heir.accept_offer(number, epoch, ready), f"sit {number}")
        until = self._world.loop.time() + _OFFER_S
        while not ready.is_set():
            if self._world.loop.time() > until:
                self.exchange.share(number, False)
                return False
            await asyncio.sleep(0.01)
        return True

    async def _stop_tells(self, seat: Seat) -> None:
        if seat.tells is not None:
            await end(seat.tells)
            seat.tells = None

    async def _close(self, number: int) -> None:
        seat = self.seats.pop(number, None)
        if seat is None:
            return
        await self._stop_tells(seat)
        await self.exchange.stop_listening(seat.take_listening())
        if seat.store is not None:
            await seat.store.close()

    def owns(self, number: int) -> bool:
        """It believes so."""
        seat = self.seats.get(number)
        return self.process.alive and seat is not None and seat.shard is not None and not seat.shard.lost

    def busy(self) -> bool:
        """Something is still to be done by one of its shards."""
        shards = [seat.shard for seat in self.seats.values() if seat.shard is not None]
        return any(not shard.idle or shard.commit.statistics().waiting for shard in shards)

    # -- steps --------------------------------------------------------------------------------------------------------------------

    async def _perform(self, key: str) -> str:
        """The effect of a step: slow, counted, and different each time it runs."""
        world = self._world
        done = [each for each in world.history.executed if each.key == key]
        stream_key = key.partition(".")[0]
        number = self.exchange.shard_of(StreamId(f"labour/{stream_key}"))
        content = world.log.content(number)
        wanted = encode({"result": key})[11:-2]
        recorded = any(
            event.type == "step.completed" and b'"result":"' + wanted + b"#" in bytes(event.payload)
            for event in content.streams.get(f"labour/{stream_key}", ())
        )
        seat = self.seats.get(number)
        owner = seat is not None and seat.shard is not None and seat.shard.epoch == content.epoch
        world.history.executed.append(Executed(key=key, worker=self.name, recorded=recorded, owner=owner))
        world.trace("runs", f"{key}, time {len(done) + 1}")
        await asyncio.sleep(world.chance.choice((0.0, 0.01, 0.5, 3.0)) * world.chance.random())
        return f"{key}#{len(done) + 1}"
