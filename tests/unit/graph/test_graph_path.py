"""The path that a run took, read from its events alone, and the pictures of it."""

import asyncio
import re
from itertools import combinations
from typing import Annotated, Any, TypedDict
from xml.etree import ElementTree

import msgspec
import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt

from actors.graph import get_actor, graph_actor
from actors.graph.drawing import Drawing, drawing, mermaid, shape_of
from actors.graph.taken import Taken, taken
from actors.journal import end_event
from actors.message import Command
from actors.testing import ActorTest, recorded
from events.ids import CommandId
from ops.examples.graph import TravelActor
from ops.graph_svg import picture
from tests.support.published_graph import graph as published

TRIP: dict[str, Any] = {"city": "Oslo", "notes": []}


def newest(before: int, new: int) -> int:
    """Several may say it at once."""
    return new


class Count(TypedDict, total=False):
    left: Annotated[int, newest]


async def noted(left: int) -> int:
    """A step."""
    return left


def cycle() -> Any:
    """Three times round, then a person, then the end; a node that is never taken; one that holds a graph which holds a graph."""

    async def work(state: Count) -> Count:
        return {"left": await get_actor().step("note", noted, state["left"] - 1)}

    def ask(state: Count) -> Count:
        return {"left": interrupt("how often again?")}

    def keep(state: Count) -> Count:
        return {"left": state["left"]}

    deepest: Any = StateGraph(Count)
    deepest.add_node("bottom", keep)
    deepest.add_edge(START, "bottom")
    deep: Any = StateGraph(Count)
    deep.add_node("middle", deepest.compile())
    deep.add_node("beside", keep)
    deep.add_edge(START, "middle")
    deep.add_edge(START, "beside")
    builder: Any = StateGraph(Count)
    for name, node in (("work", work), ("rest", keep), ("ask", ask), ("deep", deep.compile()), ("never", keep), ("many", keep)):
        builder.add_node(name, node)
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", lambda state: "rest" if state["left"] > 0 else "ask", ["rest", "ask", "never"])
    builder.add_edge("rest", "work")
    builder.add_conditional_edges("ask", lambda state: "work" if state["left"] else "deep", ["work", "deep"])
    builder.add_conditional_edges("deep", lambda state: [Send("many", {"left": n}) for n in range(3)], ["many"])
    return builder


def path_of(test: ActorTest) -> Taken:
    (run,) = taken(test._events)
    return run


def counts(found: Drawing) -> dict[tuple[str, str], int]:
    return {(edge.source, edge.target): edge.count for edge in found.edges if edge.count}


async def cycled() -> tuple[ActorTest, Any]:
    actor = graph_actor(cycle(), name="cycle")
    test = ActorTest(actor)
    assert (await test.when("run", input={"left": 3})).waits == "interrupt"
    return test, shape_of(actor._compiled)


async def test_the_path_is_read_from_the_events_of_a_run_that_waits() -> None:
    test, shape = await cycled()
    run = path_of(test)
    assert [(visit.order, visit.node) for visit in run.visits] == [(1, "work"), (2, "rest"), (3, "work"), (4, "rest"), (5, "work")]
    assert [visit.effects for visit in run.visits[:2]] == [{"note": 1}, {}]
    assert [(each.node, each.value, each.outcome) for each in run.interrupts] == [("ask", "how often again?", "open")]
    assert run.status == "waiting"
    found = drawing("t", run, shape)
    assert counts(found) == {("__start__", "work"): 1, ("work", "rest"): 2, ("rest", "work"): 2, ("work", "ask"): 1}
    states = {node.name: (node.orders, node.state) for node in found.nodes}
    assert (states["work"], states["ask"], states["never"]) == (([1, 3, 5], "taken"), ([], "waiting"), ([], ""))


async def test_the_path_goes_on_behind_the_answer_and_into_graphs_inside_graphs() -> None:
    test, shape = await cycled()
    await test.answer("interrupt", 1)
    await test.answer("interrupt", 0)
    run = path_of(test)
    assert [visit.node for visit in run.visits][5:10] == ["ask", "work", "ask", *sorted(["deep/beside", "deep/middle/bottom"])]
    assert [(each.outcome, each.answer) for each in run.interrupts] == [("answered", 1), ("answered", 0)]
    assert (run.status, run.under_way) == ("done", [])
    found = drawing("t", run, shape)
    went = counts(found)
    assert went["ask", "work"] == 1
    assert went["many", "__end__"] == 3
    assert [count for (source, _), count in went.items() if source.startswith("deep/")]
    assert [edge for edge in went if edge[1].startswith("deep/")]
    assert ("work", "never") not in went
    assert found.inner["deep/middle"]
    # Without the code, what was taken is all there is.
    alone = drawing("t", run)
    assert {node.name for node in alone.nodes} >= {"work", "deep/middle/bottom", "many"}
    assert "never" not in {node.name for node in alone.nodes}
    assert {edge.source for edge in alone.edges} | {edge.target for edge in alone.edges} <= {node.name for node in alone.nodes}


@pytest.mark.parametrize("upto", [8, 12])
async def test_a_node_that_had_begun_and_not_ended_is_under_way(upto: int) -> None:
    test, shape = await cycled()
    events = test._events
    cut = [number for number, event in enumerate(events) if event.type == "step.started" and b'"note"' in bytes(event.payload)][upto // 8]
    (run,) = taken(events[: cut + 1])
    assert (run.status, run.under_way) == ("under way", ["work"])
    assert {node.name: node.state for node in drawing("t", run, shape).nodes}["work"] == "under way"


async def test_the_node_that_a_run_failed_in_is_marked() -> None:
    def fail(state: Count) -> Count:
        raise LookupError("no such thing")

    builder: Any = StateGraph(Count)
    builder.add_node("fine", lambda state: {"left": 1})
    builder.add_node("wrong", fail)
    builder.add_edge(START, "fine")
    builder.add_edge("fine", "wrong")
    test = ActorTest(graph_actor(builder, name="failing"))
    with pytest.raises(LookupError):
        await test.when("run", input={"left": 3})
    turn, driver = test._turn(a_command(test), test._fold(0))
    turn.bind(asyncio.current_task())
    with pytest.raises(LookupError):
        await turn.decide({"input": {"left": 3}, "thread": "main"})
    ended = recorded(test.stream, 99, end_event("turn.failed", {}, error="LookupError: no such thing"), "test-9", 0)
    (run,) = taken([*driver.journal, ended])
    found = drawing("t", run)
    assert (run.status, {node.name: node.state for node in found.nodes}["wrong"]) == ("failed", "failed")
    assert found.caption.endswith("LookupError: no such thing")


def a_command(test: ActorTest) -> Command:
    body = msgspec.json.encode({"input": {"left": 3}})
    return Command(stream=test.stream, method="run", args=body, command_id=CommandId("test-9"), explicit=False, received_at_us=1)


async def test_each_run_of_each_thread_is_one_path_and_a_resume_goes_on_with_it() -> None:
    test = ActorTest(graph_actor(cycle(), name="cycles", answer_timeout_s=60.0))
    await test.when("run", input={"left": 1})
    await test.expire("interrupt")
    (question,) = (await test.when("waiting")).reply
    await test.when("run", input={"left": 1}, thread="other")
    await test.when("resume", answers={question["id"]: 0})
    first, other = taken(test._events)
    assert (first.thread, first.status, len(first.command_ids)) == ("main", "done", 2)
    assert (other.thread, other.status, [visit.node for visit in other.visits]) == ("other", "waiting", ["work"])
    assert [(each.outcome, each.answer) for each in first.interrupts] == [("answered", 0)]


def rectangles(svg: str) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The nodes of a picture, each with its sides."""
    found = []
    for group in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        for each in group.iter("{http://www.w3.org/2000/svg}rect"):
            if (each.get("class") or "").startswith("node"):
                x, y, wide, high = (float(each.get(name) or 0) for name in ("x", "y", "width", "height"))
                title = group.find("{http://www.w3.org/2000/svg}title")
                found.append(((title.text if title is not None else None) or "", (x, y, x + wide, y + high)))
    return found


async def pictures() -> list[tuple[str, Drawing]]:
    test, shape = await cycled()
    await test.answer("interrupt", 0)
    trip = ActorTest(TravelActor)
    await trip.when("run", input=TRIP)
    actor = graph_actor(published, name="drawn")
    nothing = Taken(thread="main", command_ids=["c"], began_us=0, ended_us=0)
    return [
        ("cycle", drawing("a <title> & more", path_of(test), shape)), ("alone", drawing("t", path_of(test))),
        ("trip", drawing("t", path_of(trip), shape_of(TravelActor._compiled))),
        ("nothing", drawing("t", nothing, shape_of(actor._compiled))),
    ]  # fmt: skip


async def test_no_node_of_a_picture_lies_on_another_or_outside() -> None:
    for name, found in await pictures():
        svg = picture(found)
        root = ElementTree.fromstring(svg)
        boxes = rectangles(svg)
        assert len(boxes) == len(found.nodes), name
        for (one, a), (other, b) in combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], f"{name}: {one} lies on {other}"
        width, height = float(root.get("width") or 0), float(root.get("height") or 0)
        assert all(x >= 0 and y >= 0 and far <= width and low <= height for _, (x, y, far, low) in boxes), name
        drawn = [each for each in root.iter("{http://www.w3.org/2000/svg}path") if "edge" in (each.get("class") or "")]
        assert len(drawn) == len([edge for edge in found.edges if edge.source != edge.target]), name
        points = [float(number) for each in drawn for number in re.findall(r"-?\d+\.\d+", each.get("d") or "")]
        assert min(points) >= 0, f"{name}: an edge leaves the picture"
        assert max(points) <= max(width, height), f"{name}: an edge leaves the picture"
        assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


async def test_a_flowchart_names_each_node_once_and_marks_the_path() -> None:
    for name, found in await pictures():
        lines = mermaid(found).splitlines()
        declared = [match[1] for line in lines if (match := re.match(r'\s+(n\d+)[\[(]', line))]
        assert sorted(declared) == sorted(set(declared)), name
        assert len(declared) == len(found.nodes), name
        arrows = [line for line in lines if re.search(r"(-->|==>|-\.->)", line)]
        assert len(arrows) == len(found.edges), name
        assert len([line for line in arrows if "==>" in line]) == len(counts(found)), name
        assert lines.count("    end") >= 1 or not any("/" in node.name for node in found.nodes), name
    drawn = mermaid((await pictures())[2][1])
    assert '"1: plan"' in drawn
    assert "book a trip to Oslo?" in drawn
