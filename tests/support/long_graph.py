"""A graph of twelve nodes, for a deployment: ``--app tests.support.long_graph:app``. Six ask a model, six write down what it said, each in
a file of its own below ``LONG_GRAPH_FILES``.

A file is appended to, so that what is done twice shows; the step that does it looks first, after a crash, whether it is done.
"""

import operator
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import HumanMessage
from langgraph.graph import START, StateGraph

from actors import idempotency_key
from actors.graph import GraphActor, ServiceChatModel, get_actor
from runtime import App

PAIRS = 6
MODEL = ServiceChatModel(service="scripted")


class Work(TypedDict, total=False):
    run: str
    thoughts: Annotated[list[str], operator.add]
    files: Annotated[list[str], operator.add]


def place(run: str, number: int) -> Path:
    """The file of one pair of nodes."""
    return Path(os.environ["LONG_GRAPH_FILES"]) / f"{run}-{number}.txt"


async def write(run: str, number: int, text: str) -> str:
    """Step: one line more in the file."""
    with place(run, number).open("a") as file:
        file.write(f"{idempotency_key()} {text}\n")
    return place(run, number).name


async def written(run: str, number: int, text: str) -> str | None:
    """The check of `write`: whether this very line is there."""
    file = place(run, number)
    return file.name if file.exists() and f"{idempotency_key()} {text}" in file.read_text().splitlines() else None


def think(number: int) -> Any:
    async def thinking(state: Work) -> Work:
        said = await MODEL.ainvoke([HumanMessage(f"{state['run']} step {number}")])
        return {"thoughts": [str(said.content)]}

    return thinking


def note(number: int) -> Any:
    async def noting(state: Work) -> Work:
        thought = state["thoughts"][number - 1]
        name = await get_actor().step("write", write, state["run"], number, thought, recovery="verify", verify=written)
        return {"files": [name]}

    return noting


builder: Any = StateGraph(Work)
last = START
for pair in range(1, PAIRS + 1):
    for name, node in ((f"think{pair}", think(pair)), (f"note{pair}", note(pair))):
        builder.add_node(name, node)
        builder.add_edge(last, name)
        last = name


class LongActor(GraphActor, name="long"):
    graph = builder


app = App(actors=[LongActor])
