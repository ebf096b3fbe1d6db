"""Other libraries at the same task: one command to one of 1,000 actors. They are no dependencies: `pip install "cuebook[bench]"`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from ops.bench.in_process import awake_runtime, depositing
from ops.bench.limits import STREAMS
from ops.bench.measure import Case, Cases, Setting, Unavailable, closed_loop

INSTALL: Final = 'pip install "cuebook[bench]"; in a checkout: .venv/bin/python -m pip install --require-hashes --no-deps -r ops/bench.lock'


@asynccontextmanager
async def peer_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Durable deposits by us, 100 in flight; the peers' own ways, as far as they are installed."""
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(awake_runtime(setting.folder / "peers", STREAMS))
        cases: dict[str, Case | Unavailable] = {"peer-ask": partial(closed_loop, depositing(runtime, STREAMS), 100)}
        if "autogen" in setting.wanted:
            try:
                from ops.bench.peer_autogen import autogen_case
            except ImportError as error:
                cases["autogen"] = not_installed("autogen-core", error)
            else:
                cases["autogen"] = await stack.enter_async_context(autogen_case())
        if "eventsourcing" in setting.wanted:
            try:
                from ops.bench.peer_eventsourcing import eventsourcing_case
            except ImportError as error:
                cases["eventsourcing"] = not_installed("eventsourcing", error)
            else:
                cases["eventsourcing"] = stack.enter_context(eventsourcing_case(setting.folder))
        yield cases


def not_installed(library: str, error: ImportError) -> Unavailable:
    """A row that cannot be measured here. Raises `error` if it is not the library that is missing."""
    if error.name is not None and error.name.partition(".")[0] in {"ops", "events", "actors", "runtime"}:
        raise error
    return Unavailable(f"{library} is not installed ({error}): {INSTALL}")
