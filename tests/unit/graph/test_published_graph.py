"""A graph in the shape of LangGraph's public documentation, with interrupts and subgraphs, runs unchanged inside an actor (design.md 8)."""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command

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
