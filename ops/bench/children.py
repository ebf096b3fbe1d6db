"""Processes that measure beside this one, all at the same time: load generators, and programs that embed the runtime.

Each is started with `python -m MODULE` and one end of a socket pair; it gets the length of a sample as a line, and answers with the sample.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from ops import child
from ops.bench.measure import Case, Sample
from ops.exits import CommandError

_DESCRIPTOR: Final = "CUEBOOK_BENCH_DESCRIPTOR"
_READY: Final = b"ready\n"
_UP_S: Final = 20.0
_STOP_S: Final = 5.0
_LATE_S: Final = 60.0


class Children:
    """What `measuring` yields."""

    def __init__(self, links: Sequence[tuple[asyncio.StreamReader, asyncio.StreamWriter]], logs: Sequence[Path]) -> None:
        self._links = links
        self._logs = logs

    async def run(self, seconds: float) -> Sample:
        """One sample of all of them together: the sum of their counts and rates.

        Raises:
            CommandError: one of them has died; names its log.
        """
        for _, writer in self._links:
            writer.write(f"{seconds}\n".encode())
        samples = [msgspec.json.decode(await self._line(number, seconds + _LATE_S), type=Sample) for number in range(len(self._links))]
        return Sample(
            count=sum(each.count for each in samples), per_s=sum(each.per_s for each in samples),
            p50_us=max(each.p50_us or 0.0 for each in samples), p99_us=max(each.p99_us or 0.0 for each in samples),
        )  # fmt: skip

    async def ready(self) -> None:
        """Wait until every one has said so. Raises CommandError."""
        for number in range(len(self._links)):
            await self._line(number, _UP_S)

    async def _line(self, number: int, timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._links[number][0].readline()
        except TimeoutError:
            line = b""
        if not line:
            said = self._logs[number].read_text(errors="replace").strip()
            raise CommandError("a process of the bench ended, or hangs", why=said.rpartition("\n")[2] or "it said nothing")
        return line


@asynccontextmanager
async def measuring(module: str, environments: Sequence[Mapping[str, str]], folder: Path) -> AsyncIterator[Children]:
    """One process of `module` per environment, which is added to ours; stopped at the end."""
    processes: list[subprocess.Popen[bytes]] = []
    links: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    logs: list[Path] = []
    try:
        for number, environment in enumerate(environments):
            ours, theirs = socket.socketpair()
            logs.append(folder / f"{module.rpartition('.')[2]}-{number}.log")
            with theirs:
                processes.append(
                    child.spawn(
                        [sys.executable, "-P", "-m", module],
                        environment={**os.environ, **environment, _DESCRIPTOR: str(theirs.fileno())},
                        output=logs[-1],
                        pass_fds=(theirs.fileno(),),
                    )
                )
            ours.setblocking(False)
            links.append(await asyncio.open_connection(sock=ours))
        found = Children(links, logs)
        await found.ready()
        yield found
    finally:
        for _, writer in links:
            writer.close()
        for process in processes:
            await child.stop(process, _STOP_S)


async def serve(case: Case) -> None:
    """In the child: run `case` whenever asked to, until the parent closes its end."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=int(os.environ[_DESCRIPTOR])))
    writer.write(_READY)
    while line := await reader.readline():
        writer.write(msgspec.json.encode(await case(float(line))) + b"\n")
    writer.close()
