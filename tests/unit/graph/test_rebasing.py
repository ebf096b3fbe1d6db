"""S38: what pruning leaves of a thread is told anew, so the room of the rest is free, and nothing that is left changes."""

import asyncio
import operator
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, MessagesState, StateGraph

from actors.graph import EventLogSaver, StaleWriteOwnerError, rebasing
from actors.graph.threads import run_sync
from events.crash_points import CrashPoint
from events.keeping.verify import verify
from events.sqlite.sqlite_library import library, open_reader
from tests.support.crashing import environment
from tests.support.deployment import run_cuebook

KB = 1_024


def config(thread_id: str = "t", **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **more}}


def words(mark: str, size: int) -> str:
    """`size` characters that say something else each time."""
    return "".join(f"{mark}{number:x}." for number in range(size))[:size]


async def put(saver: EventLogSaver, thread_id: str, values: dict[str, Any], step: int, parent: str | None = None, run: str = "r") -> str:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = values, dict.fromkeys(values, step)
    place = config(thread_id, **({} if parent is None else {"checkpoint_id": parent}))
    stored = await saver.aput(place, checkpoint, {"source": "loop", "step": step, "run_id": run}, dict.fromkeys(values, step))
    checkpoint_id: str = stored["configurable"]["checkpoint_id"]
    await saver.aput_writes(stored, [("notes", [f"note {step}"]), ("big", words(f"w{step}x", 200))], f"task{step}", "~path")
    return checkpoint_id


async def chain(saver: EventLogSaver, thread_id: str, steps: int, size: int = 4 * KB) -> list[str]:
    """Checkpoints, each of which replaces a text and adds to a list; ids, oldest first."""
    ids: list[str] = []
    notes: list[str] = []
    for step in range(steps):
        notes = [*notes, words(f"note{step}x", 100)]
        values = {"text": words(f"{thread_id}{step}y", size), "notes": notes, "same": words("same", 300)}
        ids.append(await put(saver, thread_id, values, step, ids[-1] if ids else None, f"run{step % 5}"))
    return ids


def said(folder: Path) -> int:
    """Bytes of all payloads."""
    return sum(map(len, payloads(folder)))


def payloads(folder: Path) -> list[str]:
    connection = open_reader(folder / "log" / "shard-0.db")
    try:
        return [str(row[0]) for row in connection.execute("SELECT payload FROM events").fetchall()]
    finally:
        connection.close()


def types(folder: Path) -> list[str]:
    connection = open_reader(folder / "log" / "shard-0.db")
    try:
        return [str(row[0]) for row in connection.execute("SELECT type FROM events ORDER BY position").fetchall()]
    finally:
        connection.close()


def size(folder: Path) -> int:
    """Of all files: the log is closed, so the write-ahead log counts too."""
    return sum(path.stat().st_size for path in (folder / "log").iterdir())


async def listed(saver: EventLogSaver, thread_id: str | None) -> list[Any]:
    return [each async for each in saver.alist(None if thread_id is None else {"configurable": {"thread_id": thread_id}})]


@pytest.mark.parametrize("strategy", ["prune", "runs"])
async def test_s38_what_pruning_leaves_is_told_anew_and_the_file_becomes_shorter(tmp_path: Path, strategy: str) -> None:
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        await chain(saver, "t", 100)
        await chain(saver, "other", 3)
        before = await listed(saver, "t")
        of_all = [(each.config, each.checkpoint["id"]) for each in await listed(saver, None)]
    full = size(tmp_path)
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        if strategy == "prune":
            await saver.aprune(["t"])
            left = before[:1]
        else:
            await saver.adelete_for_runs([f"run{number}" for number in range(4)])
            left = [each for each in before if each.metadata["run_id"] == "run4"]
        assert 0 < len(left) < len(before)
        assert await listed(saver, "t") == left
        assert "graph.rebased" in types(tmp_path)
        now = [(each.config, each.checkpoint["id"]) for each in await listed(saver, None)]
        assert now == [each for each in of_all if each[1] in {found[1] for found in now}], "in the order in which they were recorded"
    # A row stays of each event: its hash is part of the chain.
    assert size(tmp_path) < full * (0.35 if strategy == "prune" else 0.5)
    assert not any("t7y" in each for each in payloads(tmp_path))
    assert verify(tmp_path / "log") == []
    async with EventLogSaver.open(tmp_path) as again:
        assert await listed(again, "t") == left
        for each in left:
            assert await again.aget_tuple(each.config) == each
        assert len(await listed(again, "other")) == (3 if strategy == "prune" else 0)
        # It goes on as a difference from what was told anew.
        await put(again, "t", {**left[0].checkpoint["channel_values"], "text": "short"}, 100, left[0].checkpoint["id"])
        assert (await listed(again, "t"))[1:] == left
    assert len(payloads(tmp_path)[-2]) < KB


@pytest.mark.slow
async def test_s38_a_conversation_of_200_turns_that_is_pruned_after_each_turn_stays_within_six_times_its_content(tmp_path: Path) -> None:
    """And is not told anew at each of them."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage(words(f"answer{len(state['messages'])}x", KB // 2))]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", answer)
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    turns = 200
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        graph = builder.compile(checkpointer=saver)
        for turn in range(turns):
            await graph.ainvoke({"messages": [HumanMessage(words(f"turn{turn}x", KB // 2))]}, {"configurable": {"thread_id": "t"}})
            await saver.aprune(["t"])
        messages = (await graph.aget_state({"configurable": {"thread_id": "t"}})).values["messages"]
        assert len(messages) == 2 * turns
        assert len(await listed(saver, "t")) == 1
    assert size(tmp_path) <= 6 * turns * KB
    assert 3 < types(tmp_path).count("graph.rebased") < turns / 4
    assert verify(tmp_path / "log") == []


async def test_s38_what_a_copy_reads_stays_and_what_only_the_pruned_thread_read_goes(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        ids = await chain(saver, "t", 30)
        await saver.acopy_thread("t", "copy")
        copied = await listed(saver, "copy")
        await put(saver, "t", {"text": words("later", 60 * KB)}, 30, ids[-1])
        await put(saver, "t", {"text": "at the end"}, 31)
        await saver.aprune(["t"])
        assert types(tmp_path).count("graph.rebased") == 1
        assert not any("later1." in each for each in payloads(tmp_path)), "behind what the copy reads"
        assert await listed(saver, "copy") == copied
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        assert await listed(saver, "copy") == copied
        newest = await listed(saver, "t")
        assert [each.checkpoint["channel_values"]["text"] for each in newest] == ["at the end"]
        held = said(tmp_path)
        await saver.aprune(["t"])
        assert types(tmp_path).count("graph.rebased") == 1, "the copy holds the room, so telling it anew would only cost more"
        await saver.adelete_thread("t")
        assert said(tmp_path) > held - 2 * KB
        # The copy is now the only reader of what the deleted thread said: what is left of it is told anew, and that is gone.
        await saver.aprune(["copy"])
        assert await listed(saver, "copy") == copied[:1]
        assert said(tmp_path) < 20 * KB
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        assert await listed(saver, "copy") == copied[:1]
        await saver.acopy_thread("copy", "copy of the copy")
        await saver.adelete_thread("copy")
        assert [each.checkpoint for each in await listed(saver, "copy of the copy")] == [copied[0].checkpoint]
    assert verify(tmp_path / "log") == []


async def test_s38_a_copy_of_an_older_life_and_one_of_a_newer_are_freed_each_by_itself(tmp_path: Path) -> None:
    """A thread that was told anew three times: each time is held only by the copies that were made in it."""
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        for life in range(3):
            await put(saver, "t", {"text": words(f"life{life}x", 20 * KB)}, 2 * life)
            await saver.acopy_thread("t", f"c{life}")
            await put(saver, "t", {"text": words(f"tail{life}x", 60 * KB)}, 2 * life + 1)
            await put(saver, "t", {"text": f"small {life}"}, 2 * life + 2)
            await saver.aprune(["t"])
        assert types(tmp_path).count("graph.rebased") == 3
        for gone in (1, 0, 2):
            assert any(f"life{gone}x1." in each for each in payloads(tmp_path))
            assert not any(f"tail{gone}x1." in each for each in payloads(tmp_path))
            await saver.adelete_thread(f"c{gone}")
            assert not any(f"life{gone}x1." in each for each in payloads(tmp_path))
    assert verify(tmp_path / "log") == []


class Notes(TypedDict):
    log: Annotated[list[str], DeltaChannel(lambda before, new: [*before, *(item for each in new for item in each)])]
    last: Annotated[list[str], operator.add]


async def test_s38_a_delta_channel_is_read_back_after_its_thread_was_told_anew(tmp_path: Path) -> None:
    """LangGraph's own warning about pruning: the newest checkpoint holds no value of such a channel, its ancestors' writes do."""
    builder: Any = StateGraph(Notes)
    builder.add_node(
        "say", lambda state: {"log": [words(f"said{len(state['log'])}x", 100)], "last": [words(f"l{len(state['log'])}x", 3 * KB)]}
    )
    builder.add_edge(START, "say")
    place: Any = {"configurable": {"thread_id": "t"}}
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        graph = builder.compile(checkpointer=saver)
        for turn in range(12):
            await graph.ainvoke({"log": [f"turn {turn}"], "last": []}, place)
            if turn == 5:
                await saver.adelete_for_runs(["none"])
        newest = await saver.aget_tuple(place)
        assert newest is not None
        assert "log" not in newest.checkpoint["channel_values"]
        expected = (await graph.aget_state(place)).values
        history = await saver.aget_delta_channel_history(config=newest.config, channels=["log"])
        # So that the room of what is no longer shown is worth it.
        state: Any = run_sync(saver._threads.settled("t"))
        state.said *= 100
        await saver.aprune(["t"])
        assert types(tmp_path).count("graph.rebased") == 1
        assert await listed(saver, "t") == [newest]
        assert await saver.aget_delta_channel_history(config=newest.config, channels=["log"]) == history
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        graph = builder.compile(checkpointer=saver)
        assert await saver.aget_delta_channel_history(config=newest.config, channels=["log"]) == history
        assert (await graph.aget_state(place)).values == expected
        await graph.ainvoke({"log": ["on"], "last": []}, place)
        assert (await graph.aget_state(place)).values["log"][: len(expected["log"]) + 1] == [*expected["log"], "on"]


ROUNDS = int(os.environ.get("REBASE_ROUNDS", "8"))


class _Writer:
    """Grows trees of checkpoints in two threads and two namespaces, with ones that are saved again and writes on ones that never came."""

    names = ("t", "ein Faden / zwei")

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._known: dict[tuple[str, str], list[str]] = {}
        self._parents: dict[str, str | None] = {}

    async def step(self, saver: EventLogSaver, step: int) -> None:
        chance, name, ns = self.chance, self.chance.choice(self.names), self.chance.choice(["", "", "inner:1"])
        known = self._known.setdefault((name, ns), [])
        parent = chance.choice(known) if known and chance.random() < 0.8 else None
        checkpoint = empty_checkpoint()
        if known and chance.random() < 0.1:
            checkpoint["id"] = chance.choice(known)
            parent = self._parents[checkpoint["id"]]
        self._parents[checkpoint["id"]] = parent
        place = config(name, checkpoint_ns=ns, **({} if parent is None else {"checkpoint_id": parent}))
        former = None if parent is None else await saver.aget_tuple(place)
        values = self._values({} if former is None else dict(former.checkpoint["channel_values"]), step)
        checkpoint["channel_values"] = values
        checkpoint["channel_versions"] = {**dict.fromkeys(values, step), "log": step}
        checkpoint["versions_seen"] = {"node": {"a": step}}
        new_versions: Any = dict.fromkeys(values, step)
        stored = await saver.aput(place, checkpoint, {"source": "loop", "step": step, "run_id": f"r{step % 3}"}, new_versions)
        known.append(stored["configurable"]["checkpoint_id"])
        await saver.aput_writes(stored, [("log", [step]), ("x", words(f"w{step}", 99))], f"task{step}", "path")
        if chance.random() < 0.2:
            await saver.aput_writes(config(name, checkpoint_ns=ns, checkpoint_id="never"), [("log", step)], f"n{step}")

    def _values(self, values: dict[str, Any], step: int) -> dict[str, Any]:
        chance = self.chance
        for channel in chance.sample(["a", "b", "c", "d"], 2):
            grown = values.get(channel) if chance.random() < 0.7 else None
            new = chance.choice([words(f"s{step}", 150), "short", {"k": [step, words("k", 80)]}, HumanMessage(words(f"m{step}", 90))])
            values[channel] = [*grown, new] if isinstance(grown, list) else chance.choice([[new], new])
        if chance.random() < 0.2:
            values.pop(chance.choice(list(values)))
        return values


async def _all(saver: EventLogSaver) -> dict[str, list[Any]]:
    return {name: await listed(saver, name) for name in await saver.athreads()}


async def _histories(saver: EventLogSaver, found: dict[str, list[Any]]) -> dict[tuple[str, str], Any]:
    """What LangGraph would ask of each checkpoint: the channels that have a version there and no value."""
    histories = {}
    for name, tuples in found.items():
        for each in tuples:
            channels = sorted(each.checkpoint["channel_versions"].keys() - each.checkpoint["channel_values"].keys())
            history = await saver.aget_delta_channel_history(config=each.config, channels=channels)
            histories[name, each.checkpoint["id"]] = history
    return histories


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_s38_whatever_is_removed_what_is_left_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Also after the folder was opened again, and after its index was lost; and copies hold what they held. Rebased whenever possible."""
    monkeypatch.setattr(rebasing, "GAIN_MIN", -100.0)
    monkeypatch.setattr(rebasing, "ROW_BYTES", 0)
    writer = _Writer(seed)
    for life in range(3):
        async with EventLogSaver.open(tmp_path, durability="process") as saver:
            for step in range(writer.chance.randrange(5, 25)):
                await writer.step(saver, step)
            if "t" in await saver.athreads():
                await saver.acopy_thread("t", f"copy{life}")
            before = await _all(saver)
            history = await _histories(saver, before)
            gone = writer.chance.choice(["prune", "r0", "r1"])
            if gone == "prune":
                await saver.aprune(writer.names)
            else:
                await saver.adelete_for_runs([gone])
            after, everything = await _all(saver), await listed(saver, None)
            for name, found in before.items():
                if gone != "prune":
                    left = [each for each in found if each.metadata["run_id"] != gone]
                else:
                    left = [each for each in found if name not in writer.names or each in newest(found)]
                assert after.get(name, []) == left
            assert await _histories(saver, after) == {key: history[key] for key in await _histories(saver, after)}
        for lost in ((), ("graph_checkpoints", "graph_threads", "graph_ends")):
            drop(tmp_path, lost)
            async with EventLogSaver.open(tmp_path, durability="process") as saver:
                assert await _all(saver) == after
                assert await listed(saver, None) == everything
                assert await _histories(saver, after) == {key: history[key] for key in await _histories(saver, after)}
        assert verify(tmp_path / "log") == []
    assert "graph.rebased" in types(tmp_path)


def newest(found: list[Any]) -> list[Any]:
    """Of each namespace, the first that is listed."""
    by_ns: dict[str, Any] = {}
    for each in found:
        by_ns.setdefault(each.config["configurable"]["checkpoint_ns"], each)
    return list(by_ns.values())


def drop(folder: Path, tables: tuple[str, ...]) -> None:
    connection = library.connect(folder / "log" / "shard-0.db")
    for table in tables:
        connection.execute(f"DROP TABLE {table}")
    connection.commit()
    connection.close()


async def test_a_listing_that_began_before_a_rebase_gives_what_was_there(tmp_path: Path) -> None:
    """Its checkpoints refer to parts, which have other numbers afterwards."""
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        await chain(saver, "t", 40)
        expected = await listed(saver, "t")
        seen: list[Any] = []
        async for each in saver.alist(config()):
            if not seen:
                await saver.aprune(["t"])
                assert "graph.rebased" in types(tmp_path)
                await put(saver, "t", {"text": words("anew", 5 * KB)}, 41)
            seen.append(each)
        assert seen == expected


async def test_a_write_beside_a_rebase_is_not_lost(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        ids = await chain(saver, "t", 40)
        for number in range(10):
            async with asyncio.TaskGroup() as group:
                group.create_task(saver.aput_writes(config(checkpoint_id=ids[-1]), [("x", words(f"x{number}x", 300))], f"beside{number}"))
                group.create_task(saver.aprune(["t"]))
        written = (await listed(saver, "t"))[0].pending_writes
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        found = await listed(saver, "t")
        assert found[0].pending_writes == written
        assert {f"beside{number}" for number in range(10)} <= {task for task, _, _ in written or ()}


async def test_s33_a_copy_beside_a_rebase_holds_what_was_there_before_it_or_after(tmp_path: Path) -> None:
    """Whichever comes first in the log; and it does so still when its source is deleted."""
    held: dict[str, list[str]] = {}
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        for number in range(20):
            ids = await chain(saver, f"s{number}", 8, KB)
            async with asyncio.TaskGroup() as group:
                pruned = group.create_task(saver.aprune([f"s{number}"]))
                if number == 19:
                    await asyncio.wait([pruned])
                for _ in range(number * 4):
                    await asyncio.sleep(0)
                group.create_task(saver.acopy_thread(f"s{number}", f"c{number}"))
            held[f"c{number}"] = [each.checkpoint["id"] for each in await listed(saver, f"c{number}")]
            assert held[f"c{number}"] in (ids[::-1], ids[-1:])
            assert [each.checkpoint["id"] for each in await listed(saver, f"s{number}")] == ids[-1:]
        assert {len(each) for each in held.values()} == {1, 8}, "both orders were met"
        # Where the copy came before the prune looked, nothing would be given back: then the prune only says what is not shown.
        said = [each for each in types(tmp_path) if each in ("graph.rebased", "graph.removed")]
        assert len(said) == 20
        assert said.count("graph.rebased") >= sum(len(each) == 1 for each in held.values())
        await saver.aprune([f"s{number}" for number in range(20)], strategy="delete")
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        assert {name: [each.checkpoint["id"] for each in await listed(saver, name)] for name in held} == held
    assert verify(tmp_path / "log") == []


async def test_a_claim_outlives_a_rebase_and_so_does_an_import(tmp_path: Path) -> None:
    folder, copy = tmp_path / "threads", tmp_path / "copy"
    async with EventLogSaver.open(folder, durability="process") as saver:
        old = await saver.aclaim_write_ownership("t")
        await chain(old, "t", 20)
        new = await saver.aclaim_write_ownership("t")
        with pytest.raises(StaleWriteOwnerError):
            await old.aprune(["t"])
        await new.aprune(["t"])
        assert types(folder).count("graph.rebased") == 1
        left = await listed(saver, "t")
        with pytest.raises(StaleWriteOwnerError):
            await put(old, "t", {"text": "not mine any more"}, 21)
    for words_ in (("export", str(tmp_path / "log.jsonl"), "--data", str(folder)),
                   ("import", str(tmp_path / "log.jsonl"), "--data", str(copy), "--shards", "1")):  # fmt: skip
        done = await asyncio.to_thread(run_cuebook, *words_)
        assert done.returncode == 0, done.stderr
    async with EventLogSaver.open(copy, durability="process") as saver:
        assert await listed(saver, "t") == await listed(saver, None) == left
        assert (await saver.aclaim_write_ownership("t"))._claims == {"t": 3}
    assert verify(copy / "log") == []


POINTS = [
    CrashPoint.GRAPH_REBASE_READY,
    CrashPoint.APPEND_READY,
    CrashPoint.APPEND_COMMITTED,
    CrashPoint.APPEND_ANCHORED,
]


@pytest.mark.crash
@pytest.mark.parametrize("point", POINTS)
async def test_s38_a_rebase_killed_at_any_point_is_there_or_is_not(tmp_path: Path, point: CrashPoint) -> None:
    folder, mark = tmp_path / "threads", tmp_path / "mark"
    async with EventLogSaver.open(folder, durability="process") as saver:
        await chain(saver, "t", 40)
        before = await listed(saver, "t")
        await saver.acopy_thread("t", "copy")
        await put(saver, "t", {"text": words("much", 300 * KB)}, 40, before[0].checkpoint["id"])
        await put(saver, "t", {"text": "little"}, 41)
        before, copied = await listed(saver, "t"), await listed(saver, "copy")
    program = f"""
from actors.graph import EventLogSaver
from tests.support.crashing import arm
arm()
with EventLogSaver.open({str(folder)!r}, durability="process") as saver:
    saver.prune(["t"])
"""
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env={**os.environ, **environment(point, mark, 1)}, capture_output=True, timeout=60
    )
    assert mark.exists(), ended.stderr.decode()
    assert verify(folder / "log") == []
    committed = point in (CrashPoint.APPEND_COMMITTED, CrashPoint.APPEND_ANCHORED)
    assert ("graph.rebased" in types(folder)) is committed
    assert any("much1." in each for each in payloads(folder)) is not committed
    async with EventLogSaver.open(folder, durability="process") as saver:
        assert await listed(saver, "t") == (before[:1] if committed else before)
        assert await listed(saver, "copy") == copied
        await saver.aprune(["t"])
        assert await listed(saver, "t") == before[:1]
        assert await listed(saver, "copy") == copied
    assert not any("much1." in each for each in payloads(folder))
    assert verify(folder / "log") == []
