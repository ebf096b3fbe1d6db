"""SIGKILL at each step of an erasure (S29): what was begun is completed by the next owner, and nothing else is touched."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.errors import Gone
from events.crash_points import CrashPoint
from events.envelope import NewEvent
from events.ids import shard_of
from events.keeping.verify import verify
from events.log_directory import create_log
from events.sealed.erasure import finish_erasures
from events.sqlite.store_sqlite import SqliteShard
from events.store import Snapshot
from runtime.local import local_runtime
from tests.support.crashing import environment
from tests.support.logs import append_one, command, deposited, stream_in
from tests.support.sealed_app import app

pytestmark = pytest.mark.crash
ROOT = Path(__file__).resolve().parents[2]
SHARDS = 2
A, B = stream_in(0, SHARDS, "erased"), stream_in(0, SHARDS, "kept")
CANARY = b"canary-7f3a"
ERASE = """
import asyncio, sys
from pathlib import Path
from tests.support.crashing import arm
arm()
from events.sealed.erasure import erase
asyncio.run(erase(Path(sys.argv[1]), sys.argv[2], "test", None))
"""


async def _fill(directory: Path) -> None:
    store = await SqliteShard.open(directory, 0)
    await store.take("w")
    for n in range(40):
        body = b'{"text": "%s %d %s"}' % (CANARY, n, b"x" * 5_000)
        said = NewEvent(type="account.said", payload=body, summary=CANARY.decode(), error=CANARY.decode())
        snapshot = Snapshot(stream=A, version=n + 1, state=body, shape="s")  # type: ignore[arg-type]
        done = command(A, f"c{n}", reply=body)
        await append_one(store, A, n, said, inbox=done, command_id=f"c{n}", snapshot=snapshot)
        await append_one(store, B, n, deposited(n))
    await store.close()


def hits(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and CANARY in path.read_bytes()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    directory = tmp_path / "data" / "log"
    create_log(directory, SHARDS)
    asyncio.run(_fill(directory))
    assert hits(directory)
    return directory


STEPS = (
    CrashPoint.ERASE_PAYLOADS, CrashPoint.ERASE_READY, CrashPoint.ERASE_COMMITTED, CrashPoint.ERASE_KEYS_GONE, CrashPoint.ERASE_SCRUBBED,
)  # fmt: skip


@pytest.mark.parametrize("point", STEPS)
def test_s29_an_erasure_killed_at_any_step_is_completed_by_the_next_owner(log: Path, tmp_path: Path, point: CrashPoint) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ERASE, str(log), A], cwd=ROOT, env={**os.environ, **environment(point, tmp_path / "mark")},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert verify(log) == []

    async def go_on() -> tuple[str, list[object]]:
        store = await SqliteShard.open(log, 0)
        try:
            await store.take("next")
            await finish_erasures(store, None)
            head = await store.head(A)
            assert head is not None
            return head.status, [event.payload for event in (await store.load(B, "s"))[1]]
        finally:
            await store.close()

    status, others = asyncio.run(go_on())
    assert len(others) == 40
    if point in STEPS[:2]:
        # Before its commit there is no trace of it, and nothing is half removed.
        assert status == "live"
        assert hits(log)
    else:
        assert (status, hits(log)) == ("erased", [])
    subprocess.run([sys.executable, "-c", ERASE, str(log), A], cwd=ROOT, check=True, timeout=50)
    assert hits(log) == []
    assert verify(log) == []


SEALED_ERASE = """
import asyncio, sys
from pathlib import Path
from tests.support.crashing import arm
arm()
from events.sealed.erasure import erase
from runtime.sealer_aesgcm import AesGcmSealer
asyncio.run(erase(Path(sys.argv[1]), sys.argv[2], "test", AesGcmSealer(Path(sys.argv[3]))))
"""


@pytest.mark.parametrize("point", [CrashPoint.ERASE_COMMITTED, CrashPoint.ERASE_KEY_OVERWRITTEN, CrashPoint.ERASE_KEYS_GONE])
async def test_s29_keys_whose_destruction_was_killed_are_destroyed_by_the_next_owner(tmp_path: Path, point: CrashPoint) -> None:
    log, keys, stream = tmp_path / "data" / "log", tmp_path / "keys", "patient/p1"
    async with local_runtime(app, log, shards=SHARDS, keys=keys) as runtime:
        await runtime.ask(stream, "note", text=CANARY.decode())
    assert hits(log) == []
    done = subprocess.run(
        [sys.executable, "-c", SEALED_ERASE, str(log), stream, str(keys)], cwd=ROOT,
        env={**os.environ, **environment(point, tmp_path / "mark")}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    async with local_runtime(app, log, keys=keys) as runtime:
        with pytest.raises(Gone):
            await runtime.ask(stream, "all")
        shard = runtime.shards[shard_of("patient", "p1", SHARDS)]
        while await shard.store.erasures():
            await asyncio.sleep(0)
    assert [path for path in keys.rglob("*") if path.is_file()] == []
    assert verify(log) == []
