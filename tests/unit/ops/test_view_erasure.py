"""S29: `cuebook erase` on a running deployment returns when its views have forgotten the stream, or names the view that has not."""

import asyncio
import os
from pathlib import Path
from typing import Any

from events.errors import TransientError
from ops.view_erasure import wait_forgotten
from projections.locking import lock_file
from tests.support.eventually import until
from tests.support.views import Notes, WrittenLog, noted, running, streams

A = streams(1)[0]


async def no_cache(projection: str, operation: str) -> Any:
    raise AssertionError(f"{projection}.{operation} was asked")


async def erased(log: WrittenLog) -> tuple[int, int]:
    """Where the erasure of A stands."""
    shard, _ = await log.write(A, noted("zanzibarine"))
    await log.erase(A)
    return shard, (await (await log.reader()).info(shard)).position


def found(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and b"zanzibarin" in path.read_bytes()]


async def test_s29_it_returns_when_no_byte_is_left_in_a_view_that_a_projector_keeps(tmp_path: Path) -> None:
    log, views = WrittenLog(tmp_path / "log"), tmp_path / "views"
    await log.start()
    try:
        await log.write(A, noted("zanzibarine"))
        async with running(Notes, views, log) as (runner, hints):
            await until(lambda: runner.status().state == "live", "live")
            assert found(views)
            shard, position = await erased(log)
            assert await wait_forgotten(tmp_path, shard, position, no_cache, timeout_s=0.3) == ["notes"], "nobody has told it yet"
            hints.tell(shard, position)
            assert await wait_forgotten(tmp_path, shard, position, no_cache) == []
            assert found(views) == []
    finally:
        await log.close()


async def test_s29_a_view_that_is_being_built_or_read_beside_its_successor_has_not_forgotten(tmp_path: Path) -> None:
    log, views = WrittenLog(tmp_path / "log"), tmp_path / "views"
    await log.start()
    try:
        async with running(Notes, views, log) as (runner, hints):
            await until(lambda: runner.status().state == "live", "live")
            shard, position = await erased(log)
            hints.tell(shard, position)
            assert await wait_forgotten(tmp_path, shard, position, no_cache) == []
            (views / "notes" / "v1-left").mkdir()
            assert await wait_forgotten(tmp_path, shard, position, no_cache, timeout_s=0.3) == ["notes"]
    finally:
        await log.close()


async def test_s29_of_the_cache_its_projector_is_asked(tmp_path: Path) -> None:
    """And what does not answer has not forgotten."""
    held = lock_file(tmp_path / "views" / "cache")
    assert held is not None
    answers: list[Any] = [TransientError("away"), {"view": None}, {"view": {"positions": {"0": 6}}}, {"view": {"positions": {"0": 7}}}]

    async def ask(projection: str, operation: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with asyncio.timeout(10):
        assert await wait_forgotten(tmp_path, 0, 7, ask) == []
    os.close(held)
    assert answers == []
