"""A LangGraph program of ten nodes in a row, and LangGraph's SQLite saver with WAL and synchronous=FULL, as ours."""

import itertools
import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

from langgraph.graph import START, StateGraph

NODES: Final = 10
_threads: Final = itertools.count()


class _State(TypedDict):
    log: Annotated[list[str], operator.add]
    count: int


def running(saver: Any) -> Callable[[int], Awaitable[object]]:
    """One run of the program, in a thread of its own."""
    builder: Any = StateGraph(_State)
    before = START
    for number in range(NODES):

        async def node(state: _State, number: int = number) -> dict[str, Any]:
            return {"log": [f"node {number} says something of about forty bytes"], "count": state["count"] + 1}

        builder.add_node(f"node{number}", node)
        builder.add_edge(before, f"node{number}")
        before = f"node{number}"
    graph = builder.compile(checkpointer=saver)

    def run(_: int) -> Awaitable[object]:
        begun: Awaitable[object] = graph.ainvoke({"log": [], "count": 0}, {"configurable": {"thread_id": f"bench-{next(_threads)}"}})
        return begun

    return run


@asynccontextmanager
async def sqlite_saver(path: Path) -> AsyncIterator[Any]:
    """LangGraph's own saver on a file of its own. Raises ImportError if it is not installed."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.setup()  # sets WAL
        await saver.conn.execute("PRAGMA synchronous=FULL")
        yield saver
