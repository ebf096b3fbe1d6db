"""One projection in one process: waits for its lock, opens its view or builds one, follows the log, answers, rebuilds when asked.

One loop does all of it in turns: a page for the view that serves, a page for the one that is built beside it. So the two never compete for
the log, and the moment at which the new one takes over needs no lock: it is between two turns. What goes wrong with one projection stays
with it; the log, the actors and every other projection go on.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog

from events.clock import Clock, SystemClock
from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError, CorruptLogError, CuebookError, InvariantError
from events.ids import StreamId
from events.store import LogReader
from projections.errors import (
    BadArgumentsError,
    CheckpointError,
    NotReadyError,
    PoisonError,
    RebuildNeededError,
    UnknownOperationError,
    ViewUnavailableError,
)
from projections.follower import Follower, Upcast
from projections.generations import Answers, Generations, covers
from projections.hints import Heard, Hints
from projections.operations import Operation, Request, parse_request
from projections.status import RunnerStatus, progress_of
from projections.view import Parked, Positions, View

log = structlog.get_logger("cuebook.projections")

V = TypeVar("V", bound=View)

LOCK_EVERY_S: Final = 0.25
_RETRY_FIRST_S, _RETRY_MAX_S = 0.1, 5.0
_TEND_EVERY_S: Final = 1.0
OPERATION_S: Final = 30.0
"""How long an operation may take, and a read may wait for positions, unless the caller gives it less."""
OWN: Final = ("_status", "_rebuild", "_release")
"""Operations that every projection has: how it stands; build it anew; go on with a parked stream."""


class Runner(Generic[V]):
    """See the module. `run` is one task; the other methods may be called at any time on the same loop."""

    def __init__(
        self, generations: Generations[V], reader: LogReader, hints: Hints, *, upcast: Upcast, clock: Clock | None = None
    ) -> None:
        self.name = generations.name
        self.version = generations.version
        self._generations = generations
        self._reader = reader
        self._hints = hints
        self._upcast = upcast
        self._clock = clock or SystemClock()
        self._live: Follower | None = None
        self._live_view: V | None = None
        self._answers: Answers | None = None
        self._build: Follower | None = None
        self._build_view: V | None = None
        self._target: dict[int, int] = {}
        self._retired: list[tuple[Answers, V | None]] = []
        self._frozen = False
        self._damaged = False
        self._rebuild_asked = False
        self._releases: list[tuple[StreamId | None, asyncio.Future[int]]] = []
        self._failure: str | None = None
        self._away = False
        self._dead = False
        self.locked = asyncio.Event()
        """Set while this process is the one that applies, and so answers."""
        self._woken = asyncio.Event()
        self._heard = Heard(self._clock)
        self._advanced = asyncio.Event()

    # -- life ---------------------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Raises nothing for what is wrong with the projection: that is a state (`status`), and an alarm in the log."""
        unlisten = self._hints.listen(self._on_hint)
        try:
            while not self._generations.try_lock():  # noqa: ASYNC110  the lock of another process tells nobody that it is free
                await asyncio.sleep(LOCK_EVERY_S)
            self.locked.set()
            pause_s = _RETRY_FIRST_S
            while True:
                began = self._clock.monotonic()
                try:
                    await self._session()
                except (InvariantError, ConfigurationError) as error:
                    if not isinstance(error, CorruptLogError):
                        await self._die(error)
                        continue
                    self._fail(error)
                except (CuebookError, OSError) as error:
                    self._fail(error)
                if self._clock.monotonic() - began > _RETRY_MAX_S:
                    pause_s = _RETRY_FIRST_S
                await self._close()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MAX_S)
        finally:
            unlisten()
            self.locked.clear()
            try:
                await self._close()
            finally:
                self._let_go(NotReadyError(f"the projector of {self.name} ends", retry_after_ms=500))
                self._generations.unlock()

    def _fail(self, error: Exception) -> None:
        self._failure = f"{type(error).__name__}: {error}"
        away = isinstance(error, ViewUnavailableError)
        if not away:
            log.error("projection_interrupted", projection=self.name, error=self._failure)
        elif not self._away:
            # Once an outage: what may be gone for hours is tried again every few seconds.
            log.warning("projection_view_away", projection=self.name, error=self._failure)
        self._away = away

    async def _die(self, error: Exception) -> None:
        """A fault of the projection's code: another attempt would do the same, or worse."""
        self._failure, self._dead = f"{type(error).__name__}: {error}", True
        log.error("projection_failed", projection=self.name, error=self._failure)
        view = self._live_view or self._build_view
        await self._close()
        if isinstance(error, InvariantError) and view is not None:
            await self._generations.discard(view)
        while not self._rebuild_asked:
            self._woken.clear()
            await self._woken.wait()
        self._dead = False

    async def _session(self) -> None:
        await self._open()
        while True:
            _end_if_cancelled()
            self._woken.clear()
            heard = self._heard.take()
            for follower in (self._live, self._build):
                for shard, position in heard.items():
                    if follower is not None:
                        follower.hint(shard, position)
            if await self._turn():
                # A read may be answered without a real wait: others of this loop get their turn all the same.
                await asyncio.sleep(0)
                continue
            again = self._live_view is not None and await self._generations.tend(self._live_view)
            _end_if_cancelled()
            due_s = self._heard.due_s()
            with suppress(TimeoutError):
                async with asyncio.timeout(due_s if due_s is not None or not again else _TEND_EVERY_S):
                    await self._woken.wait()

    async def _open(self) -> None:
        self._frozen = self._damaged = False
        view = await self._generations.open_active()
        if view is not None:
            self._live_view, live = view, self._follower(view)
            await live.load()
            self._live = live
            self._answers = self._generations.answers(view)
        unfinished = await self._generations.open_unfinished()
        if unfinished is not None:
            await self._begin(unfinished)
        elif view is None:
            self._answers = self._generations.stale_answers()
            await self._begin(None)
        self._sweep()
        self._failure = None
        if self._answers is not None:
            self._tell_advanced()
        if self._away:
            self._away = False
            log.info("projection_view_back", projection=self.name)

    def _follower(self, view: V) -> Follower:
        return Follower(view, self._reader, upcast=self._upcast, clock=self._clock)

    async def _begin(self, unfinished: V | None) -> None:
        self._rebuild_asked = False
        self._target = await self._heads()
        view = await self._generations.begin(self._target) if unfinished is None else unfinished
        self._build_view, build = view, self._follower(view)
        await build.load()
        for shard, position in self._target.items():
            build.hint(shard, position)
        self._build = build
        log.info("projection_building", projection=self.name, version=self.version, events=sum(self._target.values()))

    async def _turn(self) -> bool:
        """One page for each of the two, or one thing that was asked for. False if there is nothing to do."""
        moved = False
        if self._damaged:
            await self._drop_damaged()
            moved = True
        if self._live is not None and not self._frozen:
            moved |= await self._step_live(self._live)
        if self._releases:
            await self._release()
            moved = True
        if self._rebuild_asked:
            if self._live is not None and self._live_view is not None and await self._generations.restart(self._live_view):
                await self._live.load()
            elif self._build is None:
                await self._begin(None)
            self._rebuild_asked = False
            moved = True
        if self._build is not None:
            moved |= await self._step_build(self._build)
        if self._build is not None and self._build.has(self._target if self._live is None else self._live.positions):
            await self._take_over(self._build)
            moved = True
        return await self._retire() or moved

    async def _step_live(self, live: Follower) -> bool:
        try:
            moved = await live.step()
        except CheckpointError as error:
            # Another projector, or the view has lost what it held: the next step asks it where it stands.
            log.warning("projection_checkpoint_moved", projection=self.name, why=error.message)
            await asyncio.sleep(_RETRY_FIRST_S)
            return True
        except RebuildNeededError as error:
            log.warning("projection_needs_rebuild", projection=self.name, why=error.message)
            self._rebuild_asked = True
            if "stream" in error.fields:
                self._frozen = True  # it answers, as old as it is, until the one without that stream takes over
            else:
                self._damaged = True
            return True
        if moved:
            self._tell_advanced()
        return moved

    async def _step_build(self, build: Follower) -> bool:
        try:
            return await build.step()
        except RebuildNeededError as error:
            if self._build_view is None or "stream" not in error.fields:
                raise
            # A stream was erased that it may hold something of.
            self._build, view, self._build_view = None, self._build_view, None
            await self._generations.discard(view)
            self._rebuild_asked = True
            return True

    async def _heads(self) -> dict[int, int]:
        return {shard: (await self._reader.info(shard)).position for shard in range(self._reader.shards)}

    async def _take_over(self, build: Follower) -> None:
        """The new view serves from here on: its checkpoint is at least that of the old one, so no reader goes back in time."""
        view = self._build_view
        if view is None:
            raise InvariantError("a build without a view")
        reached(CrashPoint.REBUILD_BUILT)
        self._generations.activate(view)
        if self._answers is not None:
            self._retired.append((self._answers, self._live_view))
        elif self._live_view is not None:
            await self._generations.discard(self._live_view)
        self._live, self._live_view, self._build, self._build_view = build, view, None, None
        self._answers = self._generations.answers(view)
        self._frozen = False
        self._tell_advanced()
        log.info("projection_live", projection=self.name, version=self.version, applied=build.statistics().applied)

    async def _retire(self) -> bool:
        """Close what was replaced, once nobody reads it any more."""
        idle = [each for each in self._retired if not each[0].busy]
        for each in idle:
            answers, view = each
            await answers.close()
            if view is not None:
                await self._generations.discard(view)
            self._retired.remove(each)  # only now: cut off before, `_close` ends them
        if idle:
            self._sweep()
        return bool(idle)

    def _sweep(self) -> None:
        self._generations.sweep([view for view in (self._live_view, self._build_view) if view is not None])

    async def _drop_damaged(self) -> None:
        """Nothing more is answered from it: a wrong answer is worse than none."""
        self._damaged = False
        answers, view = self._answers, self._live_view
        self._live = self._live_view = self._answers = None
        try:
            if answers is not None:
                await answers.close()
        finally:
            if view is not None:
                await self._generations.discard(view)
        self._target = await self._heads()

    async def _close(self) -> None:
        """Answers first, then what they read. Cancelled or failed half-way: the rest is closed all the same."""
        answers = [each for each, _ in self._retired]
        if self._answers is not None:
            answers.append(self._answers)
        views = [self._live_view, self._build_view, *(view for _, view in self._retired)]
        self._retired = []
        self._live = self._live_view = self._answers = self._build = self._build_view = None
        async with AsyncExitStack() as stack:
            for view in views:
                if view is not None:
                    stack.push_async_callback(view.close)
            for each in answers:
                stack.push_async_callback(each.close)

    # -- what comes from outside --------------------------------------------------------------------------------------------------------

    def _on_hint(self, shard: int, position: int | None) -> None:
        news = [each.heard(shard, position) for each in (self._live, self._build) if each is not None]
        if any(news) and self._heard.add(shard, position):
            self._woken.set()

    def _tell_advanced(self) -> None:
        self._advanced.set()
        self._advanced = asyncio.Event()

    # -- asked for ----------------------------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> Mapping[str, Operation]:
        """What can be asked right now; nothing while there is no view that answers."""
        return {} if self._answers is None else self._answers.operations

    async def query(self, name: str, body: bytes, timeout_s: float = OPERATION_S) -> tuple[Any, Positions]:
        """What the operation `name` answers, and the checkpoint of what it saw. Changes nothing; safe to repeat, also when cancelled.

        Args:
            body: a JSON object of its arguments; ``_after`` in it names positions (shard to position) that the view must have reached.

        Raises:
            UnknownOperationError: no such operation. BadArgumentsError: names the field. NotReadyError: nothing can answer yet, or the
            view is not there within `timeout_s`. OperationFailedError: it raised.
        """
        if name in OWN:
            return await self._own(name, body), {}
        give_up = self._clock.monotonic() + timeout_s
        request = self._parsed(name, body)
        if request.after:
            await self._reach(request.after, give_up)
        answers = self._answers
        if answers is None:
            raise self.not_ready()
        left_s = max(0.001, min(OPERATION_S, give_up - self._clock.monotonic()))
        try:
            return await answers.ask(name, request.arguments, left_s)
        finally:
            if answers is not self._answers:
                self._woken.set()  # the last reader of a view that was replaced: it can go

    def _parsed(self, name: str, body: bytes) -> Request:
        answers = self._answers
        if answers is None:
            raise self.not_ready()
        if name not in answers.operations:
            known = ", ".join(sorted(answers.operations)) or "none"
            raise UnknownOperationError(f"the projection {self.name} has no operation {name!r} (it has: {known})", operation=name)
        return parse_request(answers.operations[name], body)

    async def _reach(self, wanted: Positions, give_up: float) -> None:
        if any(shard >= self._hints.shards or shard < 0 for shard in wanted):
            raise BadArgumentsError(f"the log has shards 0 to {self._hints.shards - 1}", field="_after")
        if self._live is None and self._answers is not None and await covers(self._answers, wanted, give_up - self._clock.monotonic()):
            return
        while self._live is None or not self._live.has(wanted):
            advanced = self._advanced
            for shard, position in wanted.items():
                # Who asks for a position knows that it is there: as good as the hint, which may be lost.
                self._hints.tell(shard, position)
            self._heard.hurry()
            self._woken.set()
            try:
                async with asyncio.timeout(give_up - self._clock.monotonic()):
                    await advanced.wait()
            except TimeoutError:
                at = dict(self._live.positions) if self._live is not None else {}
                raise NotReadyError(
                    f"the projection {self.name} stands at {at}, not yet at {dict(wanted)}", retry_after_ms=500, positions=at
                ) from None

    async def wait_answering(self, timeout_s: float) -> bool:
        """Wait until a view answers; False if none does after `timeout_s`: `not_ready` says why."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._answers is None:
                    await self._advanced.wait()
        return self._answers is not None

    def not_ready(self) -> NotReadyError:
        """Why nothing answers, and how far a view is that is built."""
        status = self.status()
        done = "" if status.progress is None else f", {status.progress:.0%} done"
        why = f": {self._failure}" if self._failure else ""
        eta_s = 1.0 if status.eta_s is None else min(max(status.eta_s, 0.1), 10.0)
        return NotReadyError(f"the projection {self.name} is {status.state}{done}{why}", retry_after_ms=int(eta_s * 1_000))

    async def _own(self, name: str, body: bytes) -> Any:
        try:
            given = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise BadArgumentsError(f"{name}: {error}", field=None) from error
        if name == "_status":
            return self.status()
        if name == "_rebuild":
            return self.rebuild()
        return {"events": await self.release(given.get("stream"))}

    def rebuild(self) -> RunnerStatus:
        """Build the view anew beside the old one, which answers until the new one has caught up. Returns at once; `status` says how far it
        is. While one is being built another call does nothing."""
        self._rebuild_asked = self._dead or self._build is None
        self._woken.set()
        return self.status()

    async def release(self, stream: str | None = None) -> int:
        """Try the events of a parked stream again, or those of all; how many were applied. Cancelled: it may be done all the same.

        Raises:
            BadArgumentsError: that stream is not parked. PoisonError: it still cannot be applied; nothing of it was.
            NotReadyError: there is no view to apply to.
        """
        if self._live is None:
            raise self.not_ready()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._releases.append((None if stream is None else StreamId(stream), future))
        self._woken.set()
        return await future

    async def _release(self) -> None:
        stream, future = self._releases.pop(0)
        live, count = self._live, 0
        try:
            if live is None or self._frozen:
                raise self.not_ready()
            for parked in live.parked if stream is None else [_parked_of(live, stream)]:
                if parked.stream:
                    count += await live.release(parked.stream)
        except (PoisonError, BadArgumentsError, NotReadyError) as error:
            if not future.done():
                future.set_exception(error)
            return
        except BaseException as error:
            if not future.done():
                future.set_exception(NotReadyError(f"the projection {self.name}: {error}", retry_after_ms=1_000))
            raise
        if not future.done():
            future.set_result(count)

    def _let_go(self, error: NotReadyError) -> None:
        """Nobody waits for a loop that has ended."""
        releases, self._releases = self._releases, []
        for _, future in releases:
            if not future.done():
                future.set_exception(error)
        self._tell_advanced()

    def status(self) -> RunnerStatus:
        """How it stands, from what is in memory: asks neither the log nor the view."""
        build = None if self._build is None else self._build.statistics()
        progress, eta_s = (None, None) if build is None else progress_of(build, self._target)
        if not self.locked.is_set():
            state = "standby"
        elif self._dead or (self._live is None and self._build is None):
            state = "failed" if self._failure else "opening"
        elif self._build is not None:
            state = "building" if self._live is None else "rebuilding"
        else:
            state = "live"
        return RunnerStatus(
            name=self.name, version=self.version, state=state, view=None if self._live is None else self._live.statistics(), build=build,
            progress=progress, eta_s=eta_s, failure=self._failure, parked=[] if self._live is None else list(self._live.parked),
        )  # fmt: skip


def _end_if_cancelled() -> None:
    """A client library may lose a cancellation that comes while it cleans up (redis-py does, now and then): a projector that waits on
    would never end. Raises: CancelledError."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _parked_of(live: Follower, stream: StreamId) -> Parked:
    for parked in live.parked:
        if parked.stream == stream:
            return parked
    raise BadArgumentsError(f"{stream} is not parked", field="stream")
