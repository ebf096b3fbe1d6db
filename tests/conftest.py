"""Fixtures that every test may use. Async tests run on uvloop where it is installed, in asyncio's debug mode."""

import importlib.util
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import nats
import pytest
from nats.aio.client import Client

from ops.__main__ import main
from ops.nats_server import NatsServer, find_program
from tests.support.programs import needs_program
from tests.support.verbs import Ran, Verb, VerbOn

# CI runs the same examples every time; by hand each run looks at new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The one backend of all async tests and fixtures; a wider scope would share a loop between tests by surprise."""
    return "asyncio", {"debug": True, "use_uvloop": importlib.util.find_spec("uvloop") is not None}


@pytest.fixture
def tmp_data(tmp_path: Path) -> Path:
    """An empty folder for one deployment; not created, as on a first start."""
    return tmp_path / "data"


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests has named no deployment of his own."""
    for name in ("CUEBOOK_NATS_URL", "CUEBOOK_APP", "CUEBOOK_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def verb_on(no_settings: None, capsys: pytest.CaptureFixture[str]) -> VerbOn:
    """Runs a verb in this process."""

    def run(data: Path, *arguments: str) -> Ran:
        code = main([*arguments, "--data", str(data)])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines() if line.startswith(("{", "["))], err

    return run


@pytest.fixture
def cuebook(deployment: Path, verb_on: VerbOn) -> Verb:
    """Runs a verb on the fixture `deployment` of a module: the folder of one that is down."""

    def run(*arguments: str, data: Path | None = None) -> Ran:
        return verb_on(data or deployment, *arguments)

    return run


@pytest.fixture(scope="session")
def _nats_program() -> None:
    """Skip where there is no server to start, except in CI: there it is an error."""
    needs_program(find_program)


@pytest.fixture(scope="session")
def nats_server(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One embedded server with JetStream for the whole run: take a namespace of your own on it, and do not stop it."""
    server = NatsServer(tmp_path_factory.mktemp("nats-session"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_nats_server(_nats_program: None, tmp_data: Path) -> Iterator[NatsServer]:
    """An embedded server for one test, which may kill, stop and start it."""
    server = NatsServer(tmp_data)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def nats_client(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A client of the session's server, closed after the test."""
    client = await nats.connect(**nats_server.connection.nats_options())
    yield client
    await client.close()
