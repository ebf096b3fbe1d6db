"""The process tree of `up`: restart, drain, one tree per folder, no child left behind. Real processes throughout."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from ops import processes
from ops.exits import CommandError, Exit
from ops.private_files import write_private
from ops.processes import RESTART_GAP_S, ProcessTree, Role, stop_running
from ops.up_state import UpState, read_up
from tests.support.deployment import wait_until

# Each says that it runs by creating the file named on its command line, then acts its part.
POLITE = """
import signal, sys, threading
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
open(sys.argv[1], "a").write("up\\n")
stopped.wait()
open(sys.argv[1], "a").write("drained\\n")
"""
STUBBORN = """
import signal, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "a").write("up\\n")
threading.Event().wait()
"""
TREE = """
import asyncio, sys
from pathlib import Path
from ops.processes import RESTART_GAP_S, ProcessTree, Role
async def main():
    start = [sys.executable, "-c", sys.argv[2]]
    async with ProcessTree(Path(sys.argv[1]), argv_of=lambda role: [*start, *role.arguments]) as tree:
        tree.publish(ready=True)
        return await tree.run([Role(name="worker-1", arguments=(sys.argv[3],))])
sys.exit(asyncio.run(main()))
"""


def script(text: str, role: Role) -> Sequence[str]:
    return [sys.executable, "-c", text, *role.arguments]


async def wait_lines(path: Path, count: int) -> list[str]:
    """Wait until a child has written so many lines."""
    async with asyncio.timeout(20):
        while not path.exists() or len(lines := path.read_text().splitlines()) < count:
            await asyncio.sleep(0.01)
    return lines


def wait_file(path: Path, process: "subprocess.Popen[bytes]") -> None:
    while not path.exists() or not path.read_text():
        assert process.poll() is None
        select.select([], [], [], 0.01)


async def test_a_dead_child_is_reaped_told_and_started_again(tmp_data: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    async def reaped(role: str, pid: int) -> None:
        told.append((role, pid))
        raise RuntimeError("a hook that fails must not end the tree")

    said = tmp_path / "said"
    async with (
        ProcessTree(tmp_data, on_child_reaped=reaped, argv_of=lambda r: script(POLITE, r)) as tree,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(tree.run([Role(name="worker-1", arguments=(str(said),))]))
        await wait_lines(said, 1)
        first = tree.children()[0]
        os.kill(first.pid, signal.SIGKILL)
        await wait_lines(said, 2)
        second = tree.children()[0]
        listed = read_up(tmp_data)
        tree.request_stop()
        assert await running == 0
    assert told == [("worker-1", first.pid)]
    assert (second.role, second.restarts) == ("worker-1", 1)
    assert listed is not None
    assert listed.processes == (second,)
    assert said.read_text().splitlines() == ["up", "up", "drained"]
    assert not (tmp_data / "up.json").exists()


async def test_s4_a_child_is_started_again_although_telling_of_its_death_never_ends(
    tmp_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook speaks to a server, through a client that may swallow a cancellation."""
    monkeypatch.setattr(processes, "TOLD_WITHIN_S", 0.1)
    swallowed = 0

    async def reaped(role: str, pid: int) -> None:
        nonlocal swallowed
        while not swallowed:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    said = tmp_path / "said"
    async with (
        ProcessTree(tmp_data, on_child_reaped=reaped, argv_of=lambda r: script(POLITE, r)) as tree,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(tree.run([Role(name="worker-1", arguments=(str(said),))]))
        await wait_lines(said, 1)
        os.kill(tree.children()[0].pid, signal.SIGKILL)
        await wait_lines(said, 2)
        tree.request_stop()
        assert await running == 0
    assert swallowed == 1


async def test_of_several_that_died_one_after_another_starts_again(tmp_data: Path, tmp_path: Path) -> None:
    """Those who live serve what the dead ones left, and need the processor for it."""
    said = tmp_path / "said"
    async with (
        ProcessTree(tmp_data, argv_of=lambda r: script(POLITE, r)) as tree,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(tree.run([Role(name=f"worker-{number}", arguments=(str(said),)) for number in (1, 2, 3)]))
        await wait_lines(said, 3)
        for child in tree.children():
            os.kill(child.pid, signal.SIGKILL)
        died = time.monotonic()
        starts = []
        for count in (4, 5, 6):
            await wait_lines(said, count)
            starts.append(time.monotonic() - died)
        tree.request_stop()
        assert await running == 0
    assert starts[1] >= RESTART_GAP_S
    assert starts[2] >= 2 * RESTART_GAP_S


async def test_the_second_stop_kills_what_does_not_drain(tmp_data: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    async with (
        ProcessTree(tmp_data, argv_of=lambda r: script(STUBBORN, r)) as tree,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(tree.run([Role(name="worker-1", arguments=(str(said),))]))
        await wait_lines(said, 1)
        tree.request_stop()
        assert not running.done()
        tree.request_stop()
        assert await running == 0
    assert tree.children() == ()


async def test_a_child_that_does_not_drain_in_time_is_killed(tmp_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DRAIN_MARGIN_S", 0.0)
    said = tmp_path / "said"
    async with (
        ProcessTree(tmp_data, drain_s=0.01, argv_of=lambda r: script(STUBBORN, r)) as tree,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(tree.run([Role(name="worker-1", arguments=(str(said),))]))
        await wait_lines(said, 1)
        tree.request_stop()
        assert await running == 0


@pytest.mark.parametrize("code", [Exit.USAGE, Exit.CONFLICT])
async def test_a_child_that_refuses_to_start_ends_the_tree(tmp_data: Path, tmp_path: Path, code: Exit) -> None:
    """Starting it again would find the same wrong --app, for ever."""
    said = tmp_path / "said"
    parts = {"worker-1": POLITE, "worker-2": f"raise SystemExit({int(code)})"}
    async with ProcessTree(tmp_data, argv_of=lambda r: script(parts[r.name], r)) as tree:
        roles = [Role(name=name, arguments=(str(said),)) for name in parts]
        assert await tree.run(roles) == code


async def test_a_second_tree_on_the_same_folder_is_refused(tmp_data: Path) -> None:
    async with ProcessTree(tmp_data):
        with pytest.raises(CommandError) as refused:
            await ProcessTree(tmp_data).__aenter__()
        assert read_up(tmp_data) is not None
    assert refused.value.code is Exit.CONFLICT
    assert str(os.getpid()) in refused.value.why


def tree_process(data: Path, part: str, said: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", TREE, str(data), part, str(said)], stderr=subprocess.DEVNULL)
    wait_file(said, process)
    return process


def listed_child(data: Path) -> int | None:
    state = read_up(data)
    return state.processes[0].pid if state is not None and state.processes else None


@pytest.mark.crash
def test_no_child_outlives_a_killed_tree(tmp_data: Path, tmp_path: Path) -> None:
    with tree_process(tmp_data, STUBBORN, tmp_path / "said") as tree:
        # A child may have said that it is up before the tree has written that it is there.
        child = os.pidfd_open(wait_until(lambda: listed_child(tmp_data), "a child is listed"))
        tree.kill()
    assert select.select([child], [], [], 10)[0]
    os.close(child)
    assert read_up(tmp_data) is None
    assert (tmp_data / "up.json").exists()


def test_stop_drains_the_tree_and_waits_for_it(tmp_data: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with tree_process(tmp_data, POLITE, said) as tree:
        assert stop_running(tmp_data, timeout_s=20).pid == tree.pid
        assert tree.wait() == 0
    assert said.read_text().splitlines() == ["up", "drained"]


def test_stop_now_does_not_wait_for_a_child_that_will_not_end(tmp_data: Path, tmp_path: Path) -> None:
    with tree_process(tmp_data, STUBBORN, tmp_path / "said") as tree:
        stop_running(tmp_data, timeout_s=20, now=True)
        assert tree.wait() == 0


def test_stop_says_when_the_tree_still_drains(tmp_data: Path, tmp_path: Path) -> None:
    with tree_process(tmp_data, STUBBORN, tmp_path / "said") as tree:
        with pytest.raises(CommandError) as refused:
            stop_running(tmp_data, timeout_s=0)
        assert refused.value.code is Exit.TIMEOUT
        assert tree.poll() is None
        tree.kill()


def test_stop_never_signals_a_later_process_with_the_same_pid(tmp_data: Path) -> None:
    """The pid is alive - it is ours - but it is not the process that wrote the file."""
    stale = UpState(pid=os.getpid(), started="another start", started_at="", nats_url=None, ready=True, processes=())
    write_private(tmp_data / "up.json", msgspec.json.encode(stale).decode())
    with pytest.raises(CommandError) as refused:
        stop_running(tmp_data, timeout_s=0)
    assert refused.value.code is Exit.NOT_FOUND
