"""I-20: a damaged stream is put aside, by name, and stays so across restarts; the others go on."""

from pathlib import Path

import pytest

from actors.errors import Unavailable
from events.ids import StreamId, shard_of
from events.keeping.backup import back_up
from events.keeping.quarantine import Quarantine, Quarantined, QuarantinedError
from events.keeping.restore import restore
from events.log_directory import shard_path
from events.sqlite.store_sqlite import SqliteShard
from runtime.local import local_runtime
from tests.support.logs import SqliteLogUnderTest, append_one, deposited, stream_in, without_guards
from tests.support.sealed_app import app

A, B = stream_in(0, 1, "a"), stream_in(0, 1, "b")
FLIP = "UPDATE events SET payload = replace(payload, '1', '7') WHERE position = 1"
MEND = "UPDATE events SET payload = replace(payload, '7', '1') WHERE position = 1"


async def damaged(directory: Path) -> Path:
    log = SqliteLogUnderTest(1, directory)
    store = await log.shard()
    await append_one(store, A, 0, deposited(1))
    await append_one(store, B, 0, deposited(2))
    await log.close()
    back_up(directory, directory.parent / "backup")
    without_guards(shard_path(directory, 0), FLIP)
    return directory


async def test_i20_a_damaged_stream_is_refused_with_its_place_and_stays_so_until_it_is_lifted(tmp_path: Path) -> None:
    log = await damaged(tmp_path / "log")
    for _ in range(2):  # once where it is found, once by whoever comes next
        store = await SqliteShard.open(log, 0)
        try:
            with pytest.raises(QuarantinedError, match="cuebook quarantine lift") as refused:
                await store.load(A, "s")
            assert (refused.value.fields["stream"], refused.value.fields["shard"], refused.value.fields["position"]) == (A, 0, 1)
            assert len((await store.load(B, "s"))[1]) == 1
        finally:
            await store.close()
    assert [(each.stream, each.position) for each in Quarantine(log).all()] == [(A, 1)]
    without_guards(shard_path(log, 0), MEND)
    store = await SqliteShard.open(log, 0)
    try:
        with pytest.raises(QuarantinedError):
            await store.load(A, "s")  # a person says that it is mended, not luck
        assert Quarantine(log).lift(A)
        assert len((await store.load(A, "s"))[1]) == 1
        assert not Quarantine(log).lift(A)
    finally:
        await store.close()


async def test_a_restore_ends_every_quarantine(tmp_path: Path) -> None:
    log = await damaged(tmp_path / "log")
    Quarantine(log).put(Quarantined(stream=A, shard=0, position=1, version=1, reason="r", noticed_at_us=0))
    restore(tmp_path / "backup", log)
    assert list(Quarantine(log).all()) == []


async def test_a_quarantined_actor_refuses_and_nothing_is_written_to_its_stream(tmp_path: Path) -> None:
    log, bad, good = tmp_path / "data" / "log", StreamId("board/bad"), "board/good"
    async with local_runtime(app, log, shards=2, keys=tmp_path / "keys") as runtime:
        for stream in (bad, good):
            await runtime.ask(stream, "note", text="one")
    path = shard_path(log, shard_of("board", "bad", 2))
    bad_rows = "stream_id IN (SELECT id FROM streams WHERE key = 'bad')"
    without_guards(path, f"UPDATE events SET payload = replace(payload, 'one', 'two') WHERE {bad_rows}")
    async with local_runtime(app, log, shards=2, keys=tmp_path / "keys") as runtime:
        for _ in range(8):  # more often than an actor may fail before it is stopped
            with pytest.raises(Unavailable, match="quarantine") as refused:
                await runtime.ask(bad, "note", text="x", timeout_s=20)
            assert (refused.value.fields["reason"], refused.value.fields["position"]) == ("quarantined", 1)
            Quarantine(log).lift(bad)
        assert await runtime.ask(good, "note", text="two") == "two"
        shard = runtime.shards[shard_of("board", "bad", 2)]
        head = await shard.store.head(bad)
        assert head is not None
        assert head.version == 1


def test_the_first_reason_stays_and_an_unreadable_entry_still_holds(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    for reason in ("first", "second"):
        quarantine.put(Quarantined(stream=A, shard=0, position=None, version=None, reason=reason, noticed_at_us=1))
    found = quarantine.find(A)
    assert found is not None
    assert found.reason == "first"
    (tmp_path / "quarantine" / f"{B.replace('/', '.')}.json").write_text("{")
    assert [each.stream for each in quarantine.all()] == [A, B]
    with pytest.raises(ValueError, match="not an actor"):
        quarantine.find("../x")
