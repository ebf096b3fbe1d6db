"""A program that an agent starts is gone, with all that it started, when its block ends - or the process that has started it."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.child import Limits, child, drain, end_politely
from tests.support.family import FAMILY
from tests.support.pids import alive, gone, until

NOTHING = asyncio.subprocess.DEVNULL
STAYS, ENDS = FAMILY + "time.sleep(600)", FAMILY
STARTER = """
import asyncio, os, sys
from actors.child import child

async def main():
    words = [sys.executable, "-c", sys.argv[1]]
    async with child(words, cwd=sys.argv[2], environment=dict(os.environ), stdin=-3, stderr=-3) as process:
        await process.wait()

asyncio.run(main())
"""
"""A process that starts a program and waits for it, as a worker does."""


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


async def ended(words: list[str], environment: dict[str, str], limits: Limits = ()) -> tuple[str, int | None]:
    """What it printed, and its exit code."""
    heard = bytearray()
    async with child(words, cwd=None, environment=environment, stdin=NOTHING, stderr=NOTHING, limits=limits) as process:
        await drain(process.stdout, heard.extend)
        await process.wait()
    return heard.decode(), process.returncode


async def family(folder: Path) -> list[int]:
    pids = [int(pid) for pid in (await until(folder / "pids")).split()]
    assert len(pids) == 4
    return pids


@pytest.mark.parametrize("how", ["killed", "terminated", "stopped first"])
@pytest.mark.crash
async def test_i14_a_program_and_its_family_die_with_the_process_that_started_it(tmp_path: Path, how: str) -> None:
    """By SIGKILL, so nothing of it can end anybody; also those who left the program's group and session."""
    root = Path(__file__).resolve().parents[3]
    starter = subprocess.Popen([sys.executable, "-c", STARTER, STAYS, str(tmp_path)], cwd=root)
    try:
        pids = await family(tmp_path)
        assert all(alive(pid) for pid in pids)
        if how == "stopped first":
            starter.send_signal(signal.SIGSTOP)
        starter.send_signal(signal.SIGTERM if how == "terminated" else signal.SIGKILL)
        await asyncio.to_thread(starter.wait, 20)
    finally:
        starter.kill()
        starter.wait()
    assert [pid for pid in pids if not await gone(pid)] == []


async def test_what_a_program_leaves_behind_ends_with_it_wherever_it_went(tmp_path: Path) -> None:
    async with child(python(ENDS), cwd=str(tmp_path), environment=dict(os.environ), stdin=NOTHING, stderr=NOTHING) as process:
        assert await process.wait() == 0
        # Not a moment later: who has waited for the program has waited for them.
        assert [pid for pid in await family(tmp_path) if alive(pid)] == []


@pytest.mark.parametrize("how", ["left", "cancelled", "politely"])
async def test_the_end_of_the_block_ends_the_family(tmp_path: Path, how: str) -> None:
    async def block() -> None:
        async with child(python(STAYS), cwd=str(tmp_path), environment=dict(os.environ), stdin=NOTHING, stderr=NOTHING) as process:
            await family(tmp_path)
            if how == "politely":
                await end_politely(process)
                assert process.returncode == -signal.SIGTERM
                assert [pid for pid in await family(tmp_path) if alive(pid)] == []
            elif how == "cancelled":
                await process.wait()

    task = asyncio.ensure_future(block())
    pids = await family(tmp_path)
    if how == "cancelled":
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() == (how == "cancelled")
    assert [pid for pid in pids if alive(pid)] == []


async def test_a_program_that_ends_its_own_group_does_not_end_its_guard(tmp_path: Path) -> None:
    text = FAMILY + "import signal\nos.killpg(0, signal.SIGKILL)"
    async with child(python(text), cwd=str(tmp_path), environment=dict(os.environ), stdin=NOTHING, stderr=NOTHING) as process:
        assert await process.wait() == -signal.SIGKILL
    assert [pid for pid in await family(tmp_path) if alive(pid)] == []


@pytest.mark.parametrize(("text", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGUSR2)", -signal.SIGUSR2), ("", 0)])
async def test_it_ends_as_the_program_does(text: str, code: int) -> None:
    assert (await ended(python(f"import os, signal, sys\n{text}"), {}))[1] == code


async def test_the_program_gets_the_environment_signals_and_limits_that_it_was_given() -> None:
    text = "import os, resource; print(os.environ['ONLY'], resource.getrlimit(resource.RLIMIT_FSIZE)[0])"
    words = [sys.executable, "-I", "-X", "utf8", "-c", text]
    assert await ended(words, {"ONLY": "é"}, [(resource.RLIMIT_FSIZE, 4096)]) == ("é 4096\n", 0)
    said, _ = await ended(["/bin/sh", "-c", "grep -E '^Sig(Ign|Blk)' /proc/self/status; env"], {"ONLY": "1"})
    lines = said.splitlines()
    assert {line.split()[1] for line in lines if line.startswith("Sig")} == {"0" * 16}, "none is ignored"
    assert {line.partition("=")[0] for line in lines if "=" in line} <= {"ONLY", "PWD", "_", "SHLVL", "OLDPWD"}


async def test_a_program_that_cannot_be_started_is_said_so(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_text("no program")
    for words, error in (([str(tmp_path / "none")], FileNotFoundError), ([str(locked)], PermissionError)):
        with pytest.raises(error):
            async with child(words, cwd=None, environment={}, stdin=NOTHING, stderr=NOTHING):
                raise AssertionError("it runs")
    with pytest.raises(FileNotFoundError):
        async with child(python(""), cwd=str(tmp_path / "none"), environment={}, stdin=NOTHING, stderr=NOTHING):
            raise AssertionError("it runs")
