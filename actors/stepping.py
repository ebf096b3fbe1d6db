"""One effect of a turn between its handler and its journal: intent, run, result; from the record on a re-run (S15, S19, S21)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec

from actors import effects
from actors.driver import Driver
from actors.journal import Entry, Use, Wait, derived_id, effect_event
from actors.message import Command
from actors.past import Past
from actors.recovery import Plan, unknown_outcome
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


class Journaled:
    """The part of `actors.turn.Turn` that every effect goes through."""

    __slots__ = (
        "_busy", "_driver", "_now_us", "_past", "_task", "_uses", "command", "entries", "key", "kind", "method", "once_running",
        "readonly", "recorded", "suspended",
    )  # fmt: skip
    command: Command
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
    _past: Past
    _task: asyncio.Task[Any] | None
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
        plan: Plan | None = None, cached: CachedStep | None = None,
    ) -> bytes:  # fmt: skip
        """One journaled effect: from the record if it is there, else intent, run, result.

        Args:
            plan: of a step: its key, and what becomes of an attempt that was cut off. An ask has its command id for that, a view changes
                nothing. cached: its result may be one that somebody has had before (S37).
        """
        self._check_may("await")
        use = self._next(kind, name, key)
        entry = self.entries.get(use)
        if entry is not None and entry.finished:
            return self._recorded(entry)
        if entry is None:
            self._check_follows(use)
        else:
            entry.consumed = True
        if entry is not None and plan is not None and (found := await self._recover(use, entry, plan)) is not None:
            return found
        if cached is not None and (hit := await self._look_up(cached)) is not None:
            events = [effect_event(use, "started", {**given, **(plan.fields() if plan else {})})] if entry is None else []
            events.append(effect_event(use, "completed", cached.fields(hit), said="taken from the cache"))
            self._now_us = max(self._now_us, await self._record(events))
            self.flush_chunks()
            return hit.result
        mark = {} if cached is None else cached.mark()
        single = plan is not None and plan.single
        if entry is None or single:
            self._now_us = await self._record([effect_event(use, "started", {**given, **(plan.fields() if plan else {})})])
            self.flush_chunks()
        began = self._now_us
        if plan is not None and single:
            self.once_running[use] = self._question(use, 1 if entry is None else entry.attempts + 1, plan)
            self._driver.once_changed(self._turn)
        result = await self._finish(use, run, mark)
        self._now_us = max(began, self._now_us)
        if cached is not None:
            cached.keep(result, self.recorded, self._now_us)
        return result

    async def _finish(self, use: Use, run: Callable[[], Awaitable[bytes]], mark: dict[str, Any]) -> bytes:
        """Run what was intended and record what came of it."""
        self._busy += 1
        try:
            result = effects.sized(await run(), use)
        except Exception as error:  # whatever the effect raises is recorded, then raised as what a re-run would raise
            failure = {**effects.failure_of(error), **mark}
            self._now_us = await self._record([effect_event(use, "failed", failure)])
            self._once_ended(use)
            raise effects.raised_again(failure, use) from error
        finally:
            self._busy -= 1
        self._now_us = await self._record([effect_event(use, "completed", {"result": msgspec.Raw(result), **mark})])
        self._once_ended(use)
        return result

    async def _recover(self, use: Use, entry: Entry, plan: Plan) -> bytes | None:
        """An intent without a result: nobody knows whether the effect happened. Returns its result if that is found out, None if it is to
        be run again. Raises: StepFailed: it is neither known nor repeated, or the check failed."""
        if plan.recovery == "ask" and not entry.cleared:
            await self._park(use, entry, plan)
        elif plan.recovery == "never":
            failure = unknown_outcome(entry.attempts)
            self._now_us = max(self._now_us, await self._record([effect_event(use, "failed", failure, said="unknown")]))
            raise effects.raised_again(failure, use)
        elif plan.verify is not None:
            return await self._verify(use, plan.verify)
        return None

    async def _verify(self, use: Use, verify: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        self._busy += 1
        try:
            found = await verify()
            result = None if found is None else effects.sized(found, use)
        except Exception as error:  # recorded like a failure of the step itself, which stays as unknown as it was
            failure = effects.failure_of(error)
            failure["message"] = f"cannot be verified: {failure['message']}"
            self._now_us = max(self._now_us, await self._record([effect_event(use, "failed", failure)]))
            raise effects.raised_again(failure, use) from error
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
        if self.once_running.pop(use, None) is not None:
            self._driver.once_changed(self._turn)

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

    def _check_live(self) -> None:
        """A handler that caught what unwinds its waiting turn does nothing more."""
        if self.suspended:
            raise Suspended

    def _check_may(self, what: str) -> None:
        if self.readonly:
            raise InvariantError(f"{self.method.name} is a query: it may {what} nothing")
        if self.suspended:
            raise Suspended

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
