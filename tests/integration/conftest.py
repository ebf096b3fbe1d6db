"""Deployments that the integration tests share. One that a test kills or stops is made for it alone."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from tests.support.deployment import Deployment

PROBE = "tests.support.probe:app"


@pytest.fixture(scope="session")
def bank(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The account example, for tests that leave processes alone; take an account of your own."""
    with Deployment(tmp_path_factory.mktemp("bank") / "data") as deployment:
        deployment.wait_balanced()
        yield deployment


@pytest.fixture(scope="session")
def probe(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """`tests.support.probe`: actors that do what the account example does not."""
    with Deployment(tmp_path_factory.mktemp("probe") / "data", app=PROBE) as deployment:
        deployment.wait_balanced()
        yield deployment


@pytest.fixture
def own_bank(_nats_program: None, tmp_path: Path) -> Iterator[Deployment]:
    """The account example for one test, which may kill, stop and start what it likes."""
    with Deployment(tmp_path / "data") as deployment:
        deployment.wait_balanced()
        yield deployment


@pytest.fixture
async def client(bank: Deployment) -> AsyncIterator[Client]:
    """A plain NATS client of `bank`."""
    connection = await nats.connect(bank.nats_url)
    yield connection
    await connection.close()


@pytest.fixture
async def probe_client(probe: Deployment) -> AsyncIterator[Client]:
    """A plain NATS client of `probe`."""
    connection = await nats.connect(probe.nats_url)
    yield connection
    await connection.close()
