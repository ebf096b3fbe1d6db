"""What doctor says of how a log is kept: each problem by name, with what to do."""

import asyncio
from pathlib import Path

import pytest

from events.errors import CorruptLogError
from events.keeping.verify import verify
from events.log_directory import anchor_path, shard_path
from events.sqlite.store_sqlite import SqliteShard
from ops import doctor_keeping
from ops.finding import Finding
from ops.settings import Settings
from tests.support.logs import SqliteLogUnderTest, append_one, deposited, stream_in

A = stream_in(0, 1, "a")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    async def make() -> None:
        log = SqliteLogUnderTest(1, tmp_path / "data" / "log")
        await append_one(await log.shard(), A, 0, deposited(), deposited())
        await log.close()

    asyncio.run(make())
    return Settings(data=tmp_path / "data", keys=tmp_path / "keys")


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in doctor_keeping.keeping(settings)}


def test_a_sound_log_has_no_problem(settings: Settings) -> None:
    findings = found(settings)
    assert all(finding.ok for finding in findings.values())
    assert findings["durability"].remedy is None


def test_each_problem_is_named_with_its_remedy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    log = settings.data / "log"
    anchor_path(log, 0).unlink()

    async def begin() -> SqliteShard:
        store = await SqliteShard.open(log, 0)
        await store.take("w")
        await store.erase(A, "test")  # and dies before its keys and stale bytes are gone
        return store

    async def look() -> dict[str, Finding]:
        store = await begin()
        try:
            anchor_path(log, 0).unlink()
            return found(Settings(data=settings.data, keys=settings.keys, durability="process"))
        finally:
            await store.close()

    monkeypatch.setattr(doctor_keeping, "WAL_BYTES_MAX", 1_000)
    assert settings.keys is not None
    settings.keys.mkdir(mode=0o755)
    settings.keys.chmod(0o755)
    findings = asyncio.run(look())
    assert {check for check, finding in findings.items() if not finding.ok} == {
        "anchor of shard 0", "write-ahead log of shard 0", f"erasure of {A}", "keys",
    }  # fmt: skip
    assert all(finding.remedy for finding in findings.values())
    assert f"cuebook erase {A}" in (findings[f"erasure of {A}"].remedy or "")


async def test_f19_a_lost_tail_is_refused_with_what_to_do_and_that_works(settings: Settings) -> None:
    log = settings.data / "log"
    old = shard_path(log, 0).read_bytes()
    store = await SqliteShard.open(log, 0)
    await store.take("w")
    await append_one(store, A, 2, deposited())
    await store.close()
    shard_path(log, 0).write_bytes(old)
    with pytest.raises(CorruptLogError, match="durability = process") as refused:
        await SqliteShard.open(log, 0)
    assert f"remove {anchor_path(log, 0)} and start again" in refused.value.message
    anchor_path(log, 0).unlink()
    store = await SqliteShard.open(log, 0)
    await store.take("w")
    await append_one(store, A, 2, deposited())
    await store.close()
    assert verify(log) == []
