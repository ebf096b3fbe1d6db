"""`log` and `trace` on a running deployment show what is final, and say what they leave out (S30)."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from events.ids import shard_of
from ops.__main__ import main
from runtime import connect
from tests.support.deployment import Deployment

pytestmark = pytest.mark.timeout(150)

Log = Callable[..., tuple[list[tuple[str, int]], str]]


@pytest.fixture
def shown(
    own_bank: Deployment, tmp_path: Path, no_settings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Log:
    """`cuebook log -n 0` on the files, or from elsewhere: (stream, version) in the order shown, and stderr."""
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: str, elsewhere: bool = False) -> tuple[list[tuple[str, int]], str]:
        with monkeypatch.context() as environment:
            if elsewhere:
                environment.setenv("CUEBOOK_NATS_URL", own_bank.nats_url)
            code = main(["log", "-n", "0", *arguments, "--data", str(tmp_path / "elsewhere" if elsewhere else own_bank.data)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return [(row["stream"], row["version"]) for row in map(json.loads, out.splitlines())], err

    return run


def deposit(deployment: Deployment, accounts: list[str]) -> None:
    async def ask() -> None:
        async with connect(deployment.nats_url, wait_s=20.0) as cue:
            for account in accounts:
                await cue.ref("account", account).ask("deposit", cents=1)

    asyncio.run(ask())


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # who takes its shards may have to end it (S2)
            os.kill(pid, signal.SIGCONT)


def test_s30_events_later_than_a_stopped_owners_floor_are_left_out_until_they_are_final(own_bank: Deployment, shown: Log) -> None:
    owners = own_bank.wait_balanced()
    keys = [f"k{number}" for number in range(40)]
    at = {key: owners[shard_of("account", key, own_bank.shards)] for key in keys}
    stopped = at[keys[0]]
    other = next(pid for pid in owners.values() if pid != stopped)
    others = [key for key in keys if at[key] != stopped][:5]
    deposit(own_bank, keys[:4])
    before, said = shown()
    assert sorted(before) == sorted((f"account/{key}", 1) for key in keys[:4]), "what was recorded before the call is shown"
    assert said == ""
    with paused(stopped):
        deposit(own_bank, others * 2)
        count = len(others) * 2
        with paused(other):  # so that nobody takes over while we look
            rows, said = shown()
            assert rows == before
            assert f"{count} later events are left out" in said
            assert "--provisional" in said
            assert any(f"shard {shard} " in said for shard, pid in owners.items() if pid == stopped)
            at_once, said = shown("--provisional")
            assert at_once[: len(before)] == before
            assert len(at_once) == len(set(at_once)) == len(before) + count
            assert said == ""
        own_bank.wait_owned(without=stopped)
        after, said = shown()
        assert said == ""
    assert after == at_once, "final as it stood: nothing came before"
    assert shown(elsewhere=True) == (after, "")
    own_bank.wait_owned()
    deposit(own_bank, keys[:4])
    rows, said = shown()
    assert rows[: len(after)] == after, "what was final has not moved"
    assert len(rows) == len(set(rows)) == len(after) + 4
    assert said == ""
