"""kill -9 of `backup` and `restore`: nothing half-made is ever taken for whole, and the same command again completes it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from events.crash_points import CrashPoint
from events.errors import CuebookError
from events.keeping.backup import back_up
from events.keeping.restore import restore
from events.keeping.verify import verify
from events.log_directory import LOG_FILE, create_log, read_identity
from events.sqlite.store_sqlite import SqliteShard
from tests.support.crashing import environment
from tests.support.logs import append_one, deposited, group, stream_in

ROOT = Path(__file__).resolve().parents[2]
SHARDS = 2
STREAMS = [stream_in(shard, SHARDS, "s") for shard in range(SHARDS)]

RESTORE = """
import sys
from pathlib import Path
from events.keeping.restore import restore
from tests.support.crashing import arm
arm()
restore(Path(sys.argv[1]), Path(sys.argv[2]))
"""
POINTS = [point for point in CrashPoint if point.value.startswith("restore.")]
HIDDEN = (CrashPoint.RESTORE_HIDDEN, CrashPoint.RESTORE_FIRST_SHARD, CrashPoint.RESTORE_ALL_SHARDS)
UNTOUCHED = (CrashPoint.RESTORE_BEGUN, CrashPoint.RESTORE_COPIED, CrashPoint.RESTORE_PREPARED)
BACKUP = """
import sys
from pathlib import Path
from events.keeping.backup import back_up
print("started", flush=True)
back_up(Path(sys.argv[1]), Path(sys.argv[2]), lambda line: print(line, flush=True))
"""


async def append(directory: Path, version: int, count: int) -> None:
    for shard, stream in enumerate(STREAMS):
        store = await SqliteShard.open(directory, shard)
        await store.take("w")
        for after in range(version, version + count, 100):
            await store.append([group(stream, after, *(deposited(n) for n in range(min(100, version + count - after))))])
        await store.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    directory = tmp_path / "data" / "log"
    create_log(directory, SHARDS)
    asyncio.run(append(directory, 0, 300))
    return directory


def run_python(code: str, *arguments: str, extra: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **(extra or {})})


@pytest.mark.crash
@pytest.mark.parametrize("point", POINTS)
def test_a_restore_killed_anywhere_leaves_one_whole_log_or_none_and_completes(log: Path, tmp_path: Path, point: CrashPoint) -> None:
    back_up(log, tmp_path / "backup")
    asyncio.run(append(log, 300, 10))
    before = read_identity(log)
    with run_python(RESTORE, str(tmp_path / "backup"), str(log), extra=environment(point, tmp_path / "died")) as process:
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert (tmp_path / "died").exists()
    # What a program sees now: the former log, the restored one, or that there is none. Never a mixture, never a new one.
    try:
        seen = read_identity(log)
    except CuebookError:
        assert point in HIDDEN
        with pytest.raises(CuebookError, match="holds shard files but no"):
            create_log(log, SHARDS)
    else:
        assert (seen == before) == (point in UNTOUCHED)
        assert verify(log) == []
    done = restore(tmp_path / "backup", log)
    assert read_identity(log).incarnation == done.incarnation != before.incarnation
    assert verify(log) == []
    assert done.replaced is not None
    assert read_identity(Path(done.replaced)) == before
    assert verify(Path(done.replaced)) == []
    assert len(list(log.glob("re*"))) == 1
    asyncio.run(append(log, 300, 1))


@pytest.mark.crash
@pytest.mark.parametrize("after_lines", [1, 2, 3, 4])
def test_a_backup_killed_anywhere_leaves_no_backup_and_the_next_one_works(log: Path, tmp_path: Path, after_lines: int) -> None:
    with run_python(BACKUP, str(log), str(tmp_path / "backup")) as process:
        assert process.stdout is not None
        for _ in range(after_lines):
            process.stdout.readline()
        process.kill()
        process.wait(timeout=30)
    if (tmp_path / "backup").exists():
        # It was faster than the signal.
        assert verify(tmp_path / "backup" / "log") == []
        return
    done = back_up(log, tmp_path / "backup")
    assert [shard.position for shard in done.shards] == [300, 300]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "data"]


@pytest.mark.crash
def test_a_writer_in_another_process_is_not_disturbed(log: Path, tmp_path: Path) -> None:
    """The owner is another process, as in a deployment; it is killed under way, and the backup is still a beginning of its log."""
    code = (
        "import asyncio\nfrom pathlib import Path\nfrom events.sqlite.store_sqlite import SqliteShard\n"
        "from tests.support.logs import append_one, deposited\n"
        f"async def main():\n    store = await SqliteShard.open(Path({str(log)!r}), 0)\n    await store.take('w')\n    n = 300\n"
        f"    while True:\n        await append_one(store, {STREAMS[0]!r}, n, deposited(n))\n        n += 1\n        print(n, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with run_python(code) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(50)]
        done = back_up(log, tmp_path / "backup")
        time.sleep(0.05)
        process.kill()
        rest = [int(line) for line in process.stdout.read().splitlines() if line.strip().isdigit()]
    assert said[-1] <= done.shards[0].position <= rest[-1] + 1
    assert verify(tmp_path / "backup" / "log") == []
    assert verify(log) == []
    assert (tmp_path / "backup" / "log" / LOG_FILE).is_file()


async def test_backups_follow_each_other_while_the_log_grows(log: Path, tmp_path: Path) -> None:
    store = await SqliteShard.open(log, 0)
    await store.take("w")
    for number in range(3):
        await append_one(store, STREAMS[0], 300 + number, deposited())
        done = await asyncio.to_thread(back_up, log, tmp_path / f"backup-{number}")
        assert done.shards[0].position == 301 + number
    await store.close()
