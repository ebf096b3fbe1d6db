"""`up` ends when it is told to, whatever it is doing: while it starts, while a worker is started again, while there is no server (S5)."""

import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ops.up_state import UpState, read_up
from tests.support.deployment import BANK, STOP_S, Deployment, Process, cuebook_argv, kill, owners, wait_until

SHARDS = 4
STOPS = int(os.environ.get("CUEBOOK_STOPS", "2"))
"""How many stops at random moments of a start."""


class Starting:
    """A deployment on its way."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.process = Process(cuebook_argv("up", "--app", BANK, "--workers", "2", "--data", str(self.data)), folder / "up.txt")

    @property
    def state(self) -> UpState | None:
        return read_up(self.data)

    def assert_stops(self) -> None:
        """At the first SIGTERM, before anything has to be killed; says that it drains, and nothing of an error."""
        self.process.send(signal.SIGTERM)
        code = wait_until(lambda: (self.process.code,) if self.process.code is not None else None, "it has ended", STOP_S)[0]
        said = self.process.text
        # Before it listens to signals, the signal itself ends it.
        assert code == 0 or (code == -signal.SIGTERM and not said), said
        assert "cuebook:" not in said
        assert "process_killed" not in said
        assert read_up(self.data) is None


@pytest.fixture
def starting(_nats_program: None, tmp_path: Path) -> Iterator[Starting]:
    made = Starting(tmp_path)
    yield made
    made.process.stop(2)


def is_up(starting: Starting) -> bool:
    return starting.state is not None


def has_server(starting: Starting) -> bool:
    return starting.state is not None and starting.state.nats_url is not None


def has_children(starting: Starting) -> bool:
    return starting.state is not None and len(starting.state.processes) == 3


def has_worker(starting: Starting) -> bool:
    return any("worker_starting" in path.read_text() for path in (starting.data / "logs").glob("worker-*.log"))


def has_owner(starting: Starting) -> bool:
    return (starting.data / "log" / "log.json").is_file() and bool(owners(starting.data, SHARDS))


@pytest.mark.slow
@pytest.mark.parametrize("moment", [is_up, has_server, has_children, has_worker, has_owner], ids=lambda moment: moment.__name__)
def test_s5_a_start_can_be_stopped_at_every_stage(starting: Starting, moment: Callable[[Starting], bool]) -> None:
    wait_until(lambda: moment(starting) or starting.process.code is not None, moment.__name__)
    assert starting.process.code is None, starting.process.text
    starting.assert_stops()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(STOPS))
def test_s5_a_start_can_be_stopped_at_any_moment(starting: Starting, seed: int) -> None:
    with pytest.raises(AssertionError, match="the moment has come"):
        wait_until(lambda: None, "the moment has come", random.Random(seed).uniform(0.1, 4.0))
    starting.assert_stops()


@pytest.mark.slow
@pytest.mark.usefixtures("_nats_program")
@pytest.mark.parametrize("again", [False, True], ids=["while it is dead", "while it starts"])
def test_s5_a_deployment_stops_while_a_worker_is_started_again(tmp_path: Path, again: bool) -> None:
    with Deployment(tmp_path / "data") as deployment:
        dead = deployment.wait_balanced()[0]
        kill(dead)
        wait_until(lambda: dead not in deployment.workers.values(), "up has noticed")
        if again:
            wait_until(lambda: len(deployment.workers) == 2, "another one is started")
        assert deployment.stop() == 0


@pytest.fixture
def mute_server() -> Iterator[str]:
    """Takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield f"nats://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("role", ["worker", "projector"])
def test_s5_a_process_that_waits_for_its_server_stops(tmp_path: Path, mute_server: str, role: str) -> None:
    data = tmp_path / "data"
    if role == "projector":  # it reads a log that is there
        from events.log_directory import create_log

        create_log(data / "log", SHARDS)
    process = Process(cuebook_argv(role, "--app", BANK, "--nats", mute_server, "--data", str(data)), tmp_path / "said.txt")
    try:
        log = data / "logs" / f"{role}.log"
        wait_until(lambda: process.code is not None or (log.is_file() and f"{role}_starting" in log.read_text()), "it starts")
        process.send(signal.SIGTERM)
        assert process.wait(10.0) == 0, process.text
    finally:
        process.stop(1)
