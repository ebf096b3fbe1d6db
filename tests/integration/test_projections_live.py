"""Projections of a running deployment: asked over plain NATS, by the client and by an actor, while processes die (S31, S37)."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from actors.errors import BadPayload, Unknown
from ops.up_state import read_up
from projections.locking import lock_holder
from runtime.client import connect
from tests.support.deployment import Deployment, clean_environment, cuebook_argv, wait_until, wait_until_async

BALANCES = "ops.examples.balances:app"


@pytest.fixture(scope="module")
def balances(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("balances") / "data", app=BALANCES) as deployment:
        deployment.wait_balanced()
        yield deployment


def projector_of(deployment: Deployment) -> int:
    pid: int = wait_until(lambda: lock_holder(deployment.data / "views" / "balances"), "a projector runs")
    return pid


async def test_a_view_answers_over_plain_nats_with_what_was_just_acknowledged(balances: Deployment) -> None:
    projector_of(balances)
    client = await nats.connect(balances.nats_url)
    try:
        reply = await client.request("cue.ask.account.plain.deposit", b'{"cents":700}', timeout=10, headers={"Cue-Meta": "1"})
        assert reply.headers is not None
        after = {reply.headers["Cue-Shard"]: int(reply.headers["Cue-Position"])}
        body = msgspec.json.encode({"limit": 100, "_after": after})
        answer = await client.request("cue.view.balances.richest", body, timeout=10, headers={"Cue-Meta": "1"})
        assert ["account/plain", 700] in msgspec.json.decode(answer.data)
        assert answer.headers is not None
        assert msgspec.json.decode(answer.headers["Cue-Position"])[reply.headers["Cue-Shard"]] >= int(reply.headers["Cue-Position"])
        refused = await client.request("cue.view.balances.richest", b'{"limit":"x"}', timeout=10)
        assert refused.headers is not None
        assert refused.headers["Nats-Service-Error-Code"] == "400"
        found = await client.request(f"$SRV.INFO.cuebook-views.projector-{projector_of(balances)}", b"", timeout=10)
        info = msgspec.json.decode(found.data)
        assert "cue.view.balances.richest" in [each["subject"] for each in info["endpoints"]]
    finally:
        await client.close()


async def test_a_read_beyond_the_log_ends_at_its_deadline_with_a_typed_error(balances: Deployment) -> None:
    """S31: 503, to be repeated; never an older answer."""
    async with connect(balances.nats_url) as cue:
        head = await cue.log("head")
    beyond = {shard: at + 1_000_000 for shard, at in head["positions"].items()}
    client = await nats.connect(balances.nats_url)
    try:
        deadline = {"Cue-Deadline": str(int(time.time() * 1_000) + 700)}
        began = time.monotonic()
        answer = await client.request("cue.view.balances.richest", msgspec.json.encode({"_after": beyond}), timeout=20, headers=deadline)
        assert time.monotonic() - began < 10
        assert answer.headers is not None
        assert answer.headers["Nats-Service-Error-Code"] == "503"
        body = msgspec.json.decode(answer.data)
        assert (body["error"], body["retryable"], body["outcome"]) == ("unavailable", True, "not_done")
        assert set(body["positions"]) == set(head["positions"])
    finally:
        await client.close()


async def test_the_client_reads_its_own_writes_and_is_told_what_is_wrong(balances: Deployment) -> None:
    async with connect(balances.nats_url) as cue:
        for number in range(20):
            await cue.ref("account", f"c{number}").ask("deposit", cents=number + 1)
        head = await cue.log("head")
        view = cue.view("balances", after={int(shard): at for shard, at in head["positions"].items()})
        found = dict(await view.richest(limit=100))
        assert [found[f"account/c{number}"] for number in range(20)] == list(range(1, 21))
        with pytest.raises(BadPayload):
            await view.richest(limit="many")
        with pytest.raises(Unknown):
            await view.poorest()


async def test_a_killed_projector_is_replaced_and_nothing_is_counted_twice(balances: Deployment) -> None:
    async with connect(balances.nats_url) as cue:
        account = cue.ref("account", "steady")
        for _ in range(3):
            for _ in range(10):
                await account.ask("deposit", cents=1)
            os.kill(projector_of(balances), signal.SIGKILL)
        head = await cue.log("head")
        rows: Any = await cue.view("balances", after={int(shard): at for shard, at in head["positions"].items()}).richest(limit=1_000)
        assert dict(rows)["account/steady"] == 30


async def test_s31_without_any_hint_the_lag_ends_within_a_second_and_a_half(balances: Deployment, tmp_path: Path) -> None:
    """A second projector hears nothing of NATS at all, and still is level at once: it looks at the files."""
    from events.clock import SystemClock
    from ops.settings import load_settings
    from ops.views import open_views
    from ops.worker import load_app
    from projections.hints import watch_files

    settings = load_settings({"data": balances.data}).settings
    opened = open_views(settings, load_app(BALANCES), only=["balances"], clock=SystemClock(), folder=tmp_path / "elsewhere")
    async with opened as views, connect(balances.nats_url) as cue:
        (runner,) = views.runners.values()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(runner.run()), group.create_task(watch_files(views.watch, views.hints))]
            await wait_until_async(lambda: runner.status().state == "live", "live")
            for number in range(5):
                await cue.ref("account", "unheard").ask("deposit", cents=1)
                began = time.monotonic()
                while dict((await runner.query("richest", b'{"limit":1000}'))[0]).get("account/unheard") != number + 1:
                    assert time.monotonic() - began < 1.5
                    await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()


async def test_s29_erase_returns_when_the_views_have_forgotten(balances: Deployment) -> None:
    async with connect(balances.nats_url) as cue:
        await cue.ref("account", "gone").ask("deposit", cents=41)
        head = await cue.log("head")
        after = {int(shard): at for shard, at in head["positions"].items()}
        assert "account/gone" in dict(await cue.view("balances", after=after).richest(limit=1_000))
        done = await asyncio.to_thread(cuebook, "erase", "account/gone", "--yes", "--json", "--data", str(balances.data))
        assert done.returncode == 0, done.stderr
        assert msgspec.json.decode(done.stdout)["views_left"] == []
        assert "until the views have forgotten" in done.stderr
        assert "account/gone" not in dict(await cue.view("balances").richest(limit=1_000))


def cuebook(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(cuebook_argv(*arguments), env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)


def test_up_runs_one_projector(balances: Deployment) -> None:
    state = read_up(balances.data)
    assert state is not None
    assert [each.role for each in state.processes] == ["worker-1", "worker-2", "projector"]
