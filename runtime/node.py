"""One worker process: its connection, its share of the shards, and its orderly end (S1 to S9).

Shutdown order: stop intake, drain, flush, release, disconnect.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from actors.models.port import Models
from actors.step_cache import StepCache
from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.commit_slot import CommitSlot
from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError, CorruptLogError, CuebookError, TransientError
from events.limits import DRAIN_S, PAUSE_NOTICED_S, STOPPED_WRITE_LOCK_S, WRITE_LOCK_S
from events.log_directory import create_log
from events.store import ShardStore
from runtime.app import App
from runtime.over_nats.exchange_nats import NatsExchange
from runtime.over_nats.incoming_nats import DirectClient, Message
from runtime.over_nats.log_service_nats import serve_log
from runtime.over_nats.service_nats import Service, check_namespace, semver
from runtime.over_nats.tells_nats import TellIntake
from runtime.ownership.formats import UnknownFormatsError
from runtime.ownership.heartbeat import Heartbeat
from runtime.ownership.leaving import leave
from runtime.ownership.placement import Placement
from runtime.ownership.seats import Seat
from runtime.ownership.survey import Facts
from runtime.passivation import LiveBounds
from runtime.sealed import Stores
from runtime.shard import Shard
from runtime.tasks import Tasks, done_before, end
from runtime.wire import Control, Subjects, iso_time

log = structlog.get_logger("cuebook.node")
_TICK_S: Final = 0.5
_SURELY_S: Final = 0.01
_OFFER_S: Final = 2.0
_STEP_THREADS: Final = 8
_FLOOR_AHEAD_US: Final = 86_400_000_000
"""A floor so far ahead of the clock is taken for damage of the lock file: a logical time follows the clock."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker must be told. shards: for a log that does not exist yet; an existing one keeps its number."""

    worker: str
    data: Path
    nats_options: dict[str, Any]
    namespace: str = "cue"
    shards: int = 4
    durability: Literal["process", "disk"] = "disk"
    drain_s: float = DRAIN_S
    live: LiveBounds = LiveBounds()
    version: str = "0"
    keys: Path | None = None


class Node:
    """A worker. `run` returns the exit code of its process."""

    def __init__(
        self, config: NodeConfig, app: App, *, clock: Clock | None = None, entropy: Entropy | None = None,
        step_cache: StepCache | None = None, models: Models | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._app = app
        self._clock = clock or SystemClock()
        self._entropy = entropy or SystemEntropy()
        self._log = config.data / "log"
        self._identity = create_log(self._log, config.shards, clock=self._clock, entropy=self._entropy)
        self._stores = Stores(self._log, app.registry, config.keys, self._identity.shards, self._clock, self._entropy, config.durability)
        self._subjects = Subjects(config.namespace, self._identity.shards)
        self._heartbeat = Heartbeat(clock=self._clock)
        self._placement = Placement(config.data, config.worker, self._identity.shards, self._heartbeat, clock=self._clock)
        self._tasks = Tasks(self._fatal)
        self._slot = CommitSlot()
        self._nc = DirectClient()
        self._exchange = NatsExchange(self._nc, self._subjects, self._tasks, self._clock, config.worker)
        self._exchange.step_cache, self._exchange.models = step_cache, models
        self._seats: dict[int, Seat] = {}
        self._threads = ThreadPoolExecutor(_STEP_THREADS, thread_name_prefix="step")
        self._wake = asyncio.Event()
        self._failed: BaseException | None = None
        self._last_pulse = self._clock.monotonic()
        self._pulsing: asyncio.TimerHandle | None = None
        self._moving: dict[int, asyncio.Event] = {}
        self._draining = False
        self._ready: dict[int, asyncio.Event] = {}
        self._started_us = self._clock.wall_us()
        self._refused: set[int] = set()

    # -- life ---------------------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, now: asyncio.Event | None = None) -> int:
        """Work until `stop`, then drain; `now` cuts the drain short."""
        self._heartbeat.start()
        self._pulse()
        try:
            try:
                # A server that is away is tried again and again; who is told to stop meanwhile must not wait for it.
                if await done_before(stop, self._nc.connect(**self._connect_options()), self._tasks):
                    await self._serve(stop)
                    await self._drain(now or asyncio.Event())
            finally:
                if not self._nc.is_closed:
                    await self._nc.close()
        finally:
            await self._tasks.cancel_all()
            for number in list(self._seats):
                await self._close_seat(number)
            if self._pulsing is not None:
                self._pulsing.cancel()
            self._placement.close()
            self._heartbeat.stop()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._stores.close()
        log.info("worker_stopped", worker=self._config.worker)
        return 1 if self._failed is not None else 0

    def _connect_options(self) -> dict[str, Any]:
        async def on_error(error: Exception) -> None:
            log.info("nats_error", error=repr(error))

        async def on_disconnected() -> None:
            log.warning("nats_disconnected")

        async def on_reconnected() -> None:
            log.info("nats_reconnected")
            for number in range(self._identity.shards):
                self._exchange.ask_again(number)
            for number, seat in self._seats.items():
                # A pull that was waiting at the old connection would wait there until its own timeout.
                if seat.tells is not None and seat.shard is not None:
                    seat.tells.cancel()
                    self._pull_tells(number, seat, seat.shard)
            self._wake.set()

        return {
            "name": f"cuebook {self._config.worker}",
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "pending_size": 64 * 1024 * 1024,
            "error_cb": on_error,
            "disconnected_cb": on_disconnected,
            "reconnected_cb": on_reconnected,
            **self._config.nats_options,
        }

    async def _serve(self, stop: asyncio.Event) -> None:
        nc = self._nc
        await check_namespace(nc, self._config.namespace, self._identity.incarnation)
        await self._exchange.start()
        await nc.subscribe(self._subjects.control, cb=self._on_control)
        service = Service(
            nc, self._subjects, self._app.registry, worker=self._config.worker, version=semver(self._config.version),
            incarnation=self._identity.incarnation, started=iso_time(self._started_us), counts=self._counts,
            step_cache=getattr(self._exchange.step_cache, "statistics", None),
        )  # fmt: skip
        await service.start()
        # Visible to the others only now: whoever sees us may offer a shard, and must be heard (S5).
        await nc.flush()
        self._placement.join()
        async with serve_log(nc, self._subjects, self._log, self._app.registry, self._tasks):
            ended = self._tasks.spawn(stop.wait(), name="stop")
            while not stop.is_set() and self._failed is None:
                self._wake.clear()
                look_in_s = await self._tick()
                woken = self._tasks.spawn(self._wake.wait(), name="wake")
                await asyncio.wait([ended, woken], timeout=look_in_s, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()

    def _fatal(self, error: BaseException) -> None:
        """A task that must not fail has failed: end, and be restarted by `up` (S4)."""
        self._failed = error
        self._wake.set()

    def _counts(self) -> dict[str, int]:
        counts = self._exchange.statistics()
        return {"asks": counts.asks, "replies": counts.replies, "published": counts.published}

    # -- the tick: who owns what --------------------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        """The loop turns: told to the heartbeat by a timer of its own, because a tick may have to wait for a file."""
        self._heartbeat.loop_turned()
        wall_us = self._clock.wall_us()
        for number, seat in self._seats.items():
            if seat.shard is not None and not seat.shard.lost:
                self._placement.note_floor(number, seat.shard.commit.floor(wall_us))
        now = self._clock.monotonic()
        if now - self._last_pulse > PAUSE_NOTICED_S and self._nc.is_connected:
            # At once: what waits in the socket is handled as soon as it is read.
            self._exchange.paused = True
            self._tasks.spawn(self._after_pause(now - self._last_pulse), name="after pause")
        self._last_pulse = now
        self._pulsing = asyncio.get_running_loop().call_later(_TICK_S, self._pulse)

    async def _tick(self) -> float:
        """Look, and do what follows. Returns after how many seconds to look again: at once when somebody would be stalled then."""
        try:
            facts = self._placement.observe()
        except TransientError as error:
            log.warning("placement_unknown", error=error.message)
            return _TICK_S
        for number in facts.lost:
            await self._give_up(number)
        for number in facts.doubtful:
            await self._check_epoch(number)
        shards = {number: seat.shard for number, seat in self._seats.items() if seat.shard is not None}
        idle = {number for number, shard in shards.items() if shard.idle}
        pinned = {number for number, shard in shards.items() if shard.once}
        plan = self._placement.plan(facts, idle=idle, pinned=pinned)
        for number in (*plan.stalled, *plan.take):
            if number not in self._refused:
                await self._take(number)
        # One move at a time: a shard on its way still counts as ours, so a second plan would give away too much.
        for number in plan.release if not self._moving else ():
            self._tasks.spawn(self._hand_over(number, facts), name=f"hand over {number}")
        return min(_TICK_S, facts.stall_in_s + _SURELY_S)

    async def _after_pause(self, pause_s: float) -> None:
        """Asks without a deadline that waited in our socket meanwhile are expired: whoever sent them has given up (S10)."""
        log.warning("pause_noticed", seconds=round(pause_s, 1))
        try:
            # What the server had sent before it answers this was sent while we were stopped.
            async with asyncio.timeout(5):
                await self._nc.flush()
        except (TimeoutError, nats.errors.Error):
            pass
        finally:
            self._exchange.paused = False

    async def _take(self, number: int) -> None:
        """S2, S5: lock, subscribe and buffer, bump the epoch, fold nothing yet, serve."""
        try:
            lease = self._placement.try_take(number)
        except TransientError as error:
            log.warning("take_failed", shard=number, error=error.message)
            return
        if lease is None:
            return
        seat = self._seats.get(number) or await self._sit(number)
        try:
            seat.store = await self._stores.open(number)
            await self._stores.check(seat.store)
            ownership = await self._own(seat.store, number)
            if ownership is not None:
                await self._stores.check(seat.store)  # again: until now a stalled owner may have written something new
        except (CuebookError, OSError) as error:
            await self._refuse(number, error)
            return
        if ownership is None or not self._placement.confirm(number, ownership.epoch):
            await self._close_seat(number)
            self._placement.release(number)
            return
        floor = lease.record.floor
        if floor > self._clock.wall_us() + _FLOOR_AHEAD_US:
            log.warning("floor_not_believed", shard=number, floor=floor)
            floor = 0
        lease.note_floor(seat.store.raise_floor(floor))
        shard = Shard(
            seat.store, ownership, self._app, self._exchange, self._tasks, self._clock, self._entropy, self._threads, self._on_lost,
            bounds=self._config.live, slot=self._slot, sealer=self._stores.sealer,
        )  # fmt: skip
        seat.taken(ownership.epoch)
        seat.shard = shard
        await shard.load()
        seat.handler = self._exchange.serve(shard)
        shard.start()
        if not self._placement.is_in_doubt(number):  # else the next tick looks whether we were superseded while we were stopped
            self._release_copies(seat)
        self._pull_tells(number, seat, shard)
        self._exchange.announce({"op": "taken", "shard": number, "worker": self._config.worker})
        log.info("shard_taken", shard=number, epoch=ownership.epoch)

    def _release_copies(self, seat: Seat) -> None:
        with self._exchange.copies():
            seat.release_buffer()

    def _pull_tells(self, number: int, seat: Seat, shard: Shard) -> None:
        intake = TellIntake(self._nc, self._subjects, shard, self._clock)
        seat.tells = self._tasks.spawn(intake.run(), name=f"tells {number}")

    async def _own(self, store: ShardStore, number: int) -> Any:
        """Bump the epoch; where a stalled owner holds the write lock, end it and try again (S2)."""
        for attempt in range(2):
            wait_s = STOPPED_WRITE_LOCK_S if not attempt and self._placement.is_holder_stopped(number) else WRITE_LOCK_S
            try:
                return await store.take(self._config.worker, wait_s=wait_s)
            except TransientError as error:
                if attempt or not self._placement.kill_stalled(number):
                    log.warning("take_failed", shard=number, error=error.message)
                    return None
        return None

    async def _refuse(self, number: int, error: Exception) -> None:
        """A shard that is damaged, or that our app does not know all types of (S7), is left alone and said so; the others go on."""
        log.error("shard_refused", shard=number, error=str(error))
        if isinstance(error, CorruptLogError | ConfigurationError):
            self._refused.add(number)
        if isinstance(error, UnknownFormatsError):
            self._placement.stand_by()  # else the plan of every worker would wait for us to take it
        await self._close_seat(number)
        self._placement.release(number)

    async def _sit(self, number: int) -> Seat:
        seat = self._seats[number] = Seat()

        def on_message(message: Message) -> None:
            if seat.shard is not None and self._placement.is_in_doubt(number):
                # We were stopped, and may have lost the shard without knowing: answer nothing from memory until that is settled.
                seat.buffer.append(message)
                self._wake.set()
            else:
                seat.handler(message)

        seat.listening = await self._exchange.listen(number, on_message)
        return seat

    async def _hand_over(self, number: int, facts: Facts) -> None:
        """S5: the new owner subscribes and buffers, then we unsubscribe, finish, release."""
        # One that began before the drain is waited for like the drain's own: else its turns would be cut off as if they had no time.
        while (under_way := self._moving.get(number)) is not None:
            await under_way.wait()
        ended = self._moving[number] = asyncio.Event()
        try:
            await self._move(number, facts)
        finally:
            del self._moving[number]
            ended.set()

    async def _move(self, number: int, facts: Facts) -> None:
        load = dict.fromkeys(facts.live - facts.standby - {self._config.worker}, 0)
        for owner in facts.owners.values():
            if owner in load:
                load[owner] += 1
        seat = self._seats.get(number)
        if seat is None or seat.shard is None:
            return
        if load:
            heir = min(load, key=lambda worker: (load[worker], worker))
            if not await self._offer(number, seat.shard.epoch, heir) and not self._draining:
                return  # nobody listens for it yet: it stays here, and the next plan offers it again
        await self._exchange.stop_listening(seat.take_listening())
        await self._stop_tells(seat)
        await leave(seat.shard, self._config.drain_s, lambda: self._draining)
        reached(CrashPoint.HANDOVER_DRAINED)
        if self._seats.get(number) is not seat:
            return  # another worker took the shard meanwhile, and this seat was given up
        self._exchange.forget(number)
        await self._close_seat(number)
        self._placement.release(number)
        self._exchange.announce({"op": "changed", "shard": number, "worker": self._config.worker})
        log.info("shard_released", shard=number)

    async def _offer(self, number: int, epoch: int, heir: str) -> bool:
        """True once `heir` has subscribed for the shard and buffers."""
        ready = self._ready[number] = asyncio.Event()
        self._exchange.share(number, True)
        self._exchange.announce({"op": "offer", "shard": number, "worker": self._config.worker, "to": heir, "epoch": epoch})
        try:
            async with asyncio.timeout(_OFFER_S):
                await ready.wait()
        except TimeoutError:
            self._exchange.share(number, False)
            return False
        finally:
            del self._ready[number]
        return True

    async def _check_epoch(self, number: int) -> None:
        """We were stopped for a while: is the shard still ours?"""
        seat = self._seats.get(number)
        if seat is None or seat.shard is None or seat.store is None:
            self._placement.release(number)
            return
        if (await seat.store.info()).owner_epoch == seat.shard.epoch and self._placement.confirm(number, seat.shard.epoch):
            self._release_copies(seat)
        else:
            await self._give_up(number)

    def _on_lost(self, shard: Shard) -> None:
        self._tasks.spawn(self._give_up(shard.number), name=f"give up {shard.number}")

    async def _give_up(self, number: int) -> None:
        """Another owner has the shard: tell nobody success, hand on what is unanswered (I-5, S18)."""
        seat = self._seats.get(number)
        if seat is None:
            self._placement.release(number)
            return
        if seat.shard is not None:
            seat.shard.superseded()
            seat.shard.abandon()
        self._exchange.forget(number)
        seat.drop()
        await self._close_seat(number)
        self._placement.release(number)
        self._wake.set()

    async def _stop_tells(self, seat: Seat) -> None:
        if seat.tells is not None:
            await end(seat.tells)
            seat.tells = None

    async def _close_seat(self, number: int) -> None:
        seat = self._seats.pop(number, None)
        if seat is None:
            return
        # If one fails, or this is cancelled meanwhile, the others are done all the same: an open file keeps the process from ending.
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._close_store, number, seat)
            closing.push_async_callback(self._exchange.stop_listening, seat.take_listening())
            closing.push_async_callback(self._stop_tells, seat)

    async def _close_store(self, number: int, seat: Seat) -> None:
        if seat.store is not None:
            try:
                await seat.store.close()
            except CuebookError as error:
                log.warning("close_failed", shard=number, error=error.message)

    # -- hints --------------------------------------------------------------------------------------------------------------------

    async def _on_control(self, message: Msg) -> None:
        try:
            said = msgspec.json.decode(message.data, type=Control)
        except msgspec.DecodeError:
            return
        if said.op == "offer" and said.to == self._config.worker:
            seat = self._seats.get(said.shard)
            if self._draining or seat is not None:
                if seat is not None:
                    seat.offered(said.epoch)
                self._exchange.announce({"op": "ready", "shard": said.shard, "worker": self._config.worker})
            else:
                self._tasks.spawn(self._accept_offer(said), name=f"offer {said.shard}")
        elif said.op == "ready" and (ready := self._ready.get(said.shard)) is not None:
            ready.set()
        elif said.op == "taken":
            self._exchange.ask_again(said.shard)
        if said.worker != self._config.worker:
            self._wake.set()

    async def _accept_offer(self, said: Control) -> None:
        """Subscribe and buffer before the owner lets go; if the shard does not come, give the messages back by asking its owner."""
        seat = await self._sit(said.shard)
        seat.offered(said.epoch)
        self._exchange.announce({"op": "ready", "shard": said.shard, "worker": self._config.worker})
        await asyncio.sleep(self._config.drain_s + _OFFER_S)
        if self._seats.get(said.shard) is seat and seat.shard is None:
            await self._close_seat(said.shard)

    # -- the end ------------------------------------------------------------------------------------------------------------------

    async def _drain(self, now: asyncio.Event) -> None:
        self._draining = True
        self._placement.stand_by()

        async def hand_all_over() -> None:
            facts = self._placement.observe()
            handing = [self._tasks.spawn(self._hand_over(number, facts), name=f"hand over {number}") for number in list(self._seats)]
            if handing:
                await asyncio.wait(handing)
            # Forwarded commands of others still wait for their answer here.
            await self._exchange.wait_answered()

        drained = self._tasks.spawn(hand_all_over(), name="drain")
        hurried = self._tasks.spawn(now.wait(), name="now")
        await asyncio.wait([drained, hurried], timeout=self._config.drain_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, hurried):
            task.cancel()
        for seat in self._seats.values():
            if seat.shard is not None:
                seat.shard.abandon()
        await self._exchange.flush()
