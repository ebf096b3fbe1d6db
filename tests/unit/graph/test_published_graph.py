"""A graph in the shape of LangGraph's public documentation, with interrupts and subgraphs, runs unchanged inside an actor (design.md 8)."""

import ast
import importlib.util
import re
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from actors.graph import graph_actor
from actors.testing import ActorTest
from tests.support import published_graph

INPUT: Any = {"topic": "news", "names": [], "mails": []}


def test_the_published_graph_knows_of_nothing_but_langgraph() -> None:
    tree = ast.parse(Path(published_graph.__file__).read_text())
    imported = {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    imported |= {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
    assert imported == {"operator", "typing", "langgraph"}


@pytest.mark.parametrize("decision", ["approve", "no"])
async def test_s20_the_published_graph_does_the_same_inside_an_actor(decision: str, capsys: pytest.CaptureFixture[str]) -> None:
    config: Any = {"configurable": {"thread_id": decision}}
    published_graph.graph.invoke(INPUT, config)
    published_graph.graph.invoke(Command(resume="Ada"), config)
    alone = published_graph.graph.invoke(Command(resume=decision), config)
    printed = Counter(capsys.readouterr().out.splitlines())
    test = ActorTest(graph_actor(published_graph.graph, name="published"))
    assert (await test.when("run", input=INPUT)).waits == "interrupt"
    assert [each["value"] for each in (await test.when("waiting")).reply] == ["what is your name?"]
    assert (await test.answer("interrupt", "Ada")).waits == "interrupt"
    assert (await test.answer("interrupt", decision)).reply == alone
    assert (await test.when("values")).reply == alone, "without channels of LangGraph's own"
    # No node ran more often than under LangGraph's own saver: nodes in threads, and a graph that a node calls, save through the turn too.
    assert Counter(capsys.readouterr().out.splitlines()) == printed
    assert (await test.when("path")).reply == [
        "parent_node/some_node", "parent_node/human_node", "parent_node", "write_draft", "reviewing/review",
        "reviewing/polish" if decision == "approve" else "reviewing/shorten", "reviewing", "send_mail", "send_mail",
    ]  # fmt: skip


async def test_s20_the_example_of_the_reference_documentation_runs_as_it_stands_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that LangGraph prints under `interrupt`, taken from the library that is installed; it runs itself first."""
    found = re.search(r"```python\n(.*?)```", textwrap.dedent(interrupt.__doc__ or ""), re.DOTALL)
    assert found is not None
    place = tmp_path / "reference_example.py"
    place.write_text(textwrap.dedent(found[1]))
    spec = importlib.util.spec_from_file_location(place.stem, place)
    assert spec is not None
    assert spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("> Received")]
    answer = said.partition(": ")[2]
    test = ActorTest(graph_actor(example.graph, name="reference"))
    assert (await test.when("run", input={"foo": "abc"})).waits == "interrupt"
    (open_one,) = (await test.when("waiting")).reply
    assert open_one["value"] == "what is your age?"
    assert (await test.answer("interrupt", answer)).reply == example.graph.get_state(example.config).values
    assert said in capsys.readouterr().out


async def test_s20_a_subgraph_may_bring_a_checkpointer_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """As the documentation compiles it; what is used is the actor's, so nothing is left in the other."""
    own = InMemorySaver()
    builder: Any = StateGraph(published_graph.State)
    naming = published_graph.naming_builder.compile(checkpointer=own)

    def parent_node(state: published_graph.State) -> dict[str, Any]:
        print("parent_node")
        return {"names": naming.invoke({"topic": state["topic"], "names": []})["names"]}

    builder.add_node("parent_node", parent_node)
    builder.add_edge(START, "parent_node")
    test = ActorTest(graph_actor(builder.compile(checkpointer=own), name="outer"))
    assert (await test.when("run", input=INPUT)).waits == "interrupt"
    assert (await test.answer("interrupt", "Ada")).reply["names"] == ["<news>", "Ada"]
    assert Counter(capsys.readouterr().out.splitlines()) == {"parent_node": 2, "some_node": 1, "human_node": 2}
    assert list(own.list(None)) == []
