"""S38: what deleted threads said leaves the file, what a copy reads of them stays, and the chain verifies all the while."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from actors.graph import EventLogSaver, StaleWriteOwnerError, freeing_sqlite, index_sqlite
from events.crash_points import CrashPoint
from events.keeping.verify import verify
from events.sqlite.sqlite_library import library, open_reader
from tests.support.crashing import environment
from tests.support.deployment import run_cuebook

KB = 1_024


def config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def words(mark: str, size: int) -> str:
    """`size` characters that say something else each time."""
    return "".join(f"{mark}{number:x}." for number in range(size))[:size]


async def put(saver: EventLogSaver, thread_id: str, text: str, step: int = 1) -> None:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"text": text}, {"text": step}
    await saver.aput(config(thread_id), checkpoint, {"source": "loop", "step": step}, {"text": step})


async def said(saver: EventLogSaver, thread_id: str) -> Any:
    found = await saver.aget_tuple(config(thread_id))
    return None if found is None else found.checkpoint["channel_values"].get("text")


def holds(folder: Path, mark: str) -> bool:
    return any(mark.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def payloads(folder: Path) -> list[str]:
    connection = open_reader(folder / "log" / "shard-0.db")
    try:
        return [str(row[0]) for row in connection.execute("SELECT payload || coalesce(summary, '') FROM events").fetchall()]
    finally:
        connection.close()


def recorded(folder: Path) -> int:
    """Characters of all payloads."""
    return sum(map(len, payloads(folder)))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "log").iterdir())


async def test_s38_deleting_threads_gives_their_room_back(tmp_path: Path) -> None:
    """In the log at once, in the length of the file when it is closed."""
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        for number in range(20):
            await put(saver, f"t{number}", words(f"gone{number}x", 50 * KB))
        await put(saver, "kept", words("kept", 50 * KB))
    full, held = size(tmp_path), recorded(tmp_path)
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        await saver.adelete_thread("t0")
        assert recorded(tmp_path) < held - 45 * KB
        await saver.aprune([f"t{number}" for number in range(1, 20)], strategy="delete")
        assert recorded(tmp_path) < 60 * KB
        assert await saver.athreads() == ["kept"]
    assert size(tmp_path) < full / 5
    assert not holds(tmp_path, "gone7x")
    assert verify(tmp_path / "log") == []
    async with EventLogSaver.open(tmp_path) as saver:
        assert await said(saver, "kept") == words("kept", 50 * KB)
        assert await said(saver, "t7") is None
        assert [each.config["configurable"]["thread_id"] async for each in saver.alist(None)] == ["kept"]
        await put(saver, "t7", "begun anew")
        assert await said(saver, "t7") == "begun anew"
    assert verify(tmp_path / "log") == []


async def test_s38_the_room_of_a_deleted_thread_is_used_again_while_the_folder_is_open(tmp_path: Path) -> None:
    """A program that deletes what it no longer needs does not grow with the number of its threads."""
    sizes = []
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        for number in range(12):
            await put(saver, "again", words(f"life{number}x", 400 * KB))
            assert await said(saver, "again") == words(f"life{number}x", 400 * KB)
            await saver.adelete_thread("again")
            sizes.append((tmp_path / "log" / "shard-0.db").stat().st_size)
    assert sizes[-1] < 3 * 400 * KB, sizes
    assert verify(tmp_path / "log") == []


async def test_s33_what_a_copy_reads_stays_until_the_last_copy_is_deleted(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        await put(saver, "t", words("first", 20 * KB))
        await saver.acopy_thread("t", "copy")
        await saver.acopy_thread("copy", "copy of the copy")
        await saver.adelete_thread("t")
        await saver.adelete_thread("copy")
        await put(saver, "t", words("second", 20 * KB))
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        assert await said(saver, "copy of the copy") == words("first", 20 * KB)
        assert await said(saver, "copy") is None
        assert await said(saver, "t") == words("second", 20 * KB)
        assert recorded(tmp_path) > 40 * KB
        await saver.adelete_thread("copy of the copy")
        assert 20 * KB < recorded(tmp_path) < 25 * KB
        assert await said(saver, "t") == words("second", 20 * KB)
    assert not any("first" in each for each in payloads(tmp_path))
    assert verify(tmp_path / "log") == []


async def test_threads_that_were_copied_from_each_other_do_not_hold_each_other_for_ever(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        await put(saver, "a", words("circular", 20 * KB))
        await saver.acopy_thread("a", "b")
        await saver.adelete_thread("a")
        await saver.acopy_thread("b", "a")
        await saver.adelete_thread("b")
        assert await said(saver, "a") == words("circular", 20 * KB)
        await saver.adelete_thread("a")
        assert recorded(tmp_path) < 2 * KB
    assert not any("circular" in each for each in payloads(tmp_path))
    assert verify(tmp_path / "log") == []


async def test_a_copy_beside_a_deletion_has_all_or_nothing(tmp_path: Path) -> None:
    """Whichever comes first in the log, and also in a thread that was used before."""
    whole = 0
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        for number in range(40):
            source, target = f"s{number}", f"c{number}"
            await put(saver, source, words(f"s{number}x", 2 * KB))
            if number % 2:
                await put(saver, target, "used before")
                await saver.adelete_thread(target)
            calls = [saver.acopy_thread(source, target), saver.adelete_thread(source)]
            async with asyncio.TaskGroup() as group:
                for call in calls if number % 4 < 2 else reversed(calls):
                    group.create_task(call)
    async with EventLogSaver.open(tmp_path) as saver:
        for number in range(40):
            found = await said(saver, f"c{number}")
            assert found in (None, words(f"s{number}x", 2 * KB))
            whole += found is not None
            assert await said(saver, f"s{number}") is None
    assert 0 < whole < 40, "both orders were met"
    assert verify(tmp_path / "log") == []


async def test_s29_a_folder_with_freed_threads_is_exported_imported_backed_up_and_erased_like_any_other(tmp_path: Path) -> None:
    folder, copy = tmp_path / "threads", tmp_path / "copy"
    async with EventLogSaver.open(folder, durability="process") as saver:
        await put(saver, "t", words("gone", 4 * KB))
        await put(saver, "kept", words("kept", 4 * KB))
        await saver.adelete_thread("t")
        await put(saver, "t", words("anew", 4 * KB))

    def cuebook(*words: str) -> str:
        done = run_cuebook(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    said_once = await asyncio.to_thread(cuebook, "log", "--data", str(folder), "-n", "0", "--json")
    assert "gone1." not in said_once
    assert "anew1." in said_once
    await asyncio.to_thread(cuebook, "export", str(tmp_path / "log.jsonl"), "--data", str(folder))
    await asyncio.to_thread(cuebook, "import", str(tmp_path / "log.jsonl"), "--data", str(copy), "--shards", "1")
    await asyncio.to_thread(cuebook, "backup", str(tmp_path / "backup"), "--data", str(folder))
    for each in (folder, copy):
        assert verify(each / "log") == []
        async with EventLogSaver.open(each, durability="process") as saver:
            assert await said(saver, "kept") == words("kept", 4 * KB)
            assert await said(saver, "t") == words("anew", 4 * KB)
            await saver.adelete_thread("t")
            assert not any("anew1." in payload for payload in payloads(each))
    await asyncio.to_thread(cuebook, "erase", "thread/t", "--yes", "--data", str(folder))
    assert not holds(folder, "gone1.")
    assert not holds(folder, "anew1.")
    assert verify(folder / "log") == []
    async with EventLogSaver.open(folder, durability="process") as saver:
        assert await saver.athreads() == ["kept"]


@pytest.mark.parametrize("was_used", [False, True])
async def test_a_copy_whose_source_is_deleted_while_it_is_looked_at_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_used: bool
) -> None:
    """Of what is freed behind its back there would be a copy of nothing, which says that it is one of something."""
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        await put(saver, "t", words("raced", 2 * KB))
        if was_used:
            await put(saver, "copy", "used before")
            await saver.adelete_thread("copy")
    before, real = len(payloads(tmp_path)), index_sqlite.head
    async with EventLogSaver.open(tmp_path, durability="process") as saver:

        def then_deleted(connection: Any, stream: str) -> Any:
            found = real(connection, stream)
            saver.delete_thread("t")
            return found

        monkeypatch.setattr(index_sqlite, "head", then_deleted)
        await saver.acopy_thread("t", "copy")
        assert await said(saver, "copy") is None
        assert await saver.athreads() == []
    assert len(payloads(tmp_path)) == before + 1, "the deletion, and nothing else"


async def test_a_claim_outlives_the_deletion(tmp_path: Path) -> None:
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        old = await saver.aclaim_write_ownership("t")
        await put(old, "t", words("mine", 10 * KB))
        new = await saver.aclaim_write_ownership("t")
        await new.adelete_thread("t")
        assert recorded(tmp_path) < 2 * KB
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        fresh = await saver.aclaim_write_ownership("t")
        assert fresh._claims == {"t": 3}
        old._threads = saver._threads
        with pytest.raises(StaleWriteOwnerError):
            await put(old, "t", "not mine any more")


async def test_what_was_deleted_before_room_was_given_back_is_freed_at_the_next_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of an earlier release has no table that says which threads were deleted."""
    with monkeypatch.context() as former:
        former.setattr(freeing_sqlite, "free", lambda writer, connection: 0)
        async with EventLogSaver.open(tmp_path, durability="process") as saver:
            await put(saver, "t", words("earlier", 50 * KB))
            await saver.adelete_thread("t")
    assert holds(tmp_path, "earlier")
    connection = library.connect(tmp_path / "log" / "shard-0.db")
    connection.execute("DROP TABLE graph_ends")
    connection.commit()
    connection.close()
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        assert await said(saver, "t") is None
    assert not holds(tmp_path, "earlier")
    assert verify(tmp_path / "log") == []


@pytest.mark.crash
async def test_s38_a_deletion_killed_before_the_room_is_free_is_followed_up_at_the_next_close(tmp_path: Path) -> None:
    folder, mark = tmp_path / "threads", tmp_path / "mark"
    async with EventLogSaver.open(folder, durability="process") as saver:
        for name in ("t", "u"):
            await put(saver, name, words(f"killed{name}", 50 * KB))
    program = f"""
from actors.graph import EventLogSaver
from tests.support.crashing import arm
arm()
with EventLogSaver.open({str(folder)!r}, durability="process") as saver:
    saver.prune(["t", "u"], strategy="delete")
"""
    settings = environment(CrashPoint.GRAPH_FREE_READY, mark, 2)
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env={**os.environ, **settings}, capture_output=True, timeout=60
    )
    assert mark.exists(), ended.stderr.decode()
    assert verify(folder / "log") == []
    assert holds(folder, "killedu")
    async with EventLogSaver.open(folder, durability="process") as saver:
        assert await saver.athreads() == []
    assert not holds(folder, "killedt")
    assert not holds(folder, "killedu")
    assert verify(folder / "log") == []
