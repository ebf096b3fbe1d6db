"""A shard that moves while its turns wait for answers of other actors (S5, S9, S19)."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.busy_load import BusyLoad
from tests.support.deployment import wait_until, wait_until_async
from tests.support.effects import judge
from tests.support.rest import at_rest
from tests.support.workers import SHARDS, Workers, connected, served


@pytest.fixture
def workers(_nats_program: None, tmp_path: Path) -> Iterator[Workers]:
    with served(tmp_path, app="tests.support.busy_bank:app") as made:
        yield made


@pytest.mark.slow
async def test_s5_shards_that_move_at_once_do_not_wait_for_each_others_asks(workers: Workers) -> None:
    """Both shards of a worker drain together, and a turn of each waits for an actor of the other, or of its own shard: whoever is asked has
    no owner until the asker has let go. Such a turn goes on at the new owner, and asks again under the same id."""
    first, _ = workers.start("worker-a"), workers.start("worker-b")
    wait_until(lambda: workers.shares() == {"worker-a": SHARDS // 2, "worker-b": SHARDS // 2}, "each worker owns two shards")
    async with connected(workers) as client:
        async with BusyLoad(client, 1, callers=40, tellers=1, methods={"pull": 1}) as load:
            await load.more(200)
            began = time.monotonic()
            first.send(signal.SIGTERM)
            await wait_until_async(lambda: workers.shares() == {"worker-a": 0, "worker-b": SHARDS}, "the other owns all")
            moved_s = time.monotonic() - began
            await load.more(200)
        await wait_until_async(lambda: at_rest(workers.log), "the log is at rest")
        await wait_until_async(lambda: first.code is not None, "it ends")
    assert load.problems == []
    assert moved_s < 8.0
    assert load.slowest_s < 8.0
    assert first.code == 0, first.text
    workers.stop()
    problems, counts = judge(workers.log, load.asked, load.told)
    assert problems == []
    assert counts.asks > 400
