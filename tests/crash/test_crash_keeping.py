"""SIGKILL in a migration, in `archive`, `backup`, `import`, `export`, and inside a checkpoint of the write-ahead log (F-6).

Whatever was under way is either not there or whole, and the same command again completes it. The points of `restore` are in
tests/fault/test_keep_kill.py.
"""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from events.crash_points import CrashPoint
from events.errors import ConfigurationError
from events.keeping.archive import archive
from events.keeping.backup import back_up
from events.keeping.export import export
from events.keeping.export_import import import_log
from events.keeping.verify import verify
from events.log_directory import create_log, read_identity, shard_path
from events.sqlite.store_sqlite import SqliteShard
from tests.support.crashing import environment
from tests.support.logs import append_one, deposited, group, stream_in

pytestmark = pytest.mark.crash
ROOT = Path(__file__).resolve().parents[2]
SHARDS = 2
A, B = (stream_in(shard, SHARDS, "s") for shard in range(SHARDS))
BEGIN = "import sys\nfrom pathlib import Path\nfrom tests.support.crashing import arm\narm()\nfolder, other = map(Path, sys.argv[1:3])\n"


def run(
    code: str, *arguments: object, extra: Mapping[str, str] | None = None, limit: int | None = None
) -> "subprocess.CompletedProcess[str]":
    """A Python process on its own. limit: no file may grow beyond so many bytes; the kernel kills at the write that would."""

    def bounds() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    argv = [sys.executable, "-c", BEGIN + code, *map(str, arguments)]
    return subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **(extra or {})}, capture_output=True, text=True, timeout=50, check=False, preexec_fn=bounds
    )


def killed(point: CrashPoint, mark: Path, code: str, *arguments: object, n: int = 1) -> None:
    """Run `code` in a process that dies at `point`."""
    done = run(code, *arguments, extra=environment(point, mark, n))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert mark.exists()
    mark.unlink()


async def fill(directory: Path, stream: str, version: int, count: int) -> None:
    store = await SqliteShard.open(directory, 0 if stream == A else 1)
    await store.take("w")
    await store.append([group(A if stream == A else B, version + n, deposited(n)) for n in range(count)])
    await store.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    directory = tmp_path / "data" / "log"
    create_log(directory, SHARDS)
    for stream in (A, B):
        asyncio.run(fill(directory, stream, 0, 50))
    return directory


# -- migrations -----------------------------------------------------------------------------------------------------------------------

NEWER = """
from events.sqlite import schema
more = ("second", ("CREATE TABLE second (a INTEGER) STRICT", "INSERT INTO second VALUES (1)"))
schema.MIGRATIONS = (*schema.MIGRATIONS, more)
schema.SCHEMA_VERSION = len(schema.MIGRATIONS)
"""


@pytest.mark.parametrize("n", [1, 9, 20, 30])
def test_a_creation_killed_inside_its_migration_is_completed_by_the_next_one(tmp_path: Path, n: int) -> None:
    code = "from events.log_directory import create_log\ncreate_log(folder, 2)"
    killed(CrashPoint.MIGRATION_STATEMENT, tmp_path / "mark", code, tmp_path / "log", "-", n=n)
    with pytest.raises(ConfigurationError):
        read_identity(tmp_path / "log")
    made = create_log(tmp_path / "log", 2)
    assert read_identity(tmp_path / "log") == made
    assert verify(tmp_path / "log") == []


@pytest.mark.parametrize("n", [1, 2])
def test_a_migration_killed_between_its_statements_leaves_the_old_file_and_is_completed(log: Path, tmp_path: Path, n: int) -> None:
    code = NEWER + (
        "from contextlib import closing\nfrom events.sqlite.sqlite_library import open_writer\n"
        "with closing(open_writer(folder, 'disk')) as connection:\n"
        "    print(schema.migrate(connection, folder, 7), connection.execute('SELECT a FROM second').fetchall())"
    )
    path = shard_path(log, 0)
    killed(CrashPoint.MIGRATION_STATEMENT, tmp_path / "mark", code, path, "-", n=n)
    assert verify(log) == []
    asyncio.run(fill(log, A, 50, 1))
    done = run(code, path, "-")
    assert done.stdout == "1 [(1,)]\n", done.stderr


# -- archive, backup, import, export --------------------------------------------------------------------------------------------------


def test_an_archive_killed_before_its_commit_leaves_the_stream_alive(log: Path, tmp_path: Path) -> None:
    killed(CrashPoint.ARCHIVE_READY, tmp_path / "mark", f"from events.keeping.archive import archive\narchive(folder, {A!r})", log, "-")
    assert verify(log) == []
    asyncio.run(fill(log, A, 50, 1))
    done = archive(log, A)
    assert (done.version, done.already) == (52, False)
    assert verify(log) == []


@pytest.mark.parametrize("verb", ["backup", "import"])
def test_a_copy_killed_before_it_has_its_name_is_not_there_and_the_next_one_is(log: Path, tmp_path: Path, verb: str) -> None:
    target = tmp_path / "target"
    if verb == "backup":
        source, code = log, "from events.keeping.backup import back_up\nback_up(folder, other)"
    else:
        source, code = tmp_path / "x.jsonl", "from events.keeping.export_import import import_log\nimport_log(folder, other)"
        export(log, source)
    killed(CrashPoint.COPY_FILLED, tmp_path / "mark", code, source, target)
    assert not target.exists()
    if verb == "backup":
        back_up(source, target)
    else:
        import_log(source, target)
    assert verify(target / "log" if verb == "backup" else target) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_export_killed_before_it_has_its_name_is_not_there_and_the_next_one_is(log: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.jsonl"
    killed(CrashPoint.EXPORT_WRITTEN, tmp_path / "mark", "from events.keeping.export import export\nexport(folder, other)", log, target)
    assert not target.exists()
    assert export(log, target).events == 100
    import_log(target, tmp_path / "again")
    assert verify(tmp_path / "again") == []


# -- a checkpoint ---------------------------------------------------------------------------------------------------------------------

CHECKPOINT_PAGES = 500
APPENDER = """
import asyncio, signal
from events.sqlite import sqlite_library
sqlite_library.AUTOCHECKPOINT_PAGES = int(sys.argv[3])
from events.envelope import NewEvent
from events.store import Append
from events.sqlite.store_sqlite import SqliteShard
# Python ignores it; the kernel's own answer is to kill, at the very write.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
async def main():
    store = await SqliteShard.open(folder, 0)
    await store.take("victim")
    version = 50
    while True:
        events = [NewEvent(type="a.b", payload=b'{"text":"%s"}' % (b"x" * 2_000)) for _ in range(20)]
        version = (await store.append([Append(stream=sys.argv[2], expected_version=version, command_id=None, events=events)]))[0].version
        print(version, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("beyond_pages", [0, 40, 400])
def test_a_process_killed_inside_a_checkpoint_loses_nothing(log: Path, beyond_pages: int) -> None:
    """No Python runs inside a checkpoint, so the kernel kills: the file may not grow beyond a bound that the write-ahead log, which is
    reused from its start, stays under, and the checkpoint writes its pages in order until one lies beyond."""
    limit = (CHECKPOINT_PAGES + 100) * 4_200 + beyond_pages * 4_096
    done = run(APPENDER, log, A, CHECKPOINT_PAGES, limit=limit)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    acknowledged = int(done.stdout.split()[-1])
    # Half of a checkpoint is in the file: it ends where the bound is, and what is not in it stands in the write-ahead log.
    assert shard_path(log, 0).stat().st_size <= limit < shard_path(log, 0).stat().st_size + 4_096
    assert Path(f"{shard_path(log, 0)}-wal").stat().st_size < limit
    assert verify(log) == []

    async def versions() -> list[int]:
        store = await SqliteShard.open(log, 0)
        try:
            events = (await store.load(A, "s"))[1]
            await store.take("next")
            await append_one(store, A, events[-1].version, deposited())
            return [event.version for event in events]
        finally:
            await store.close()

    found = asyncio.run(versions())
    assert found == list(range(1, len(found) + 1))
    assert acknowledged <= len(found) <= acknowledged + 20
    assert verify(log) == []
