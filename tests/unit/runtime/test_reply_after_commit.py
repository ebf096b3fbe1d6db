"""What a caller is told, and when: a reply leaves after its commit, an expired command is never begun (S10, S14, S18)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.errors import DeadlinePassed
from events.sqlite.store_sqlite import SqliteShard
from ops.examples.bank import app
from runtime.local import local_runtime


async def test_s18_no_reply_leaves_before_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction is held back: neither the command nor a query that saw its state is answered."""
    release = asyncio.Event()
    commit = SqliteShard.commit

    async def held(store: SqliteShard, *parts: Sequence[Any]) -> Any:
        await release.wait()
        return await commit(store, *parts)

    async with local_runtime(app, tmp_path / "log", shards=1) as runtime:
        assert await runtime.ask("account/1", "deposit", cents=1) == 1
        monkeypatch.setattr(SqliteShard, "commit", held)
        async with asyncio.TaskGroup() as group:
            deposit = group.create_task(runtime.ask("account/1", "deposit", cents=5, command_id="held"))
            for _ in range(20):
                await asyncio.sleep(0)
            seen = group.create_task(runtime.ask("account/1", "balance"))
            for _ in range(200):
                await asyncio.sleep(0)
            early = deposit.done(), seen.done()
            release.set()
        assert early == (False, False)
        assert (deposit.result(), seen.result()) == (6, 6)


async def test_s10_an_expired_command_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path / "log", shards=1) as runtime:
        with pytest.raises(DeadlinePassed):
            await runtime.ask("account/1", "deposit", cents=5, command_id="late", timeout_s=-1)
        assert await runtime.ask("account/1", "balance") == 0
