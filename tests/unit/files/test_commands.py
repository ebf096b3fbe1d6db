"""Programs of the workspace: without a shell, within limits, and gone with their step."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors import Actor, State, StepFailed, command
from actors.files.commands import CommandMissingError, run_command
from actors.files.limits import COMMAND_OUTPUT_BYTES_MAX
from actors.testing import ActorTest
from tests.support.pids import gone, until


def script(workspace: Path, text: str) -> list[str]:
    (workspace / "job.py").write_text(text)
    return ["python", "./job.py"]


async def test_output_exit_code_and_a_clean_environment(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUEBOOK_TOKEN", "canary")
    ended = await run_command(
        str(workspace), script(workspace, "import os, sys\nprint(sorted(os.environ), os.getcwd(), sys.stdin.read())\nsys.exit(3)"), 30
    )
    assert ended.exit_code == 3
    assert str(workspace) in ended.output
    assert "CUEBOOK" not in ended.output
    assert not ended.timed_out


async def test_no_shell(workspace: Path) -> None:
    words = [*script(workspace, "import sys\nprint(sys.argv[1:])"), "$(touch made)", "; touch made", "`touch made`"]
    ended = await run_command(str(workspace), words, 30)
    assert "$(touch made)" in ended.output
    assert not (workspace / "made").exists()


async def test_a_timeout_ends_the_whole_family(workspace: Path) -> None:
    text = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
open("pids", "w").write(f"{os.getpid()} {child.pid}\\n")
print("begun", flush=True)
time.sleep(600)
"""
    ended = await run_command(str(workspace), script(workspace, text), 1.0)
    assert ended.timed_out
    assert ended.exit_code < 0
    assert "begun" in ended.output
    for pid in (await until(workspace / "pids")).split():
        assert await gone(int(pid))


async def test_cancelling_ends_it(workspace: Path) -> None:
    words = script(workspace, "import os, time\nopen('pids', 'w').write(f'{os.getpid()}\\n')\ntime.sleep(600)")
    task = asyncio.ensure_future(run_command(str(workspace), words, 600))
    pid = int(await until(workspace / "pids"))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await gone(pid)


class Nothing(State):
    pass


class Runner(Actor[Nothing], name="runner"):
    @command
    async def run(self, root: str, words: list[str]) -> str:
        try:
            await self.step("run", run_command, root, words, 600.0, timeout_s=3.0)
        except StepFailed as error:
            return str(error.fields["type"])
        return "ended"


async def test_s15_the_deadline_of_its_step_ends_it(workspace: Path) -> None:
    words = script(workspace, "import os, time\nopen('pids', 'w').write(f'{os.getpid()}\\n')\ntime.sleep(600)")
    asked = asyncio.ensure_future(ActorTest(Runner).when("run", root=str(workspace), words=words))
    pid = int(await until(workspace / "pids"))
    assert (await asked).reply == "deadline"
    assert await gone(pid)


async def test_what_it_leaves_behind_ends_with_it(workspace: Path) -> None:
    text = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
open("pids", "w").write(f"{child.pid}\\n")
"""
    ended = await run_command(str(workspace), script(workspace, text), 30)
    assert ended.exit_code == 0
    assert await gone(int((workspace / "pids").read_text()))


async def test_a_flood_of_output_costs_bounded_memory_and_keeps_both_ends(workspace: Path) -> None:
    words = script(workspace, "print('first')\nfor _ in range(20_000): print('x' * 100)\nprint('last')")
    ended = await run_command(str(workspace), words, 60)
    assert ended.exit_code == 0
    assert ended.output_bytes > 2_000_000
    assert len(ended.output) < COMMAND_OUTPUT_BYTES_MAX + 100
    assert ended.output.startswith("first")
    assert ended.output.endswith("last\n")
    assert "bytes left out" in ended.output


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
async def test_memory_is_limited(workspace: Path) -> None:
    ended = await run_command(str(workspace), script(workspace, "b = bytearray(3 * 1024 ** 3)"), 60)
    assert ended.exit_code != 0
    assert "MemoryError" in ended.output


async def test_a_program_that_is_not_there_or_lies_in_the_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandMissingError):
        await run_command(str(workspace), ["no-such-program"], 5)
    evil = workspace / "evil"
    evil.write_text("#!/bin/sh\ntouch made\n")
    evil.chmod(0o755)
    monkeypatch.setenv("PATH", f"{workspace}:{os.environ['PATH']}")
    with pytest.raises(CommandMissingError):
        await run_command(str(workspace), ["evil"], 5)
    assert not (workspace / "made").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="who leaves a session is found on Linux only")
@pytest.mark.parametrize("ends", [True, False])
async def test_who_leaves_the_session_ends_with_it_and_holds_nothing_up(workspace: Path, ends: bool) -> None:
    """It keeps the pipe open: neither a program that has ended nor one that is out of time is waited for any longer."""
    text = f"""
import os, subprocess, sys, time
held = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
far = subprocess.Popen([sys.executable, "-c", held], start_new_session=True)
open("pids", "w").write(f"{{far.pid}}\\n")
print("said", flush=True)
time.sleep({0 if ends else 600})
"""
    async with asyncio.timeout(20):
        ended = await run_command(str(workspace), script(workspace, text), 1.5 if not ends else 60)
    assert ended.timed_out is not ends
    assert ended.output == "said\n"
    assert await gone(int((workspace / "pids").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="who leaves a session is found on Linux only")
def test_the_same_without_uvloop(workspace: Path) -> None:
    """Asyncio's own wait for a program waits for its pipes as well: for ever, where somebody else holds them."""
    far = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
    script(workspace, far)
    call = f"run_command({str(workspace)!r}, ['python', './job.py'], 60)"
    asked = f"import asyncio\nfrom actors.files.commands import run_command\nprint(asyncio.run({call}))"
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=20, check=True)
    assert "exit_code=0" in ended.stdout
    assert "timed_out=False" in ended.stdout
