"""A deployment that scenarios share which leave processes alone; take a run of your own name."""

from collections.abc import AsyncIterator, Iterator

import pytest

from runtime.client import Client, connect
from tests.support.deployment import Deployment
from tests.support.runs import APP


@pytest.fixture(scope="session")
def crew(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("crew") / "data", app=APP) as deployment:
        deployment.wait_balanced()
        yield deployment


@pytest.fixture
async def cue(crew: Deployment) -> AsyncIterator[Client]:
    async with connect(crew.nats_url) as client:
        yield client
