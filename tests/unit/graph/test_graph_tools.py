"""Tool calls of a graph that knows of no actor: each is an effect with its key, and a finished one is not done again (S15, S19, S21)."""

import asyncio
import inspect
import os
import re
from collections import Counter
from typing import Any

import msgspec
import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy, interrupt

from actors import Actor, idempotency_key
from actors.errors import StepFailed
from actors.graph import get_actor, graph_actor
from actors.message import Command
from actors.testing import ActorTest
from events.envelope import RecordedEvent
from events.ids import CommandId

STRIDE = int(os.environ.get("CUEBOOK_GRAPH_STRIDE", "1"))
DONE: list[tuple[str, str]] = []
"""(what, idempotency key) of all that really happened; a test clears it first."""


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


def key() -> str:
    """Of the step that this runs in; none outside of an actor."""
    try:
        return idempotency_key()
    except LookupError:
        return ""


def look(city: str) -> str:
    """Look at a city."""
    DONE.append((f"look {city}", key()))
    return f"{city} is there. " * 10


async def paid(cents: int) -> int:
    """A step of `pay`."""
    DONE.append((f"paid {cents}", key()))
    return cents


async def pay(cents: int) -> str:
    """Pay somebody."""
    DONE.append((f"pay {cents}", key()))
    await asyncio.sleep(0)
    return f"paid {await get_actor().step('pay', paid, cents)}"


async def ask(question: str) -> str:
    """Ask a person."""
    DONE.append((f"ask {question}", key()))
    return f"they say {interrupt(question)}"


async def shaky(times: int) -> str:
    """Fails as often."""
    DONE.append(("shaky", key()))
    if [what for what, _ in DONE].count("shaky") <= times:
        raise ConnectionError("shaken")
    return "steady"


def graph(*calls: tuple[str, dict[str, Any]], **node: Any) -> Any:
    """A model that asks for these tools at once, and the node that calls them."""
    wanted = [{"name": name, "args": args, "id": f"call-{number}", "type": "tool_call"} for number, (name, args) in enumerate(calls)]
    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [AIMessage("", tool_calls=wanted, id="ai")]})
    builder.add_node("tools", ToolNode([look, pay, ask, shaky], handle_tool_errors=False), **node)
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    return builder


CALLS = (("look", {"city": "Oslo"}), ("pay", {"cents": 5}), ("look", {"city": "Ulm"}), ("pay", {"cents": 7}))


def steps(events: list[RecordedEvent], outcome: str) -> list[dict[str, Any]]:
    found = [msgspec.json.decode(event.payload) for event in events if event.type == f"step.{outcome}"]
    return [each for each in found if each["name"].startswith(("tool ", "pay"))]


def said(reply: Any) -> list[str]:
    return [each["content"] for each in reply["messages"][1:]]


async def run_again(test: ActorTest, events: list[RecordedEvent], upto: int) -> Any:
    """The turn of the only command of `test`, by a process that finds the first `upto` of its events."""
    body = msgspec.json.encode({"input": {"messages": []}})
    command = Command(
        stream=test.stream, method="run", args=body, command_id=CommandId("test-1"), explicit=False, received_at_us=events[0].time
    )
    turn, _ = test._turn(command, test._fold(0), upto=upto)
    turn.bind(asyncio.current_task())
    return msgspec.json.decode(await turn.decide({"input": {"messages": []}, "thread": "main"}))


async def test_s15_a_tool_that_knows_of_no_actor_is_called_as_a_step_with_its_key() -> None:
    test = ActorTest(graph_actor(graph(*CALLS), name="called"))
    reply = (await test.when("run", input={"messages": []})).reply
    assert said(reply) == ["Oslo is there. " * 10, "paid 5", "Ulm is there. " * 10, "paid 7"]
    started, completed = steps(test._events, "started"), steps(test._events, "completed")
    assert Counter(each["name"] for each in started) == {"tool look": 2, "tool pay": 2, "pay": 2}
    assert len(completed) == len(started)
    assert [each["args"] for each in started if each["name"] == "tool look"] == [[{"city": "Oslo"}], [{"city": "Ulm"}]]
    assert {each["idempotency_key"] for each in started} == {key for _, key in DONE}
    assert len({key for _, key in DONE}) == 6


async def test_s19_a_finished_tool_call_is_not_done_again_and_an_unfinished_one_carries_its_key() -> None:
    test = ActorTest(graph_actor(graph(*CALLS), name="killed"))
    reply = (await test.when("run", input={"messages": []})).reply
    events = list(test._events)
    keys = dict(DONE)
    for upto in range(1, len(events), STRIDE):
        DONE.clear()
        assert said(await run_again(test, events, upto)) == said(reply), upto
        begun = {each["idempotency_key"]: (each["name"], each["key"], each["n"]) for each in steps(events[:upto], "started")}
        ended = {(each["name"], each["key"], each["n"]) for each in steps(events[:upto], "completed")}
        for what, again in DONE:
            assert begun.get(again) not in ended, f"{what} was done again after event {upto}"
            if keys[what] in begun:
                assert again == keys[what], f"{what} was done under another key after event {upto}"


async def test_s20_a_tool_that_asks_a_person_goes_on_with_the_answer_and_its_neighbours_are_not_called_again() -> None:
    test = ActorTest(graph_actor(graph(("look", {"city": "Oslo"}), ("ask", {"question": "go?"})), name="asks"))
    assert (await test.when("run", input={"messages": []})).waits == "interrupt"
    (question,) = (await test.when("waiting")).reply
    assert (question["value"], question["node"]) == ("go?", "tools")
    done = await test.answer("interrupt", "yes")
    assert said(done.reply)[1] == "they say yes"
    assert Counter(what for what, _ in DONE) == {"look Oslo": 1, "ask go?": 2}


async def test_a_failure_of_a_tool_keeps_its_type_for_who_retries_it() -> None:
    calls = (("look", {"city": "Oslo"}), ("shaky", {"times": 2}))
    policy = RetryPolicy(initial_interval=0.001, max_attempts=5, retry_on=ConnectionError)
    test = ActorTest(graph_actor(graph(*calls, retry_policy=policy), name="shaken"))
    reply = (await test.when("run", input={"messages": []})).reply
    assert said(reply)[1] == "steady"
    assert Counter(what for what, _ in DONE) == {"look Oslo": 1, "shaky": 3}, "what had succeeded is not done again for the sake of another"
    events = list(test._events)
    assert [each["type"] for each in steps(events, "failed")] == ["ConnectionError"] * 2
    # A process that finds the failures and their repetitions goes through them, wherever it was cut off behind the last repetition.
    begun = [number for number, event in enumerate(events, 1) if event.type == "step.started" and b"tool shaky" in bytes(event.payload)]
    assert len(begun) == 3
    for upto in range(begun[-1], len(events)):
        DONE.clear()
        assert said(await run_again(test, events, upto)) == said(reply), upto
        assert "look Oslo" not in dict(DONE), upto
    # Without a policy it is the run that fails, with the tool's own error.
    with pytest.raises(ConnectionError):
        await ActorTest(graph_actor(graph(("shaky", {"times": 9})), name="shaken2")).when("run", input={"messages": []})


async def test_s21_a_tool_that_may_happen_once_is_not_repeated() -> None:
    test = ActorTest(graph_actor(graph(("look", {"city": "Oslo"})), name="never", tool_recovery={"look": "never"}))
    await test.when("run", input={"messages": []})
    events = list(test._events)
    cut = next(number for number, event in enumerate(events, 1) if event.type == "step.started" and b"tool look" in bytes(event.payload))
    DONE.clear()
    with pytest.raises(StepFailed) as unknown:
        await run_again(test, events, cut)
    assert (unknown.value.fields["type"], DONE) == ("unknown", [])


async def test_a_graph_that_became_an_actor_still_runs_alone() -> None:
    compiled = graph(("look", {"city": "Oslo"})).compile()
    graph_actor(compiled, name="alone")
    graph_actor(compiled, name="alone2")
    reply = await compiled.ainvoke({"messages": []})
    assert reply["messages"][1].content == "Oslo is there. " * 10
    assert DONE == [("look Oslo", "")]


async def test_a_node_answers_whatever_an_actor_asks_of_its_turn() -> None:
    """`Actor` asks its turn by name; the turn that a node sees is another class, which nothing else would hold to it."""
    asked = set(re.findall(r"self\._turn\.(\w+)", inspect.getsource(Actor)))
    assert {"step", "home", "command", "emit"} <= asked
    found: list[str] = []

    async def look(state: MessagesState) -> dict[str, Any]:
        turn = get_actor()._turn
        found.extend(sorted(name for name in asked if not hasattr(turn, name)))
        return {}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("look", look)
    builder.add_edge(START, "look")
    await ActorTest(graph_actor(builder, name="looking")).when("run", input={"messages": []})
    assert found == []
