"""Who may write a thread, and how a loser learns it (S3, S38): the fifteen clauses of `write_ownership`, a capability that was proposed for
langgraph-checkpoint-conformance in langchain-ai/langgraph#8796 (pull request #8894), and what holds between two savers of one folder.

| # | clause | test |
|---|---|---|
| 1 | a claim gives something that can write | `test_a_claim_gives_a_writer` |
| 2, 3 | the owner's checkpoint and writes are durable | `test_the_owners_checkpoint_and_writes_are_stored` |
| 4, 5 | a superseded owner's checkpoint is refused observably, and not stored | `test_a_superseded_owner_cannot_put` |
| 6 | it cannot fork the chain | `test_a_superseded_owner_cannot_fork_the_chain` |
| 7, 8 | its writes are refused observably, and not stored | `test_a_superseded_owner_cannot_put_writes` |
| 9, 10 | it cannot displace the owner's write, on special channels neither | `test_a_superseded_owner_displaces_nothing` |
| 11 | it stays superseded | `test_who_lost_a_thread_stays_refused` |
| 12 | ownership is per thread | `test_a_claim_of_one_thread_leaves_others_alone` |
| 13 | the new owner can write | `test_the_new_owner_writes_on` |
| 14 | a repeat by the owner is no refusal | `test_a_repeated_write_of_the_owner_is_no_refusal` |
| 15 | reading needs no ownership | `test_reading_needs_no_ownership` |
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint

from actors.graph import EventLogSaver, StaleWriteOwnerError


@pytest.fixture
async def saver(tmp_path: Path) -> AsyncIterator[EventLogSaver]:
    async with EventLogSaver.open(tmp_path / "threads", durability="process") as saver:
        yield saver


def config(thread_id: str, checkpoint_id: str | None = None) -> Any:
    place: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": place if checkpoint_id is None else {**place, "checkpoint_id": checkpoint_id}}


async def put(writer: BaseCheckpointSaver[int], thread_id: str, parent_id: str | None = None) -> str:
    stored = await writer.aput(config(thread_id, parent_id), empty_checkpoint(), {"source": "loop", "step": 0}, {})
    return str(stored["configurable"]["checkpoint_id"])


async def ids(saver: BaseCheckpointSaver[int], thread_id: str) -> list[str]:
    return [each.checkpoint["id"] async for each in saver.alist(config(thread_id))]


async def written(saver: BaseCheckpointSaver[int], thread_id: str, checkpoint_id: str) -> list[Any]:
    found = await saver.aget_tuple(config(thread_id, checkpoint_id))
    assert found is not None
    return [value for _, _, value in found.pending_writes or []]


async def superseded(saver: EventLogSaver, thread_id: str) -> tuple[EventLogSaver, EventLogSaver, str]:
    """An owner that wrote a checkpoint, and lost the thread; the one who has it now; the checkpoint."""
    old = await saver.aclaim_write_ownership(thread_id)
    first = await put(old, thread_id)
    return old, await saver.aclaim_write_ownership(thread_id), first


async def test_a_claim_gives_a_writer(saver: EventLogSaver) -> None:
    owner = await saver.aclaim_write_ownership("t")
    assert isinstance(owner, BaseCheckpointSaver)
    assert owner is not saver


async def test_the_owners_checkpoint_and_writes_are_stored(saver: EventLogSaver) -> None:
    owner = await saver.aclaim_write_ownership("t")
    first = await put(owner, "t")
    await owner.aput_writes(config("t", first), [("channel", "mine")], "task")
    assert await ids(saver, "t") == [first]
    assert await written(saver, "t", first) == ["mine"]


async def test_a_superseded_owner_cannot_put(saver: EventLogSaver) -> None:
    old, _, first = await superseded(saver, "t")
    with pytest.raises(StaleWriteOwnerError) as refusal:
        await put(old, "t")
    assert refusal.value.is_stale_write_owner_error is True
    assert refusal.value.thread_id == "t"
    assert await ids(saver, "t") == [first]
    with pytest.raises(StaleWriteOwnerError):
        await old.acheck_write_ownership()


async def test_a_superseded_owner_cannot_fork_the_chain(saver: EventLogSaver) -> None:
    old, new, first = await superseded(saver, "t")
    second = await put(new, "t", first)
    with pytest.raises(StaleWriteOwnerError):
        await put(old, "t", first)
    assert await ids(saver, "t") == [second, first]
    newest = await saver.aget_tuple(config("t"))
    assert newest is not None
    assert newest.checkpoint["id"] == second


async def test_a_superseded_owner_cannot_put_writes(saver: EventLogSaver) -> None:
    old, _, first = await superseded(saver, "t")
    with pytest.raises(StaleWriteOwnerError):
        await old.aput_writes(config("t", first), [("channel", "stale")], str(uuid4()))
    assert await written(saver, "t", first) == []


@pytest.mark.parametrize("channel", ["channel", "__resume__", "__interrupt__", "__error__", "__scheduled__"])
async def test_a_superseded_owner_displaces_nothing(saver: EventLogSaver, channel: str) -> None:
    old, new, first = await superseded(saver, "t")
    await new.aput_writes(config("t", first), [(channel, "current")], "task")
    with pytest.raises(StaleWriteOwnerError):
        await old.aput_writes(config("t", first), [(channel, "stale")], "task")
    assert await written(saver, "t", first) == ["current"]


async def test_who_lost_a_thread_stays_refused(saver: EventLogSaver) -> None:
    old, new, first = await superseded(saver, "t")
    for _ in range(3):
        with pytest.raises(StaleWriteOwnerError):
            await put(old, "t")
    assert await ids(saver, "t") == [first]
    # Not even a thread that begins anew makes an old claim good again.
    await new.adelete_thread("t")
    with pytest.raises(StaleWriteOwnerError):
        await put(old, "t")
    again = await saver.aclaim_write_ownership("t")
    for stale in (old, new):
        with pytest.raises(StaleWriteOwnerError):
            await put(stale, "t")
    await put(again, "t")


async def test_a_claim_of_one_thread_leaves_others_alone(saver: EventLogSaver) -> None:
    owner = await saver.aclaim_write_ownership("t1")
    await saver.aclaim_write_ownership("t2")
    first = await put(owner, "t1")
    assert await ids(saver, "t1") == [first]
    await owner.acheck_write_ownership()


async def test_the_new_owner_writes_on(saver: EventLogSaver) -> None:
    _, new, first = await superseded(saver, "t")
    second = await put(new, "t", first)
    await new.aput_writes(config("t", second), [("channel", "recovered")], "task")
    assert await ids(saver, "t") == [second, first]
    assert await written(saver, "t", second) == ["recovered"]


async def test_a_repeated_write_of_the_owner_is_no_refusal(saver: EventLogSaver) -> None:
    owner = await saver.aclaim_write_ownership("t")
    first = await put(owner, "t")
    for _ in range(2):
        await owner.aput_writes(config("t", first), [("channel", "once")], "task")
    await owner.acheck_write_ownership()
    assert await written(saver, "t", first) == ["once"]


async def test_reading_needs_no_ownership(saver: EventLogSaver) -> None:
    owner = await saver.aclaim_write_ownership("t")
    first = await put(owner, "t")
    for reader in (saver, (await superseded(saver, "t2"))[0]):
        assert await ids(reader, "t") == [first]


async def test_s3_a_second_saver_of_a_folder_supersedes_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "threads"
    async with EventLogSaver.open(folder, durability="process") as first:
        mine = await put(first, "t")
        async with EventLogSaver.open(folder, durability="process") as second:
            for _ in range(2):
                with pytest.raises(StaleWriteOwnerError):
                    await put(first, "t", mine)
                with pytest.raises(StaleWriteOwnerError):
                    await first.aput_writes(config("t", mine), [("channel", "stale")], "task")
            with pytest.raises(StaleWriteOwnerError):
                await first.acheck_write_ownership()
            with pytest.raises(StaleWriteOwnerError):
                await first.adelete_thread("t")
            with pytest.raises(StaleWriteOwnerError):
                await first.acopy_thread("t", "t2")
            theirs = await put(second, "t", mine)
            await second.acheck_write_ownership()
            # Reading goes on, and sees what the new owner wrote.
            assert await ids(first, "t") == [theirs, mine]
            assert await ids(second, "t") == [theirs, mine]
        # The one that lost does not become current when the other has gone.
        with pytest.raises(StaleWriteOwnerError):
            await put(first, "t", theirs)
    async with EventLogSaver.open(folder) as third:
        assert await ids(third, "t") == [theirs, mine]
