"""The verbs that keep a log, as they are typed: what they print and exit with, and that they leave a running deployment alone."""

import asyncio
from pathlib import Path

import pytest

from events.log_directory import read_identity, shard_path
from runtime.ownership.lease import Lease, own_record
from runtime.ownership.survey import WORKER, main_path, presence_path
from tests.support.logs import SqliteLogUnderTest, append_one, command, deposited, stream_in, without_guards
from tests.support.verbs import VerbOn

A = stream_in(0, 2, "a")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    async def make() -> None:
        log = SqliteLogUnderTest(2, tmp_path / "data" / "log")
        store = await log.shard(0)
        await append_one(store, A, 0, deposited(), deposited(), inbox=command(A, "c1", reply=b"1"))
        await log.close()

    asyncio.run(make())
    return tmp_path / "data"


def test_backup_restore_export_import_archive_and_verify_in_turn(data: Path, tmp_path: Path, verb_on: VerbOn) -> None:
    code, rows, said = verb_on(data, "backup", str(tmp_path / "backup"))
    assert (code, [row["position"] for row in rows]) == (0, [2, 0])
    assert "verified" in said
    code, rows, _ = verb_on(tmp_path / "backup", "log")
    assert (code, len(rows)) == (0, 2)
    code, rows, _ = verb_on(data, "archive", A)
    assert (code, rows[0]["version"], rows[0]["already"]) == (0, 3, False)
    code, rows, _ = verb_on(data, "export", str(tmp_path / "x.jsonl"))
    assert (code, rows[0]["events"], rows[0]["exact"]) == (0, 3, True)
    code, rows, _ = verb_on(tmp_path / "new", "import", str(tmp_path / "x.jsonl"), "--shards", "3")
    assert (code, rows[0]["shards"], rows[0]["events"]) == (0, 3, 3)
    assert verb_on(tmp_path / "new", "verify")[0] == 0
    code, rows, _ = verb_on(data, "restore", str(tmp_path / "backup"))
    assert (code, rows[0]["positions"]) == (0, [2, 0])
    assert read_identity(data / "log").incarnation == rows[0]["incarnation"]
    assert verb_on(data, "verify")[0] == 0


def test_exit_codes_of_what_cannot_be_done(data: Path, tmp_path: Path, verb_on: VerbOn) -> None:
    assert verb_on(tmp_path / "none", "backup", str(tmp_path / "b"))[0] == 3
    assert verb_on(data, "backup", str(data))[0] == 2
    assert verb_on(data, "restore", str(tmp_path))[0] == 2
    assert verb_on(data, "archive", "no-stream")[0] == 2
    assert verb_on(data, "archive", "actor/none")[0] == 3
    assert verb_on(data, "export", str(tmp_path / "x"), "--stream", "actor/none")[0] == 3
    assert verb_on(data, "export", str(tmp_path / "x"))[0] == 0
    assert verb_on(data, "export", str(tmp_path / "x"))[0] == 2
    assert verb_on(data, "import", str(tmp_path / "x"))[0] == 2
    lines = (tmp_path / "x").read_bytes().splitlines(keepends=True)
    (tmp_path / "y").write_bytes(b"".join([lines[0], *lines[2:]]))
    code, _, said = verb_on(tmp_path / "new", "import", str(tmp_path / "y"))
    assert (code, "line 2 of" in said) == (4, True)
    without_guards(shard_path(data / "log", 0), "UPDATE events SET payload = '{}' WHERE position = 1")
    assert verb_on(data, "backup", str(tmp_path / "b"))[0] == 4
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("held", ["presence", "shard"])
def test_restore_and_archive_need_the_log_alone(data: Path, tmp_path: Path, verb_on: VerbOn, held: str) -> None:
    assert verb_on(data, "backup", str(tmp_path / "backup"))[0] == 0
    path = presence_path(data, "w1") if held == "presence" else main_path(data, 0)
    path.parent.mkdir(exist_ok=True)
    lease = Lease.try_acquire(path, own_record("w1", WORKER))
    assert lease is not None
    before = read_identity(data / "log")
    assert verb_on(data, "restore", str(tmp_path / "backup"))[0] == 7
    assert verb_on(data, "archive", A)[0] == 7
    assert verb_on(data, "backup", str(tmp_path / "second"))[0] == 0
    lease.release()
    assert read_identity(data / "log") == before
    assert verb_on(data, "restore", str(tmp_path / "backup"))[0] == 0
