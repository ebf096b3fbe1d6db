"""Appends beside the mailbox: what must not wait for the turn that holds an actor, such as the answer to a wait (S22).

A control is decided on no state, so it may come between the journal entries of a turn. It is submitted on top of everything that was
submitted before it, and so needs an actor whose version is known: one that is not in memory is folded first.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from actors.errors import ActorError, LogFull, Unavailable
from events.errors import AppendOutcomeUnknownError, CuebookError, LogFullError
from events.store import Append, Committed, Conflict, Outcome
from runtime.exchange import Reply
from runtime.items import Item
from runtime.turns.queries import answer_with, query_reply

if TYPE_CHECKING:
    from runtime.cell import Cell

_ATTEMPTS_MAX = 5


class Control:
    """One append that somebody waits for. build: makes the group for the version that it is submitted upon."""

    __slots__ = ("_build", "future", "submitted")

    def __init__(self, build: Callable[[int], Append]) -> None:
        self._build = build
        self.future: asyncio.Future[Outcome | CuebookError] = asyncio.get_running_loop().create_future()
        self.submitted = False

    def submit(self, cell: "Cell") -> None:
        """Called once the version of `cell` is known."""
        self.submitted = True
        group = self._build(cell.version)
        cell.version += len(group.events)

        def ended(outcome: Outcome | CuebookError) -> None:
            cell.controls.remove(self)
            if isinstance(outcome, Committed):
                cell.recorded(outcome)
            else:
                cell.state = None  # versions were counted on that were not given
            self._resolve(outcome)
            cell.settle_if_done()

        cell.shard.commit.submit(group, ended)

    def fail(self, cell: "Cell", error: CuebookError) -> None:
        """The actor cannot be folded."""
        cell.controls.remove(self)
        self._resolve(error)

    def _resolve(self, outcome: Outcome | CuebookError) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


class Look:
    """A query to an actor that is held: answered from its committed state, once that is known."""

    __slots__ = ("_item", "submitted")

    def __init__(self, item: Item) -> None:
        self._item = item
        self.submitted = False

    def submit(self, cell: "Cell") -> None:
        cell.controls.remove(self)
        answer_with(self._item, query_reply(cell, self._item, cell.state))

    def fail(self, cell: "Cell", error: CuebookError) -> None:
        cell.controls.remove(self)
        self._item.answer(Reply(error=Unavailable(f"{cell.stream} cannot be recovered: {error.message}", reason=error.code)))


NO_CONTROLS: Final[list[Control | Look]] = []
"""What an idle actor has: never filled, as its deque of pending commands is not."""


def add_control(cell: "Cell", control: Control | Look) -> None:
    """Submit beside the mailbox, once the version of the actor is known."""
    if cell.controls is NO_CONTROLS:
        cell.controls = []
    cell.controls.append(control)
    cell.stir()
    if cell.state is not None:
        control.submit(cell)
    else:
        cell.wake()


def submit_controls(cell: "Cell") -> None:
    """The actor was folded: what waited for that."""
    for control in [control for control in cell.controls if not control.submitted]:
        control.submit(cell)


async def commit_control(cell: "Cell", build: Callable[[int], Append]) -> Outcome | CuebookError:
    """Submit until there is an outcome that is not about others: a conflict and an unknown outcome are tried again, since the group finds
    by its inbox row what it did itself."""
    attempts = 0
    while True:
        control = Control(build)
        add_control(cell, control)
        outcome = await asyncio.shield(control.future)
        attempts += 1
        moved = isinstance(outcome, Conflict) and not outcome.reason.endswith(("is archived", "is erased"))
        if not (moved or isinstance(outcome, AppendOutcomeUnknownError)) or attempts >= _ATTEMPTS_MAX:
            return outcome


def control_error(cell: "Cell", outcome: Outcome | CuebookError) -> ActorError:
    """What the caller of a control is told that was not committed."""
    if isinstance(outcome, LogFullError):
        return LogFull("the disk is full: the log is read-only until space returns", retry_after_ms=1_000)
    reason = outcome.message if isinstance(outcome, CuebookError) else getattr(outcome, "reason", "known already")
    return Unavailable(f"{cell.stream}: {reason}", retry_after_ms=500)
