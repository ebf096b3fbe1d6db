"""What nodes ask of the actor that their graph runs in: journaled under the node, found by its re-run and by no other's (S15, S19)."""

import ast
import asyncio
import inspect
import operator
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy, Send, interrupt

from actors import actor as actor_module
from actors import idempotency_key
from actors.errors import BadPayload, StepFailed
from actors.graph import get_actor, graph_actor
from actors.message import Command
from actors.testing import ActorTest
from events.envelope import RecordedEvent
from events.errors import ConfigurationError
from events.ids import CommandId

STRIDE = int(os.environ.get("CUEBOOK_GRAPH_STRIDE", "5"))
"""1 = die after each event; all of them take most of a minute in asyncio's debug mode."""
DONE: list[tuple[str, str]] = []
"""(what, idempotency key) of each effect that really happened; a test clears it first."""


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


class Notes(TypedDict, total=False):
    notes: Annotated[list[str], operator.add]


async def effect(what: str) -> str:
    """Step: an effect on the world."""
    DONE.append((what, idempotency_key()))
    if what == "shaky" and [each for each, _ in DONE].count("shaky") == 1:
        raise OSError("shaken")
    return what


def node(*names: str) -> Callable[[Notes], Any]:
    """A node that has these effects, all under the same name of a step."""

    async def run(state: Notes) -> Notes:
        actor = get_actor()
        return {"notes": [f"{await actor.step('effect', effect, name)} {actor.new_id()[:6]} {actor.random():.3f}" for name in names]}

    return run


async def friend(state: Any) -> Notes:
    return {"notes": [await get_actor().step("effect", effect, f"told {state['name']}")]}


def plain_node(state: Notes) -> Notes:
    return {"notes": ["plain"]}


def big() -> Any:
    """One after another, at once, below, many of a kind, plain, and one that is tried again."""
    inner: Any = StateGraph(Notes)
    inner.add_node("deep", node("deep", "deeper"))
    inner.add_node("deepest", node("deepest"))
    inner.add_edge(START, "deep")
    inner.add_edge("deep", "deepest")
    graph: Any = StateGraph(Notes)
    graph.add_node("first", node("one", "two"))
    graph.add_node("left", node("left", "left too"))
    graph.add_node("right", node("right"))
    graph.add_node("below", inner.compile())
    graph.add_node("plain", plain_node)
    graph.add_node("again", node("shaky", "steady"), retry_policy=RetryPolicy(initial_interval=0.001, retry_on=StepFailed))
    graph.add_node("tell", friend)
    graph.add_edge(START, "first")
    graph.add_edge("first", "left")
    graph.add_edge("first", "right")
    graph.add_edge(["left", "right"], "below")
    graph.add_edge("below", "plain")
    graph.add_edge("plain", "again")
    graph.add_conditional_edges("again", lambda state: [Send("tell", {"name": name}) for name in ("ada", "bob")], ["tell"])
    return graph


def effects(events: list[RecordedEvent], outcome: str) -> dict[str, dict[str, Any]]:
    """The records of that outcome of the nodes' own steps, by what was to be done."""
    found = [msgspec.json.decode(event.payload) for event in events if event.type == f"step.{outcome}"]
    return {each["args"][0] if "args" in each else each["result"]: each for each in found if each["name"] == "effect"}


def kept(notes: list[str], begun: Iterable[str]) -> list[str]:
    """The notes about these effects."""
    return sorted(note for note in notes if note.rsplit(" ", 2)[0] in begun)


async def run_again(test: ActorTest, events: list[RecordedEvent], upto: int) -> Any:
    """The turn of the only command of `test`, by a process that finds the first `upto` of its events."""
    body = msgspec.json.encode({"input": {"notes": []}})
    command = Command(
        stream=test.stream, method="run", args=body, command_id=CommandId("test-1"), explicit=False, received_at_us=events[0].time
    )
    turn, _ = test._turn(command, test._fold(0), upto=upto)
    turn.bind(asyncio.current_task())
    return msgspec.json.decode(await turn.decide({"input": {"notes": []}, "thread": "main"}))


async def test_s19_a_graph_killed_after_any_event_of_its_journal_repeats_only_what_was_under_way() -> None:
    test = ActorTest(graph_actor(big(), name="big"))
    reply = (await test.when("run", input={"notes": []})).reply
    shaken = Counter(what for what, _ in DONE)
    assert shaken.pop("shaky") == 2
    assert set(shaken.values()) == {1}
    events = list(test._events)
    for upto in range(1, len(events), STRIDE):
        DONE.clear()
        again = await run_again(test, events, upto)
        said = [sorted(note.split(" ")[0] for note in each["notes"]) for each in (reply, again)]
        assert said[0] == said[1], upto
        begun, done = effects(events[:upto], "started"), effects(events[:upto], "completed")
        for what, key in DONE:
            assert what not in done, f"{what} was done again after event {upto}"
            if what in begun and what != "shaky":
                assert key == begun[what]["idempotency_key"], f"{what} was done under another key after event {upto}"
        # Ids and random numbers of a node do not depend on nodes that do not run again.
        assert kept(again["notes"], begun) == kept(reply["notes"], begun), upto
    made = [note.split(" ")[-2] for note in reply["notes"] if not note.startswith(("told", "plain"))]
    assert len(set(made)) == len(set(reply["notes"])) - 3


async def test_s19_what_a_node_did_before_its_interrupt_is_not_done_again_behind_it() -> None:
    async def ask(state: Notes) -> Notes:
        before = await get_actor().step("effect", effect, "before")
        answer = interrupt("go on?")
        return {"notes": [before, answer, await get_actor().step("effect", effect, "behind")]}

    graph: Any = StateGraph(Notes)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    test = ActorTest(graph_actor(graph, name="asking"))
    assert (await test.when("run", input={"notes": []})).waits == "interrupt"
    done = await test.answer("interrupt", "yes")
    assert done.reply == {"notes": ["before", "yes", "behind"]}
    assert [what for what, _ in DONE] == ["before", "behind"]


async def test_s19_two_interrupts_at_once_find_what_their_nodes_did_before_them() -> None:
    def asking(name: str) -> Any:
        async def ask(state: Notes) -> Notes:
            before = await get_actor().step("effect", effect, name)
            return {"notes": [f"{before} {interrupt(name)}"]}

        return ask

    graph: Any = StateGraph(Notes)
    for name in ("left", "right"):
        graph.add_node(name, asking(name))
        graph.add_edge(START, name)
    test = ActorTest(graph_actor(graph, name="both"))
    assert (await test.when("run", input={"notes": []})).waits == "interrupt"
    assert [each["value"] for each in (await test.when("waiting")).reply] == ["left", "right"]
    assert (await test.answer("interrupt", "yes")).waits == "interrupt"
    done = await test.answer("interrupt", "no")
    assert done.reply == {"notes": ["left yes", "right no"]}
    assert sorted(what for what, _ in DONE) == ["left", "right"]


async def test_a_node_cannot_do_what_would_be_lost_with_a_crash() -> None:
    async def wrong(state: Notes) -> Notes:
        actor = get_actor()
        said = []
        for act in (
            lambda: actor.emit(None),  # type: ignore[arg-type]  # refused before anybody looks at what it is
            lambda: actor.ref("other", "1").tell.do(),
            lambda: actor.schedule(1, "run"),
            lambda: actor.cancel("other", "1", "c"),
        ):
            try:
                act()
            except BadPayload as refused:
                said.append(refused.message.partition(":")[0])
        try:
            await actor.wait_for("anything")
        except BadPayload as refused:
            said.append(refused.message.partition(":")[0])
        return {"notes": said}

    graph: Any = StateGraph(Notes)
    graph.add_node("wrong", wrong)
    graph.add_edge(START, "wrong")
    reply = (await ActorTest(graph_actor(graph, name="wrong")).when("run", input={"notes": []})).reply
    assert reply == {"notes": ["emit", "tell", "schedule", "tell", "wait_for"]}


async def test_get_actor_says_where_it_can_be_had() -> None:
    with pytest.raises(ConfigurationError, match="inside an actor"):
        get_actor()

    def in_a_thread(state: Notes) -> Notes:
        try:
            get_actor()
        except ConfigurationError as refused:
            return {"notes": [refused.message]}
        return {"notes": []}

    graph: Any = StateGraph(Notes)
    graph.add_node("in_a_thread", in_a_thread)
    graph.add_edge(START, "in_a_thread")
    (note,) = (await ActorTest(graph_actor(graph, name="threaded")).when("run", input={"notes": []})).reply["notes"]
    assert "async def" in note


async def test_a_node_asks_other_actors_and_speaks_on_cue_chunk() -> None:
    async def asks(state: Notes) -> Notes:
        actor = get_actor()
        actor.chunk("asking")
        return {"notes": [await actor.ref("oracle", "1").say(text="a"), await actor.ref("oracle", "1").say(text="b"), actor.id]}

    graph: Any = StateGraph(Notes)
    graph.add_node("asks", asks)
    graph.add_edge(START, "asks")
    asked: list[str] = []

    def say(text: str) -> str:
        asked.append(text)
        return text.upper()

    test = ActorTest(graph_actor(graph, name="asks"), "me", answers={"oracle.say": say})
    done = await test.when("run", input={"notes": []})
    assert done.reply == {"notes": ["A", "B", "me"]}
    assert asked == ["a", "b"]
    assert done.chunks == [{"graph": [], "node": "asks", "said": "asking"}]
    started = [msgspec.json.decode(event.payload) for event in test._events if event.type == "ask.started"]
    assert len({each["command_id"] for each in started}) == 2
    assert all(each["key"].startswith("asks:") for each in started)


async def test_s15_a_node_has_whatever_an_actor_asks_its_turn_for() -> None:
    """All of it, also what an actor came to ask for later; what a node has not is refused with a reason."""
    tree = ast.parse(inspect.getsource(actor_module))
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self._turn"}
    assert asked >= {"step", "models", "home"}
    lacking: list[str] = []

    async def looking(state: Notes) -> Notes:
        turn = get_actor()._turn
        lacking.extend(name for name in sorted(asked) if not hasattr(turn, name))
        return {"notes": ["looked"]}

    builder: Any = StateGraph(Notes)
    builder.add_node("looking", looking)
    builder.add_edge(START, "looking")
    assert (await ActorTest(graph_actor(builder, name="looker")).when("run", input={})).reply == {"notes": ["looked"]}
    assert lacking == []
