"""One ruff process for many files, although each file is a step of its own.

A process costs 20 ms before it has read a line, a file a tenth of that. Steps that run at the same time reach `lint_one` in the same
iteration of the event loop, because one commit released them all; their files go to ruff together and each step gets its own part.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import NamedTuple

from actors.tools.errors import AnalysisError
from actors.tools.findings import Finding
from actors.tools.lint import lint_files
from actors.tools.workspace import read_file


class _Waiting(NamedTuple):
    path: str
    sha256: str
    answer: "asyncio.Future[list[Finding]]"


_Outcomes = dict[str, list[Finding] | AnalysisError]
# Lives for one iteration of a loop: an entry is taken out by the flush which its first caller asked for.
_batches: dict[tuple[asyncio.AbstractEventLoop, str], list[_Waiting]] = {}


async def lint_one(root: str, path: str, sha256: str) -> list[Finding]:
    """Ruff's findings in one file.

    Raises:
        AnalyserMissingError: ruff is absent or gave no readable answer.
        FileChangedError: the content no longer has the digest `sha256`.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Finding]] = loop.create_future()
    batch = _batches.setdefault((loop, root), [])
    if not batch:
        loop.call_soon(_flush, loop, root)
    batch.append(_Waiting(path, sha256, answer))
    return await answer


def _flush(loop: asyncio.AbstractEventLoop, root: str) -> None:
    batch = _batches.pop((loop, root))
    digests = {waiting.path: waiting.sha256 for waiting in sorted(batch, key=lambda each: each.path)}
    done = loop.run_in_executor(None, _lint, root, digests)
    done.add_done_callback(partial(_hand_out, batch))


def _lint(root: str, digests: dict[str, str]) -> _Outcomes:
    place = Path(root)
    found = lint_files(place, list(digests))
    outcomes: _Outcomes = {}
    for path, sha256 in digests.items():
        try:
            # After ruff, so that its findings are those of the content they will be stored under.
            read_file(place, path, sha256=sha256)
            outcomes[path] = found[path]
        except AnalysisError as error:
            outcomes[path] = error
    return outcomes


def _hand_out(batch: list[_Waiting], done: "asyncio.Future[_Outcomes]") -> None:
    failure = None if done.cancelled() else done.exception()
    for waiting in batch:
        if waiting.answer.done():
            continue
        if done.cancelled():
            waiting.answer.cancel()
        elif failure is not None:
            waiting.answer.set_exception(failure)
        elif isinstance(outcome := done.result()[waiting.path], AnalysisError):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)
