"""The memory of a workspace: recalls among many memories, one after another, and what `memory_agents` measures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from events.errors import InvariantError
from ops.bench.measure import Case, Cases, Setting, closed_loop
from ops.bench.memory_agents import agent_cases
from ops.bench.memory_texts import WORKSPACE, question_of, stored
from projections.answers import ProjectionAnswers
from projections.embedding.hashing import HashEmbedder
from projections.memory.projection import MemoryProjection
from projections.view_sqlite import SqliteView

_PER_BATCH: Final = 1_000
_GRAPHS_S: Final = 600.0
_ANSWER_S: Final = 30.0


@asynccontextmanager
async def memory_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Recalls of five among `Scale.memories` and among a tenth of them; agents that remember and recall, beside the same in the loop."""
    many = setting.scale.memories
    few = max(1, many // 10)
    async with AsyncExitStack() as stack:
        cases: dict[str, Case] = {}
        for name, count in (("memory-few", few), ("memory-many", many)):
            if name in setting.wanted:
                setting.progress(f"{count:,} memories")
                cases[name] = recalls(await stack.enter_async_context(filled(setting.folder / name, count)), count)
        if setting.wanted & {"memory-agents", "memory-sync"}:
            setting.progress(f"ten agents with {few:,} memories")
            cases |= await stack.enter_async_context(agent_cases(setting.folder / "agents", few))
        yield cases


@asynccontextmanager
async def filled(folder: Path, memories: int) -> AsyncIterator[ProjectionAnswers]:
    """A view with so many memories in one workspace, its index complete; who answers from it."""
    projection = MemoryProjection(HashEmbedder())
    view = await SqliteView.open(projection, folder, "bench")
    answers = ProjectionAnswers(projection, view.path)
    try:
        for first in range(0, memories, _PER_BATCH):
            batch = [stored(number, number + 1) for number in range(first, min(first + _PER_BATCH, memories))]
            await view.apply(batch, expected={0: first} if first else {}, positions={0: first + len(batch)})
        await _recall(answers, memories, 0)
        if not await asyncio.to_thread(projection.wait_idle, _GRAPHS_S):
            raise InvariantError(f"the graphs of {memories:,} memories were not made within {_GRAPHS_S:.0f} s")
        yield answers
    finally:
        await answers.close()
        await view.close()


def recalls(answers: ProjectionAnswers, memories: int) -> Case:
    """One recall after another."""
    return partial(closed_loop, partial(_recall, answers, memories), 1)


async def _recall(answers: ProjectionAnswers, memories: int, number: int) -> None:
    found, _ = await answers.ask("recall", {"workspace": WORKSPACE, "query": question_of(number * 13 % memories)}, _ANSWER_S)
    if not found:
        raise InvariantError(f"nothing was found of {question_of(number * 13 % memories)!r}")
