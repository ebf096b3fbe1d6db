"""Committing for a turn that holds its actor: wait for the outcome, whatever the caller does meanwhile."""

import asyncio
from functools import partial

import structlog

from events.errors import CuebookError, LogFullError, SupersededError
from events.group_commit import GroupCommit
from events.limits import FULL_RETRY_S
from events.store import Append, Outcome
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
        if isinstance(outcome, LogFullError):
            await asyncio.sleep(FULL_RETRY_S)
        elif isinstance(outcome, SupersededError):
            raise LostError
        elif isinstance(outcome, CuebookError):
            log.warning("commit_outcome_unknown", stream=group.stream, error=outcome.message)
            raise StaleError
        else:
            return outcome


def _resolve(future: asyncio.Future[Outcome | CuebookError], outcome: Outcome | CuebookError) -> None:
    if not future.done():
        future.set_result(outcome)
