"""One effect of a turn between its handler and its journal: intent, run, result; from the record on a re-run (S15, S19, S21)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec

from actors import effects
from actors.driver import Driver
from actors.journal import Entry, Use, Wait, derived_id, effect_event
from actors.message import Command
from actors.past import Past
from actors.recovery import Plan, late_outcome, unknown_outcome
from actors.registry import ActorType, Method
from actors.scope import current_scope
from actors.step_cache import CachedStep
from events.caching import Cached
from events.envelope import NewEvent
from events.errors import InvariantError
from events.ids import CommandId

if TYPE_CHECKING:
    from actors.turn import Turn


class Suspended(BaseException):
    """The turn waits: it is unwound, and runs again from its journal. No `except Exception` of a handler may swallow it."""


class _LateError(Exception):
    """An effect did not end before its deadline. begun: whether it was started at all."""

    def __init__(self, begun: bool) -> None:
        super().__init__()
        self.begun = begun


class Journaled:
    """The part of `actors.turn.Turn` that every effect goes through."""

    __slots__ = (
        "_busy", "_driver", "_now_us", "_once_gone", "_past", "_task", "_under_way", "_uses", "command", "ended", "entries", "key",
        "kind", "method", "once_running", "readonly", "recorded", "suspended",
    )  # fmt: skip
    command: Command
    ended: bool
    """The handler has ended: whatever it left behind has no more effects."""
    entries: dict[Use, Entry]
    key: str
    kind: ActorType[Any]
    method: Method
    once_running: dict[Use, Wait | None]
    """Attempts that are under way of steps that are not repeated, with the question to put if they are cut off (S21)."""
    readonly: bool
    recorded: int
    """Version of the last journal entry."""
    suspended: bool
    _busy: int
    _driver: Driver
    _now_us: int
    _once_gone: asyncio.Future[None] | None
    """Set once no step that is not repeated is under way, if somebody waits for that."""
    _past: Past
    _task: asyncio.Task[Any] | None
    _under_way: set[asyncio.Task[Any]] | None
    """Tasks beside the handler's own in which effects are under way."""
    _uses: dict[tuple[str, str, str | None], int]

    def flush_chunks(self) -> None:
        """Send what was held back before the barrier."""
        raise NotImplementedError

    @property
    def _turn(self) -> "Turn":
        """What a driver knows: nothing else is made of this class."""
        return cast("Turn", self)

    async def _record(self, events: list[NewEvent]) -> int:
        return await self._driver.record(self._turn, events)

    async def _effect(
        self, kind: str, name: str, key: str | None, given: dict[str, Any], run: Callable[[], Awaitable[bytes]], *,
        plan: Plan | None = None, cached: CachedStep | None = None, mark: Mapping[str, Any] | None = None,
    ) -> bytes:  # fmt: skip
        """One journaled effect: from the record if it is there, else intent, run, result.

        Args:
            plan: of a step: its key, and what becomes of an attempt that was cut off. An ask has its command id for that, a view changes
                nothing. cached: its result may be one that somebody has had before (S37). mark: what is recorded with its outcome beside
                that; `run` may fill it in.
        """
        self._check_may("await")
        use = self._next(kind, name, key)
        entry = self.entries.get(use)
        if entry is not None and entry.finished:
            return self._recorded(entry)
        task = asyncio.current_task()
        if task is None or task is self._task:
            return await self._new(use, entry, given, run, plan, cached, mark)
        under_way = self._under_way = self._under_way or set()
        under_way.add(task)
        try:
            return await self._new(use, entry, given, run, plan, cached, mark)
        finally:
            under_way.discard(task)

    async def _new(
        self, use: Use, entry: Entry | None, given: dict[str, Any], run: Callable[[], Awaitable[bytes]], plan: Plan | None,
        cached: CachedStep | None, mark: Mapping[str, Any] | None,
    ) -> bytes:  # fmt: skip
        """An effect that has no outcome yet."""
        if entry is None:
            self._check_follows(use)
        else:
            entry.consumed = True
        if entry is not None and plan is not None and (found := await self._recover(use, entry, plan)) is not None:
            return found
        if cached is not None and (hit := await self._look_up(cached)) is not None:
            events = [effect_event(use, "started", {**given, **(plan.fields(None) if plan else {})})] if entry is None else []
            events.append(effect_event(use, "completed", cached.fields(hit), said="taken from the cache"))
            self._now_us = max(self._now_us, await self._record(events))
            self.flush_chunks()
            return hit.result
        if mark is None:
            mark = {} if cached is None else cached.mark()
        single = plan is not None and plan.single
        attempt = 1 if entry is None else entry.attempts + 1
        deadline_us, anew = self._deadline(entry, plan)
        if entry is None or single or anew:
            self._now_us = await self._record([effect_event(use, "started", {**given, **(plan.fields(deadline_us) if plan else {})})])
            self.flush_chunks()
        began = self._now_us
        if plan is not None and single:
            self.once_running[use] = self._question(use, attempt, plan)
            self._driver.once_changed(self._turn)
        try:
            result = await self._finish(use, run, mark, deadline_us)
        except _LateError as late:
            before = 0 if single or entry is None else entry.attempts
            result = await self._late(use, plan, attempt if late.begun else before, mark)
        self._now_us = max(began, self._now_us)
        if cached is not None:
            cached.keep(result, self.recorded, self._now_us)
        return result

    def _deadline(self, entry: Entry | None, plan: Plan | None) -> tuple[int | None, bool]:
        """When the attempt that is to begin must have ended (µs since 1970), and whether an intent has to say so anew.

        A deadline is the effect's, so a re-run keeps to what is recorded. What somebody decided to do again - a person (S21), a retry of
        the command - has one of its own; so has an intent of code that gave none.
        """
        if plan is None:
            return None, False
        if entry is not None and not plan.single and not entry.carried and (recorded := entry.started.get("deadline_us")) is not None:
            return recorded, False
        if plan.timeout_us is None:
            return None, False
        return max(self._now_us, self._driver.wall_us()) + plan.timeout_us, True

    async def _finish(self, use: Use, run: Callable[[], Awaitable[bytes]], mark: Mapping[str, Any], deadline_us: int | None) -> bytes:
        """Run what was intended and record what came of it. Raises: _LateError: it did not end in time; nothing is recorded of that."""
        self._busy += 1
        try:
            result = effects.sized(await self._in_time(run, deadline_us), use)
        except _LateError:
            raise
        except Exception as error:  # whatever the effect raises is recorded, then raised as what a re-run would raise
            raise await self._failed(use, {**effects.failure_of(error), **mark}) from error
        finally:
            self._busy -= 1
        self._now_us = await self._record([effect_event(use, "completed", {"result": msgspec.Raw(result), **mark})])
        self._once_ended(use)
        return result

    async def _in_time(self, run: Callable[[], Awaitable[bytes]], deadline_us: int | None) -> bytes:
        """`run`, cancelled at its deadline. What it returns all the same then is its result: that is more than we would know without."""
        if deadline_us is None:
            return await run()
        left_s = (deadline_us - self._driver.wall_us()) / 1_000_000
        if left_s <= 0:
            raise _LateError(begun=False)
        bound = asyncio.timeout(left_s)
        try:
            async with bound:
                return await run()
        except Exception as error:
            # Whatever it makes of being cancelled says nothing about what it had done until then.
            if bound.expired():
                raise _LateError(begun=True) from error
            raise

    async def _late(self, use: Use, plan: Plan | None, attempts: int, mark: Mapping[str, Any]) -> bytes:
        """What its policy makes of an effect at its deadline; returns its result if that is found out. attempts: after which nobody knows
        whether it happened, 0 = it did not."""
        if plan is None:
            raise InvariantError(f"{use} has a deadline and no plan")
        self._busy += 1
        try:
            if attempts and plan.recovery == "ask":
                self._once_ended(use)
                await self._no_other_once()  # it would be cut off with this turn
                await self._suspend(effects.once_question(self.command.stream, self.command.command_id, use, attempts, plan.function))
            if attempts and plan.verify is not None and (found := await self._verify(use, plan)) is not None:
                return found
            raise await self._failed(use, {**late_outcome(plan.recovery, attempts), **mark})
        finally:
            self._busy -= 1

    async def _failed(self, use: Use, failure: dict[str, Any], *, said: str | None = None) -> Exception:
        """Record `failure`; returns what a re-run would raise."""
        self._now_us = max(self._now_us, await self._record([effect_event(use, "failed", failure, said=said)]))
        self._once_ended(use)
        return effects.raised_again(failure, use)

    async def _recover(self, use: Use, entry: Entry, plan: Plan) -> bytes | None:
        """An intent without a result: nobody knows whether the effect happened. Returns its result if that is found out, None if it is to
        be run again. Raises: StepFailed: it is neither known nor repeated, or the check failed."""
        if plan.recovery == "ask" and not entry.cleared:
            await self._park(use, entry, plan)
        elif plan.recovery == "never":
            raise await self._failed(use, unknown_outcome(entry.attempts), said="unknown")
        elif plan.verify is not None and (found := await self._verify(use, plan)) is not None:
            return found
        deadline_us, anew = self._deadline(entry, plan)
        if not (plan.single or anew) and deadline_us is not None and self._driver.wall_us() >= deadline_us:
            raise await self._failed(use, late_outcome(plan.recovery, entry.attempts))
        return None

    async def _verify(self, use: Use, plan: Plan) -> bytes | None:
        """Ask whether the effect happened, for at most as long as the effect itself may take."""
        if plan.verify is None:
            return None
        self._busy += 1
        try:
            found = await _answer_within(plan.verify, plan.timeout_us)
            result = None if found is None else effects.sized(found, use)
        except Exception as error:  # recorded like a failure of the step itself, which stays as unknown as it was
            failure = effects.failure_of(error)
            failure["message"] = f"cannot be verified: {failure['message']}"
            raise await self._failed(use, failure) from error
        finally:
            self._busy -= 1
        if result is not None:
            done = effect_event(use, "completed", {"result": msgspec.Raw(result), "verified": True}, said="found done")
            self._now_us = max(self._now_us, await self._record([done]))
        return result

    def _question(self, use: Use, attempt: int, plan: Plan) -> Wait | None:
        """What a person is asked if the attempt is cut off; None: nobody is."""
        if plan.recovery != "ask":
            return None
        return effects.once_question(self.command.stream, self.command.command_id, use, attempt, plan.function)

    async def _look_up(self, cached: CachedStep) -> Cached | None:
        self._busy += 1
        try:
            return await cached.look_up()
        finally:
            self._busy -= 1

    def _once_ended(self, use: Use) -> None:
        if use not in self.once_running:
            return
        del self.once_running[use]
        self._driver.once_changed(self._turn)
        if not self.once_running and self._once_gone is not None:
            self._once_gone.set_result(None)
            self._once_gone = None

    async def _no_other_once(self) -> None:
        """Wait until no ``once`` step of this turn is under way."""
        while self.once_running:
            if self._once_gone is None:
                self._once_gone = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._once_gone)

    async def _park(self, use: Use, entry: Entry, plan: Plan) -> None:
        """S21: nobody knows what became of the last attempt, so a person is asked."""
        question = effects.once_question(self.command.stream, self.command.command_id, use, entry.attempts, plan.function)
        if entry.parked:
            self._driver.still_waits(self._turn, question.wait_id)
            self.suspended = True
            raise Suspended
        await self._suspend(question)

    async def _suspend(self, wait: Wait) -> NoReturn:
        await self._driver.suspend(self._turn, wait)
        self.suspended = True
        raise Suspended

    async def end_effects(self, cause: BaseException | None) -> None:
        """The handler has ended, with `cause` or well, and with it end the effects that it left under way in tasks of its own: they would
        go on beside other turns, or beside the next attempt of this one. What happens at most once comes to its end first (S21), unless
        the turn is cancelled or no longer ours."""
        if cause is None or isinstance(cause, Exception | Suspended):
            await self._no_other_once()
        if tasks := list(self._under_way or ()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _check_live(self) -> None:
        """A handler that caught what unwinds its waiting turn does nothing more."""
        if self.suspended:
            raise Suspended

    def _check_may(self, what: str) -> None:
        if self.readonly:
            raise InvariantError(f"{self.method.name} is a query: it may {what} nothing")
        if self.suspended:
            raise Suspended
        if self.ended:
            raise InvariantError(f"{self.method.name} had ended when something that it had begun wanted to {what}")

    def _recorded(self, entry: Entry) -> bytes:
        entry.consumed = True
        self._now_us = max(self._now_us, entry.at_us)
        if entry.failure is not None:
            raise effects.raised_again(entry.failure, entry.use)
        return b"null" if entry.result is None else bytes(entry.result)

    def _check_follows(self, use: Use) -> None:
        """S19, the sequential case: a handler that asks for something new, alone, while its journal holds finished entries that it has not
        asked for, is not the code that wrote the journal. (With concurrent steps only the end of the turn can tell.)"""
        if not self.entries:
            return
        alone = not self._busy and asyncio.current_task() is self._task
        unused = [entry.use for entry in self.entries.values() if not (entry.consumed or entry.carried)]
        # A finished segment holds everything that it asked for.
        if unused and (alone or self._past):
            raise effects.diverged(unused, use)

    def _check_left_over(self) -> None:
        unused = [entry.use for entry in self.entries.values() if not (entry.consumed or entry.carried)]
        if unused:
            raise effects.diverged(unused, None)

    def bind(self, task: asyncio.Task[Any] | None) -> None:
        """Name the task that runs the handler itself, so that concurrent steps can be told from sequential ones."""
        self._task = task

    def _peek(self, kind: str, name: str, key: str | None) -> Use:
        scope = current_scope()
        if scope is not None:
            key = scope.key(key)
        return Use(kind, name, key, self._uses.get((kind, name, key), 0) + 1)

    def _next(self, kind: str, name: str, key: str | None) -> Use:
        use = self._peek(kind, name, key)
        self._uses[(kind, name, use.key)] = use.n
        return use

    def _id(self, kind: str, name: str, n: int) -> CommandId:
        # Of the actor as its code knows it: a fork asks under the ids that stand in the journal which it took along (S33).
        scope = current_scope()
        part = () if scope is None else (scope.name,)
        return CommandId(derived_id(f"{self.kind.name}/{self.key}", self.command.command_id, kind, name, n, *part))


async def _answer_within(verify: Callable[[], Awaitable[bytes | None]], timeout_us: int | None) -> bytes | None:
    if timeout_us is None:
        return await verify()
    bound = asyncio.timeout(timeout_us / 1_000_000)
    try:
        async with bound:
            return await verify()
    except TimeoutError as error:
        if bound.expired():
            raise TimeoutError(f"no answer within {timeout_us / 1_000_000:g} s") from error
        raise
