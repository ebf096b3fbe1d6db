"""A server of its own for each module; every test has the log incarnation of its own."""

from collections.abc import Iterator

import pytest

from ops.cache_server import find_program
from ops.exits import StartError
from tests.support.valkey import Valkey, valkey


@pytest.fixture(scope="module")
def server_of_module() -> Iterator[Valkey]:
    try:
        find_program()
    except StartError as error:
        pytest.skip(error.why)
    with valkey() as server:
        yield server


@pytest.fixture
def server(server_of_module: Valkey) -> Valkey:
    """Running and empty."""
    server_of_module.resume()
    if not server_of_module._ready():
        server_of_module.start()
    server_of_module.admin.flushall()
    return server_of_module
