"""The reading verbs on a running deployment: followed through kills of its server and workers, and read from elsewhere."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.__main__ import main
from runtime import connect
from tests.support.deployment import BANK, Deployment, Process, cuebook_argv, wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def deployment(_nats_program: None, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(tmp_path / "data") as running:
        running.wait_owned()
        yield running


def deposit(deployment: Deployment, *asked: tuple[str, str]) -> None:
    """One cent per (account, command id); repeated by id until it is done."""

    async def main() -> None:
        async with connect(deployment.nats_url, wait_s=20.0) as cue:
            for account, command_id in asked:
                await cue.ref("account", account).ask("deposit", cents=1, command_id=command_id)

    asyncio.run(main())


def server_pid(deployment: Deployment) -> int | None:
    """The nats-server among the children of `up`."""
    for task in Path(f"/proc/{deployment.state.pid}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if "nats-server" in Path(f"/proc/{pid}/comm").read_text():
                return pid
    return None


class Tail:
    """`cuebook tail` as a user runs it, its two outputs apart."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.rows_file, self.said_file = folder / "tail.jsonl", folder / "tail.txt"
        line = " ".join(cuebook_argv("tail", *arguments))
        self.process = Process(["sh", "-c", f"exec {line} > {self.rows_file}"], self.said_file)

    def rows(self) -> list[dict[str, Any]]:
        text = self.rows_file.read_text() if self.rows_file.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def ids(self) -> list[str]:
        return [row["command_id"] for row in self.rows()]


def test_a_tail_goes_on_after_kills_without_a_gap_and_without_a_double(deployment: Deployment, tmp_path: Path) -> None:
    """S31: hints may be lost with the server; the positions are not."""
    deposit(deployment, ("a", "before"))
    tail = Tail(tmp_path, "type:account.*", "--from", "start", "--data", str(deployment.data))
    try:
        wait_until(lambda: tail.ids() == ["before"], "the tail shows what was there")
        server = server_pid(deployment)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: server_pid(deployment) not in (None, server), "the server is started again")
        deposit(deployment, *((f"k{number}", f"after-server-{number}") for number in range(5)))
        wait_until(lambda: len(tail.ids()) == 6, f"the tail goes on after the server: {tail.ids()} {tail.process.text}")
        for pid in list(deployment.workers.values()):
            deployment.kill_worker(pid)
        deposit(deployment, *((f"k{number}", f"after-workers-{number}") for number in range(5)))
        wait_until(lambda: len(tail.ids()) == 11, f"the tail goes on after the workers: {tail.ids()} {tail.process.text}")
        expected = {"before", *(f"after-{what}-{n}" for what in ("server", "workers") for n in range(5))}
        assert set(tail.ids()) == expected
        assert len(tail.ids()) == len(expected)
        for stream in {row["stream"] for row in tail.rows()}:
            versions = [row["version"] for row in tail.rows() if row["stream"] == stream]
            assert versions == list(range(1, len(versions) + 1))
    finally:
        tail.process.stop()


Verb = Callable[..., list[Any]]


@pytest.fixture
def verb(
    deployment: Deployment, tmp_path: Path, no_settings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Verb:
    """Runs a verb on the deployment's files, or where only the server's address is known; its rows."""
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: str, elsewhere: bool = False) -> list[Any]:
        with monkeypatch.context() as environment:
            if elsewhere:
                environment.setenv("CUEBOOK_NATS_URL", deployment.nats_url)
            code = main([*arguments, "--data", str(tmp_path / "elsewhere" if elsewhere else deployment.data)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return run


def test_the_verbs_answer_alike_on_the_files_and_from_elsewhere(deployment: Deployment, tmp_path: Path, verb: Verb) -> None:
    deposit(deployment, *(("a", f"d-{number}") for number in range(9)))
    verb("ask", "account/a", "transfer", '{"cents": 7, "to": "b"}', "--id", "move")
    wait_until(lambda: len(verb("log", "corr:move")) >= 3, "the transfer has arrived")
    place = next(f"{row['shard']}:{row['position']}" for row in verb("log", "corr:move", "-n", "0") if row["type"] == "account.withdrawn")
    for arguments in (
        ("log", "-n", "0"), ("log", "type:account.withdrawn"), ("streams",), ("state", "account/a", "--at", "2"), ("ps",),
        ("diff", "account/a", "1", "3"), ("show", place, "--state", "--patch", "--causes", "--effects"), ("trace", "move"),
        ("trace", "move", "--messages"), ("blame", "account/a", "/cents", "--app", BANK), ("replay", "account/a", "--step", "--app", BANK),
    ):  # fmt: skip
        assert verb(*arguments, elsewhere=True) == verb(*arguments), arguments
    assert not list((tmp_path / "elsewhere").iterdir()), "nothing is written there"
