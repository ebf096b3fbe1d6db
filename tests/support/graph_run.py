"""One invocation of a small LangGraph program on an `EventLogSaver`, as a process that may be killed: ``python -m tests.support.graph_run``
FOLDER EFFECTS. Each node that runs adds its name to EFFECTS; "slow" runs beside "fast" and begins when that is stored.
"""

import asyncio
import operator
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from actors.graph import EventLogSaver
from tests.support.crashing import arm

CONFIG: Any = {"configurable": {"thread_id": "t"}}
INPUT: Any = {"log": ["input"]}
EXPECTED = ["input", "first", "fast", "slow", "last"]


class State(TypedDict):
    """What the nodes said, in their order."""

    log: Annotated[list[str], operator.add]


def program(effects: Path, stored: asyncio.Event) -> Any:
    """first, then fast and slow at once, then last."""

    def noted(name: str) -> dict[str, Any]:
        with effects.open("a") as file:
            file.write(f"{name}\n")
        return {"log": [name]}

    async def slow(state: State) -> dict[str, Any]:
        await stored.wait()
        return noted("slow")

    builder: Any = StateGraph(State)
    for name in ("first", "fast", "last"):
        builder.add_node(name, lambda state, name=name: noted(name))
    builder.add_node("slow", slow)
    builder.add_edge(START, "first")
    builder.add_edge("first", "fast")
    builder.add_edge("first", "slow")
    builder.add_edge(["fast", "slow"], "last")
    builder.add_edge("last", END)
    return builder


class Telling(EventLogSaver):
    """Sets `stored` when the writes of "fast" are durable."""

    stored: asyncio.Event

    async def aput_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """As `EventLogSaver.aput_writes`."""
        await super().aput_writes(config, writes, task_id, task_path)
        if ("log", ["fast"]) in list(writes):
            self.stored.set()


async def run(folder: Path, effects: Path) -> list[str]:
    """Begin the thread, or go on with it; what it says in the end."""
    async with Telling.open(folder) as saver:
        if not isinstance(saver, Telling):
            raise TypeError("opened another class")
        saver.stored = asyncio.Event()
        graph = program(effects, saver.stored).compile(checkpointer=saver)
        found = await saver.aget_tuple(CONFIG)
        if found is not None and any(write[1:] == ("log", ["fast"]) for write in found.pending_writes or ()):
            saver.stored.set()
        # Else LangGraph stores a checkpoint beside the step that follows it, and a death in between does that step again.
        done = await graph.ainvoke(INPUT if found is None else None, CONFIG, durability="sync")
        log: list[str] = done["log"]
        return log


if __name__ == "__main__":
    arm()
    print(asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]))))
