"""A server and workers that a test starts and stops one by one, without the process tree of `cuebook up`."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import nats
from nats.aio.client import Client

from ops.nats_server import NatsServer
from runtime.wire import Subjects
from tests.support.deployment import BANK, Process, cuebook_argv, owners

SHARDS = 4


class Workers:
    """See the module. `running` holds every process that was started, under its name."""

    def __init__(self, folder: Path, *, app: str = BANK, environment: Mapping[str, str] | None = None) -> None:
        self.data = folder / "data"
        self.server = NatsServer(self.data, mappings=Subjects("cue", SHARDS).server_mappings())
        self.running: dict[str, Process] = {}
        self._app = app
        self._environment = dict(environment or {})

    @property
    def log(self) -> Path:
        return self.data / "log"

    def start(self, name: str, extra: Mapping[str, str] | None = None) -> Process:
        argv = cuebook_argv("worker", "--app", self._app, "--data", str(self.data), "--name", name)
        environment = {**self._environment, **(extra or {})}
        process = self.running[name] = Process(argv, self.data / f"{name}.txt", environment=environment)
        return process

    def owners(self) -> dict[int, int]:
        return owners(self.data, SHARDS)

    def shares(self) -> dict[str, int]:
        """How many shards each worker owns, once all are owned; else nothing."""
        found = self.owners()
        if len(found) < SHARDS:
            return {}
        return {name: sum(pid == process.pid for pid in found.values()) for name, process in self.running.items()}

    def stop(self) -> None:
        for process in self.running.values():
            process.stop()
        self.server.stop()


@contextmanager
def served(folder: Path, *, app: str = BANK, environment: Mapping[str, str] | None = None) -> Iterator[Workers]:
    """A server that runs, no worker yet; all that was started has ended behind the block."""
    made = Workers(folder, app=app, environment=environment)
    made.server.start()
    try:
        yield made
    finally:
        made.stop()


@asynccontextmanager
async def connected(workers: Workers) -> AsyncIterator[Client]:
    client = await nats.connect(**workers.server.connection.nats_options())
    try:
        yield client
    finally:
        await client.close()
