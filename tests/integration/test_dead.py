"""`cuebook dead` and `cuebook restart` over a live deployment, and on its files (design.md 9)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats.aio.client import Client

from ops.__main__ import main
from ops.doctor import examine
from ops.settings import load_settings
from tests.support.deployment import Deployment, cuebook_argv
from tests.support.wire import ask


async def verb(*arguments: str, deployment: Deployment) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, rows and stderr of the installed command."""
    process = await asyncio.create_subprocess_exec(
        *cuebook_argv(*arguments, "--data", str(deployment.data)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, [json.loads(line) for line in out.splitlines()], err.decode()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while not await condition():
            await asyncio.sleep(0.1)


async def parked(deployment: Deployment, client: Client, actor: str, *ids: str) -> None:
    """Tells that no handler can take: dead at once."""
    for command_id in ids:
        await client.jetstream().publish(f"cue.tell.probe.{actor}.no_such_method.{command_id}", b'{"a":1}')

    async def all_there() -> bool:
        _, rows, _ = await verb("dead", "ls", f"probe/{actor}", deployment=deployment)
        return {row["command_id"] for row in rows} == set(ids)

    await until(all_there)


async def test_dead_letters_are_listed_and_shown_with_what_is_needed_to_judge_them(probe: Deployment, probe_client: Client) -> None:
    await parked(probe, probe_client, "dead-1", "c1")
    code, rows, _ = await verb("dead", "ls", "probe/dead-1", deployment=probe)
    assert code == 0
    assert (rows[0]["actor"], rows[0]["command_id"], rows[0]["state"], rows[0]["attempts"]) == ("probe/dead-1", "c1", "dead", 0)
    code, rows, _ = await verb("dead", "show", "probe/dead-1", "c1", deployment=probe)
    assert (code, rows[0]["arguments"], rows[0]["reason"][:8]) == (0, {"a": 1}, "Unknown:")
    assert (await verb("dead", "show", "probe/dead-1", "nobody", deployment=probe))[0] == 3


async def test_many_need_their_number_and_go_in_chunks_with_progress(probe: Deployment, probe_client: Client) -> None:
    """A slip must not send thousands of commands again."""
    ids = [f"c{number}" for number in range(130)]
    await parked(probe, probe_client, "dead-2", *ids)
    for given, code in (((), 2), (("--count", "129"), 7)):
        found, rows, err = await verb("dead", "drop", "probe/dead-2", *given, deployment=probe)
        assert (found, rows) == (code, [])
        assert "--count 130" in err
    assert len((await verb("dead", "ls", "probe/dead-2", deployment=probe))[1]) == 130
    code, rows, err = await verb("dead", "drop", "probe/dead-2", "--count", "130", deployment=probe)
    assert (code, {row["command_id"] for row in rows}) == (0, set(ids))
    assert err.splitlines() == ["100 of 130", "130 of 130"]
    assert (await verb("dead", "drop", "probe/dead-2", "--yes", deployment=probe))[0] == 3


async def test_one_is_tried_again_by_its_id_and_is_dead_again_if_nothing_changed(probe: Deployment, probe_client: Client) -> None:
    await parked(probe, probe_client, "dead-3", "c1", "c2")
    before = (await verb("dead", "show", "probe/dead-3", "c1", deployment=probe))[1][0]["failed_at"]
    code, rows, _ = await verb("dead", "retry", "probe/dead-3", "c1", deployment=probe)
    assert (code, rows) == (0, [{"actor": "probe/dead-3", "command_id": "c1", "result": "tried again"}])

    async def again() -> bool:
        rows = (await verb("dead", "show", "probe/dead-3", "c1", deployment=probe))[1]
        return bool(rows) and rows[0]["failed_at"] > before

    await until(again)


async def test_a_tell_that_fails_over_nats_is_retried_and_the_flood_of_another_client_does_not_matter(
    probe: Deployment, probe_client: Client
) -> None:
    await probe_client.jetstream().publish("cue.tell.probe.dead-4.fail.c1", b'{"text":"x"}')

    async def retrying() -> bool:
        rows = (await verb("dead", "ls", "probe/dead-4", "--retrying", deployment=probe))[1]
        return bool(rows) and rows[0]["state"] == "retrying" and rows[0]["reason"] == "RuntimeError: x"

    await until(retrying)
    assert (await ask(probe_client, "probe.dead-4.note", {"text": "meanwhile"})).body == 1
    assert (await verb("dead", "retry", "probe/dead-4", "c1", deployment=probe))[0] == 3  # it is not dead yet


async def test_who_is_not_stopped_is_not_restarted(probe: Deployment) -> None:
    code, rows, _ = await verb("restart", "probe/dead-5", deployment=probe)
    assert (code, rows) == (0, [{"actor": "probe/dead-5", "restarted": False}])


async def test_doctor_names_dead_letters_with_a_remedy(probe: Deployment, probe_client: Client) -> None:
    await parked(probe, probe_client, "dead-6", "c1")
    findings = {finding.check: finding async for finding in examine(load_settings({"data": probe.data}))}
    assert not findings["dead letters"].ok
    assert "probe/" in findings["dead letters"].found
    assert findings["dead letters"].remedy is not None
    assert "cuebook dead" in findings["dead letters"].remedy


@pytest.mark.parametrize("given", [("ls", "no-actor"), ("show", "a/b"), ("retry", "a/b/c", "--yes")])
def test_what_names_no_actor_is_a_usage_error(given: tuple[str, ...], probe: Deployment) -> None:
    assert main(["dead", *given, "--data", str(probe.data)]) in (2, 3)
