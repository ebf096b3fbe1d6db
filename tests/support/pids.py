"""Whether processes that a test did not start itself have ended."""

import asyncio
import os
from pathlib import Path


def alive(pid: int) -> bool:
    """It is there, and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended: nobody but its parent can see it, and it does nothing.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


async def gone(pid: int) -> bool:
    """True as soon as the process has ended; False if it has not within ten seconds."""
    for _ in range(1_000):
        if not alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def until(path: Path) -> str:
    """What a process wrote into `path`, as soon as its line is whole."""
    for _ in range(1_000):
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        await asyncio.sleep(0.01)
    raise AssertionError(f"{path} was not written")
