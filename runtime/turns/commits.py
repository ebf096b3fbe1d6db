"""Committing for a turn that holds its actor: wait for the outcome, whatever the caller does meanwhile."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from events.errors import CuebookError, LogFullError, SupersededError
from events.group_commit import GroupCommit
from events.limits import FULL_RETRY_S
from events.store import Append, Conflict, Outcome
from runtime.items import LostError, StaleError

log = structlog.get_logger("cuebook.cell")


async def commit_held(commit: GroupCommit, group: Append) -> Outcome:
    """Commit a group of a turn that holds its actor. A full disk is waited out: a turn that has begun is not given up for that. Cancelling
    or timing out a caller never cancels a commit.

    Raises:
        LostError: the shard has another owner.
        StaleError: the outcome is unknown; the turn runs again from what the log holds.
    """
    while True:
        future: asyncio.Future[Outcome | CuebookError] = asyncio.get_running_loop().create_future()
        commit.submit(group, partial(_resolve, future))
        outcome = await asyncio.shield(future)
        if not isinstance(outcome, LogFullError):
            return outcome_of(group, outcome)
        await asyncio.sleep(FULL_RETRY_S)


def outcome_of(group: Append, outcome: Outcome | CuebookError) -> Outcome:
    """Raises: LostError, StaleError, as `commit_held` does."""
    if isinstance(outcome, SupersededError):
        raise LostError
    if isinstance(outcome, CuebookError):
        log.warning("commit_outcome_unknown", stream=group.stream, error=outcome.message)
        raise StaleError
    return outcome


def _resolve(future: asyncio.Future[Outcome | CuebookError], outcome: Outcome | CuebookError) -> None:
    if not future.done():
        future.set_result(outcome)


class HeldCommits:
    """The groups of a turn with a journal: results of concurrent steps, each upon the one before, each committed singly (S15).

    A full disk is waited out with all of them in order: each counts on the versions of those before it. None is open once `settled` is
    called, so that a turn which runs again never reads a journal to which something is still being added (I-14).
    """

    __slots__ = ("_commit", "_full", "_settled", "open")

    def __init__(self, commit: GroupCommit, settled: Callable[[], None]) -> None:
        self._commit = commit
        self._settled = settled
        self._full: deque[tuple[Append, asyncio.Future[Outcome | CuebookError]]] = deque()
        self.open = 0
        """Groups whose outcome is still to come, also if nobody waits for it any more."""

    async def commit(self, group: Append) -> Outcome:
        """As `commit_held`."""
        future: asyncio.Future[Outcome | CuebookError] = asyncio.get_running_loop().create_future()
        self.open += 1
        if self._full:
            self._full.append((group, future))
        else:
            self._submit(group, future)
        return outcome_of(group, await asyncio.shield(future))

    def _submit(self, group: Append, future: "asyncio.Future[Outcome | CuebookError]") -> None:
        self._commit.submit(group, partial(self._ended, group, future))

    def _ended(self, group: Append, future: "asyncio.Future[Outcome | CuebookError]", outcome: Outcome | CuebookError) -> None:
        # One that met space again, behind one that did not, stands on versions that are not there yet.
        if isinstance(outcome, LogFullError) or (self._full and isinstance(outcome, Conflict)):
            if not self._full:
                asyncio.get_running_loop().call_later(FULL_RETRY_S, self._again)
            self._full.append((group, future))
            return
        self.open -= 1
        _resolve(future, outcome)
        if not self.open:
            self._settled()

    def _again(self) -> None:
        waiting = list(self._full)
        self._full.clear()
        for group, future in waiting:
            self._submit(group, future)
