"""A real server of the cache for tests, with an administrator who may do everything: flush it, look into it, put anything into it.

A conftest that imports `server` and `server_of_module` has them as fixtures.
"""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ops import child
from ops.cache_server import find_program
from projections.cache.address import ServerAddress
from tests.support.deployment import wait_until
from tests.support.programs import needs_program

PASSWORD = "of-this-test"


class Valkey:
    """One server on a socket; may be killed and started again, empty."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "v.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = redis.Redis(unix_socket_path=str(self.socket), password=PASSWORD, socket_timeout=5, protocol=2)

    @property
    def address(self) -> ServerAddress:
        return ServerAddress(url=self.url)

    @property
    def url(self) -> str:
        return f"unix://:{PASSWORD}@{self.socket}"

    def start(self) -> None:
        argv = [str(find_program()), "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--requirepass", PASSWORD]
        self._process = child.spawn(argv, output=self.socket.with_suffix(".log"))
        wait_until(self.is_ready, "the test's valkey-server takes clients")

    def is_ready(self) -> bool:
        """Whether it takes clients."""
        with contextlib.suppress(redis.RedisError):
            return bool(self.admin.ping())
        return False

    def kill(self) -> None:
        """SIGKILL; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        if self._process is not None:
            self._process.send_signal(19)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(18)

    def names(self, pattern: str = "*") -> list[bytes]:
        found: Any = self.admin.keys(pattern)
        return sorted(found)

    def close(self) -> None:
        self.resume()
        self.kill()
        self.admin.close()


@contextlib.contextmanager
def valkey() -> Iterator[Valkey]:
    """A server in a folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="cue-") as folder:
        server = Valkey(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def server_of_module() -> Iterator[Valkey]:
    """One server for each module; every test has a log incarnation of its own. Skips where there is none to start, except in CI."""
    needs_program(find_program)
    with valkey() as server:
        yield server


@pytest.fixture
def server(server_of_module: Valkey) -> Valkey:
    """Running and empty."""
    server_of_module.resume()
    if not server_of_module.is_ready():
        server_of_module.start()
    server_of_module.admin.flushall()
    return server_of_module
