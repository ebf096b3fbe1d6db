"""Two programs that embed the runtime, each with a log of its own, beside one: what a second core is worth where no third process works.

`python -m ops.bench.embedded` is one such program.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from ops import event_loop
from ops.bench.children import measuring, serve
from ops.bench.in_process import awake_runtime, depositing
from ops.bench.limits import STREAMS
from ops.bench.measure import Cases, Setting, closed_loop

_FOLDER: Final = "CUEBOOK_BENCH_FOLDER"


@asynccontextmanager
async def embedded_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Deposits in one process, and in two at the same time."""

    def environment(name: str) -> dict[str, str]:
        return {_FOLDER: str(setting.folder / name)}

    module = "ops.bench.embedded"
    async with (
        measuring(module, [environment("alone")], setting.folder) as one,
        measuring(module, [environment("first"), environment("second")], setting.folder) as two,
    ):
        yield {"workers-embedded-1": one.run, "workers-embedded": two.run}


async def program(folder: Path) -> None:
    """One process: its own log, 100 deposits in flight while it is asked to."""
    async with awake_runtime(folder, STREAMS) as runtime:
        await serve(partial(closed_loop, depositing(runtime, STREAMS), 100))


if __name__ == "__main__":
    sys.exit(event_loop.run(program(Path(os.environ[_FOLDER]))))
