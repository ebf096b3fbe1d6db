"""Real LangGraph programs on an `EventLogSaver` (S38): what they store, and that every one of their past states can be read."""

import asyncio
import operator
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, StateSnapshot, interrupt

from actors.graph import EventLogSaver, ThreadWriteError
from events.envelope import NewEvent
from events.errors import ConfigurationError
from events.ids import StreamId, Version
from events.keeping.verify import verify
from events.log_directory import create_log
from events.sqlite.sqlite_library import open_reader
from events.sqlite.store_sqlite import SqliteShard
from events.store import Append


def config(thread_id: str = "t", **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, **more}}


def text(turn: int, who: str) -> str:
    """512 bytes that say something else each time."""
    return (f"{who} {turn}: " + "".join(chr(97 + (turn * 7919 + index * index) % 26) for index in range(512)))[:512]


def conversation() -> Any:
    """One node that answers: a turn is 1 KB of new text."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(text(len(state["messages"]), "model"))]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", answer)
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def rows(folder: Path) -> list[tuple[str, int]]:
    """Type and size of every event."""
    connection = open_reader(folder / "log" / "shard-0.db")
    found = connection.execute(
        "SELECT type, length(CAST(payload AS BLOB)) + coalesce(length(summary), 0) FROM events ORDER BY position"
    ).fetchall()
    connection.close()
    return [(str(type_), int(size)) for type_, size in found]


@pytest.mark.slow
async def test_s38_a_conversation_of_200_turns_stores_at_most_six_times_its_content(tmp_path: Path) -> None:
    folder, turns = tmp_path / "threads", 200
    async with EventLogSaver.open(folder, durability="process") as saver:
        graph = conversation().compile(checkpointer=saver)
        for turn in range(turns):
            await graph.ainvoke({"messages": [HumanMessage(text(turn, "user"))]}, config())
    assert stored_bytes(folder) <= 6 * turns * 1024
    assert verify(folder / "log") == []
    async with EventLogSaver.open(folder) as again:
        listed = [each async for each in again.alist(config())]
        assert len(listed) == 3 * turns
        counts = [len(each.checkpoint["channel_values"].get("messages", [])) for each in reversed(listed)]
        assert counts == sorted(counts)
        assert counts[-1] == 2 * turns
        for each in (listed[0], listed[-1], listed[turns]):
            found = await again.aget_tuple(each.config)
            assert found == each


@pytest.mark.slow
async def test_s38_turn_1000_writes_what_turn_10_wrote(tmp_path: Path) -> None:
    """The turns themselves are LangGraph's; its checkpoints are made here, because a thousand turns of it take a minute."""
    folder = tmp_path / "threads"
    messages: list[Any] = []
    versions: dict[str, int] = {}
    parent: dict[str, Any] = {}
    async with EventLogSaver.open(folder, durability="process") as saver:
        for turn in range(1_000):
            for who, kind in (("user", HumanMessage), ("model", AIMessage)):
                messages = [*messages, kind(text(turn, who), id=f"{who}-{turn:032}")]
                versions = {"messages": 2 * turn + 1000, "branch:to:model": 2 * turn + 1000}
                checkpoint = empty_checkpoint()
                checkpoint["channel_values"] = {"messages": messages}
                checkpoint["channel_versions"] = dict(versions)
                checkpoint["versions_seen"] = {"model": {"branch:to:model": versions["branch:to:model"]}}
                place = config(checkpoint_ns="", **parent)
                stored = await saver.aput(place, checkpoint, {"source": "loop", "step": 1000 + turn}, versions)  # type: ignore[arg-type]
                await saver.aput_writes(stored, [("messages", [messages[-1]])], f"{turn:036}", "~__pregel_pull, model")
                parent = {"checkpoint_id": stored["configurable"]["checkpoint_id"]}
    sizes = [size for _, size in rows(folder)]
    tenth, last = sum(sizes[40:80]) / 10, sum(sizes[-40:]) / 10
    assert abs(last - tenth) <= 0.1 * tenth
    async with EventLogSaver.open(folder) as again:
        found = await again.aget_tuple(config(checkpoint_ns=""))
        assert found is not None
        assert found.checkpoint["channel_values"]["messages"] == messages


class Counts(TypedDict):
    seen: Annotated[list[str], operator.add]
    answer: str


def _approving() -> Any:
    def ask(state: Counts) -> dict[str, Any]:
        return {"seen": ["asked"], "answer": interrupt({"question": "go on?"})}

    def work(state: Counts) -> dict[str, Any]:
        return {"seen": [f"did {state['answer']}"]}

    builder: Any = StateGraph(Counts)
    builder.add_node("ask", ask)
    builder.add_node("work", work)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "work")
    return builder


async def test_an_interrupt_survives_a_restart_and_is_resumed(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = _approving().compile(checkpointer=saver)
        stopped = await graph.ainvoke({"seen": [], "answer": ""}, config())
        assert stopped["__interrupt__"][0].value == {"question": "go on?"}
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = _approving().compile(checkpointer=saver)
        state = await graph.aget_state(config())
        assert state.next == ("ask",)
        assert state.tasks[0].interrupts[0].value == {"question": "go on?"}
        done = await graph.ainvoke(Command(resume="yes"), config())
    assert done == {"seen": ["asked", "did yes"], "answer": "yes"}


def test_sync_programs_work_with_a_plain_with(tmp_path: Path) -> None:
    with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = _approving().compile(checkpointer=saver)
        graph.invoke({"seen": [], "answer": ""}, config())
        done = graph.invoke(Command(resume="yes"), config())
        assert done["seen"] == ["asked", "did yes"]
        history = list(graph.get_state_history(config()))
        assert history[0].values["seen"] == ["asked", "did yes"]
        assert saver.threads() == ["t"]
        saver.copy_thread("t", "t2")
        assert graph.get_state(config("t2")).values == done
        saver.prune(["t"])
        assert len(list(saver.list(config()))) == 1
        saver.delete_thread("t")
        assert list(saver.list(config())) == []
        assert graph.get_state(config("t2")).values == done
        assert saver.threads() == ["t2"]
        saver.check_write_ownership()


async def test_time_travel_forks_the_history_and_both_branches_stay(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = conversation().compile(checkpointer=saver)
        for turn in range(3):
            await graph.ainvoke({"messages": [HumanMessage(text(turn, "user"))]}, config())
        history = [each async for each in graph.aget_state_history(config())]
        middle = next(each for each in history if len(each.values["messages"]) == 4 and not each.next)
        await graph.ainvoke({"messages": [HumanMessage("another way")]}, middle.config)
        now = await graph.aget_state(config())
        assert [each.content[:7] for each in now.values["messages"]][4] == "another"
        assert len(now.values["messages"]) == 6
        for each in history:
            again = await graph.aget_state(each.config)
            assert again.values == each.values
            assert again.next == each.next


async def test_a_list_that_is_edited_or_shortened_is_read_as_it_was(tmp_path: Path) -> None:
    def edit(state: MessagesState) -> dict[str, Any]:
        first = state["messages"][0]
        first.content = "redacted in place"
        return {"messages": [first, RemoveMessage(id=str(state["messages"][1].id))]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("edit", edit)
    builder.add_edge(START, "edit")
    given = [HumanMessage(text(0, "user"), id="a" * 36), HumanMessage("second", id="b" * 36), HumanMessage("third", id="c" * 36)]
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = builder.compile(checkpointer=saver)
        await graph.ainvoke({"messages": given}, config(), durability="sync")
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = builder.compile(checkpointer=saver)
        assert [each.content for each in (await graph.aget_state(config())).values["messages"]] == ["redacted in place", "third"]
        before = [each async for each in graph.aget_state_history(config())][1]
        assert [each.content for each in before.values["messages"]] == [text(0, "user"), "second", "third"]


async def test_subgraphs_fan_out_and_exit_durability(tmp_path: Path) -> None:
    class Item(TypedDict):
        name: str

    def spread(state: Counts) -> Sequence[Send]:
        return [Send("one", {"name": name}) for name in "abc"]

    def one(state: Item) -> dict[str, Any]:
        return {"seen": [state["name"]]}

    inner: Any = StateGraph(Counts)
    inner.add_node("deep", lambda state: {"answer": interrupt("deep?")})
    inner.add_edge(START, "deep")
    builder: Any = StateGraph(Counts)
    builder.add_node("one", one)
    builder.add_node("sub", inner.compile())
    builder.add_conditional_edges(START, spread, ["one"])
    builder.add_edge("one", "sub")

    async def run(saver: BaseCheckpointSaver[Any], durability: Any) -> tuple[Any, ...]:
        graph = builder.compile(checkpointer=saver)
        place = config(durability)
        await graph.ainvoke({"seen": [], "answer": ""}, place, durability=durability)
        inside = (await graph.aget_state(place, subgraphs=True)).tasks[0].state
        assert isinstance(inside, StateSnapshot)
        done = await graph.ainvoke(Command(resume="42"), place, durability=durability)
        history = [(each.values, each.next, each.metadata) async for each in graph.aget_state_history(place)]
        return inside.values, inside.next, done, history

    async with EventLogSaver.open(tmp_path / "threads") as saver:
        for durability in ("sync", "async", "exit"):
            assert await run(saver, durability) == await run(InMemorySaver(), durability)


async def test_a_delta_channel_is_read_back_through_pruned_checkpoints(tmp_path: Path) -> None:
    def extend(before: list[str], new: Sequence[Any]) -> list[str]:
        return [*before, *(item for each in new for item in (each if isinstance(each, list) else [each]))]

    class State(TypedDict):
        log: Annotated[list[str], DeltaChannel(extend)]

    builder: Any = StateGraph(State)
    builder.add_node("say", lambda state: {"log": [f"said {len(state['log'])}"]})
    builder.add_edge(START, "say")
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = builder.compile(checkpointer=saver)
        for turn in range(4):
            await graph.ainvoke({"log": [f"turn {turn}"]}, config())
        expected = (await graph.aget_state(config())).values["log"]
        assert len(expected) == 8
        await saver.aprune(["t"])
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = builder.compile(checkpointer=saver)
        assert (await graph.aget_state(config())).values["log"] == expected


async def test_s33_a_copy_stores_nothing_twice_and_goes_its_own_way(tmp_path: Path) -> None:
    folder = tmp_path / "threads"
    async with EventLogSaver.open(folder, durability="process") as saver:
        graph = conversation().compile(checkpointer=saver)
        for turn in range(20):
            await graph.ainvoke({"messages": [HumanMessage(text(turn, "user"))]}, config())
        before = len(rows(folder))
        await saver.acopy_thread("t", "t2")
        await saver.acopy_thread("t2", "ein Faden / drei")
        added = rows(folder)[before:]
        assert [kind for kind, _ in added] == ["stream.forked", "stream.forked", "graph.thread"]
        assert sum(size for _, size in added) < 1_000
        await graph.ainvoke({"messages": [HumanMessage("only here")]}, config("t2"))
        await saver.adelete_thread("t")
        with pytest.raises(ThreadWriteError, match="not empty"):
            await saver.acopy_thread("t2", "ein Faden / drei")
    async with EventLogSaver.open(folder) as saver:
        graph = conversation().compile(checkpointer=saver)
        lengths = [len((await graph.aget_state(config(each))).values.get("messages", ())) for each in ("t", "t2", "ein Faden / drei")]
        assert lengths == [0, 42, 40]
        assert await saver.athreads() == ["t2", "ein Faden / drei"]
        # The source that was deleted can become a copy of its copy.
        await saver.acopy_thread("t2", "t")
        assert len((await graph.aget_state(config())).values["messages"]) == 42
        assert len([each async for each in saver.alist(None)]) == 63 + 60 + 63
    assert verify(folder / "log") == []


async def test_all_threads_are_listed_newest_first_and_the_index_is_made_again_where_it_was_lost(tmp_path: Path) -> None:
    folder = tmp_path / "threads"
    async with EventLogSaver.open(folder, durability="process") as saver:
        graph = conversation().compile(checkpointer=saver)
        for turn in range(2):
            for name in ("a", "b c"):
                await graph.ainvoke({"messages": [HumanMessage(text(turn, name))]}, config(name, user=name), durability="sync")
        await saver.acopy_thread("a", "d")
        listed = [each async for each in saver.alist(None)]
    names = [each.config["configurable"]["thread_id"] for each in listed]
    assert names == ["d"] * 6 + ["b c"] * 3 + ["a"] * 3 + ["b c"] * 3 + ["a"] * 3

    async def same(saver: EventLogSaver) -> None:
        assert [each async for each in saver.alist(None)] == listed
        assert [each async for each in saver.alist(None, limit=7)] == listed[:7]
        of_one = [each async for each in saver.alist(None, filter={"user": "b c", "step": 1})]
        assert of_one == [each for each in listed if each.metadata.get("step") == 1 and each.config["configurable"]["thread_id"] == "b c"]

    async with EventLogSaver.open(folder) as again:
        await same(again)
    connection = sqlite3.connect(folder / "log" / "shard-0.db")
    connection.executescript("DROP TABLE graph_checkpoints; DROP TABLE graph_threads")
    connection.close()
    async with EventLogSaver.open(folder) as again:
        await same(again)


async def test_runs_are_deleted_wherever_they_are_also_in_copies(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path / "threads", durability="process") as saver:
        graph = conversation().compile(checkpointer=saver)
        for run in ("run-1", "run-2"):
            await graph.ainvoke({"messages": [HumanMessage(run)]}, {**config(), "metadata": {"run_id": run}})
        await saver.acopy_thread("t", "t2")
        await saver.adelete_for_runs(["run-2"])
        for name in ("t", "t2"):
            assert {each.metadata["run_id"] async for each in saver.alist(config(name))} == {"run-1"}
            assert len((await graph.aget_state(config(name))).values["messages"]) == 2


async def test_many_threads_at_once_share_commits(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = conversation().compile(checkpointer=saver)
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(graph.ainvoke({"messages": [HumanMessage(text(number, "user"))]}, config(f"t{number}")))
        statistics = saver.statistics()
        assert statistics.largest > 1
        assert statistics.commits < statistics.groups
        for number in range(20):
            assert (await graph.aget_state(config(f"t{number}"))).values["messages"][0].content == text(number, "user")


async def test_a_folder_of_a_deployment_is_refused(tmp_path: Path) -> None:
    create_log(tmp_path / "many", 4)
    with pytest.raises(ConfigurationError, match="4 shards"):
        async with EventLogSaver.open(tmp_path / "many"):
            pass
    create_log(tmp_path / "one", 1)
    store = await SqliteShard.open(tmp_path / "one", 0)
    owner = await store.take("worker")
    opened = NewEvent(type="account.opened", payload=b"{}")
    await store.append([Append(stream=StreamId("account/1"), expected_version=Version(0), command_id=None, events=[opened])])
    with pytest.raises(ConfigurationError, match="account"):
        async with EventLogSaver.open(tmp_path / "one"):
            pass
    # It was looked at before it was taken: its owner has it still.
    assert (await store.info()).owner_epoch == owner.epoch
    await store.close()


async def test_s29_an_erased_thread_is_gone_and_takes_nothing_more(tmp_path: Path) -> None:
    folder = tmp_path / "threads"
    async with EventLogSaver.open(folder) as saver:
        graph = conversation().compile(checkpointer=saver)
        for name in ("t", "other"):
            await graph.ainvoke({"messages": [HumanMessage(f"secret of {name}")]}, config(name))
    shard = await SqliteShard.open(folder / "log", 0)
    await shard.take("eraser")
    await shard.erase(StreamId("thread/t"), "test")
    await shard.close()
    async with EventLogSaver.open(folder) as saver:
        assert await saver.aget_tuple(config()) is None
        assert await saver.athreads() == ["other"]
        assert {each.config["configurable"]["thread_id"] async for each in saver.alist(None)} == {"other"}
        with pytest.raises(ThreadWriteError, match="erased"):
            await saver.aput(config(checkpoint_ns=""), empty_checkpoint(), {"source": "input"}, {})
    assert verify(folder / "log") == []


@pytest.mark.parametrize("thread_id", ["plain", "ein Faden/mit: allem?", "", "x_", "😀" * 50, "a" * 64, "a" * 65, 42])
async def test_any_thread_id_will_do(tmp_path: Path, thread_id: Any) -> None:
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        stored = await saver.aput(config(thread_id, checkpoint_ns=""), empty_checkpoint(), {"source": "input"}, {})
        found = await saver.aget_tuple(stored)
        assert found is not None
        assert found.config["configurable"]["thread_id"] == thread_id
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        assert await saver.athreads() == [str(thread_id)]
