"""A LangGraph graph inside an actor: nodes are steps, interrupts are waits (S15, S19, S20)."""

from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from actors.graph import graph_actor
from actors.testing import ActorTest
from ops.examples.graph import TravelActor

INPUT: dict[str, Any] = {"city": "Oslo", "notes": []}


async def test_s20_a_graph_with_a_subgraph_waits_at_its_interrupt_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("TRIP_LEDGER", str(ledger))
    test = ActorTest(TravelActor)
    first = await test.when("run", input=INPUT)
    assert first.waits == "interrupt"
    (open_one,) = (await test.when("waiting")).reply
    assert open_one["value"] == {"question": "book a trip to Oslo?"}
    assert (await test.when("path")).reply[0] == "plan"
    done = await test.answer("interrupt", "yes")
    assert done.reply["booked"] is True
    # What ActorTest itself runs again, and what the answer lets go on, repeats no node that had finished.
    said = ledger.read_text().splitlines()
    assert sorted(said) == sorted(set(said))
    path = (await test.when("path")).reply
    assert path[0] == "plan"
    assert set(path[1:3]) == {"research/look_up", "research/compare"}
    assert path[3:6] == ["research/ask_person", "research", "book"]
    assert path[6:] == ["tell", "tell"]
    drawn = (await test.when("drawing")).reply
    assert '["1: plan"]' in drawn
    assert '["7, 8: tell"]' in drawn
    assert 'subgraph g_research_["5: research"]' in drawn
    assert (await test.when("values")).reply["city"] == "Oslo"


async def test_s20_an_answer_of_another_type_is_refused_and_the_interrupt_stays_open() -> None:
    test = ActorTest(TravelActor)
    await test.when("run", input=INPUT)
    with pytest.raises(Exception, match="interrupt"):
        await test.answer("interrupt", 7)
    assert (await test.when("waiting")).reply
    assert (await test.answer("interrupt", "no")).reply["booked"] is False


async def test_messages_of_one_run_are_there_in_the_next() -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("count", lambda state: {"messages": [("ai", f"{len(state['messages'])} so far")]})
    builder.add_edge(START, "count")
    test = ActorTest(graph_actor(builder, name="counter"))
    await test.when("run", input={"messages": [{"role": "user", "content": "hi"}]})
    reply = (await test.when("run", input={"messages": [{"role": "user", "content": "again"}]})).reply
    assert [each["content"] for each in reply["messages"]] == ["hi", "1 so far", "again", "3 so far"]


