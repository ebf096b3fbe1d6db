"""LangGraph programs of ten nodes in a row: on our saver and on LangGraph's own SQLite saver, each with an fsync per commit.

Theirs commits every checkpoint, and every task's writes, alone; ours commits what arrives together. LangGraph's durability is its default,
"async": it goes on with the next step while a checkpoint is being stored.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from ops.bench.measure import Case, Cases, Setting, Unavailable, closed_loop
from ops.bench.peers import not_installed

AT_ONCE: Final = 20


@asynccontextmanager
async def graph_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Runs of the program one after another, and twenty at once."""
    cases: dict[str, Case | Unavailable] = {}
    async with AsyncExitStack() as stack:
        try:
            from actors.graph import EventLogSaver
            from ops.bench.peer_langgraph import running, sqlite_saver
        except ImportError as error:
            missing = not_installed("langgraph", error)
            yield dict.fromkeys(("graph-1", "graph-20", "graph-sqlite-1", "graph-sqlite-20"), missing)
            return
        ours = running(await stack.enter_async_context(EventLogSaver.open(setting.folder / "graphs")))
        cases |= {"graph-1": partial(closed_loop, ours, 1), "graph-20": partial(closed_loop, ours, AT_ONCE)}
        try:
            theirs = running(await stack.enter_async_context(sqlite_saver(setting.folder / "graphs.sqlite")))
        except ImportError as error:
            cases |= dict.fromkeys(("graph-sqlite-1", "graph-sqlite-20"), not_installed("langgraph-checkpoint-sqlite", error))
        else:
            cases |= {"graph-sqlite-1": partial(closed_loop, theirs, 1), "graph-sqlite-20": partial(closed_loop, theirs, AT_ONCE)}
        yield cases
