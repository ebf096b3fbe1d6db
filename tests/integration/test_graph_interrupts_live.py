"""Interrupts of a graph over plain NATS, with processes that are killed in between (S20, S21, S22)."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from tests.support.deployment import Deployment, run_cuebook
from tests.support.eventually import eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
INPUT: dict[str, Any] = {"input": {"words": []}}


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setenv("ASKING_GRAPH_SIGN_S", "2")
    with Deployment(tmp_path / "data", app="tests.support.asking_graph:app") as started:
        started.wait_balanced()
        yield started


def kill_all(deployment: Deployment) -> None:
    for pid in set(deployment.owners().values()):
        deployment.kill_worker(pid)
    deployment.wait_owned()


async def ask(client: Client, method: str, arguments: dict[str, Any], command_id: str | None = None) -> Any:
    """The reply of ``text/a``, whether it is a result or an error; 503 while nobody owns the shard is asked again, by id."""
    subject = f"cue.ask.text.a.{method}" + (f".{command_id}" if command_id else "")

    async def answered() -> list[Any]:
        try:
            message = await client.request(subject, json.dumps(arguments).encode(), timeout=10)
        except nats.errors.NoRespondersError:
            return []
        reply = json.loads(message.data)
        return [] if isinstance(reply, dict) and reply.get("code") == 503 and reply.get("retryable") else [reply]

    return (await eventually(answered, f"an answer to {subject}"))[0]


async def test_s20_a_graph_that_is_killed_between_its_interrupts_and_their_answers(deployment: Deployment) -> None:
    client = await nats.connect(deployment.nats_url)
    try:
        waiting = await ask(client, "run", INPUT, "r1")
        assert (waiting["code"], waiting["error"]) == (202, "waiting")
        wait_id = waiting["wait_id"]
        await asyncio.to_thread(kill_all, deployment)

        (question,) = await ask(client, "waiting", {})
        assert (question["wait_id"], question["node"], question["value"]) == (wait_id, "judge", "what becomes of it?")
        assert question["schema"]["required"] == ["say"]
        wrong = await ask(client, "_answer", {"wait_id": wait_id, "value": {"say": "burn"}})
        assert (wrong["code"], wrong["error"], wrong["field"]) == (400, "bad_payload", "value.say")
        for method, arguments in (("run", INPUT), ("resume", {"answers": {question["id"]: {"say": "print"}}})):
            refused = await ask(client, method, arguments)
            assert (refused["code"], refused["error"], refused["reason"]) == (409, "rejected", "waiting"), method
            assert (refused["waits"], refused["command_id"], refused["outcome"]) == ([wait_id], "r1", "not_done")

        start = asyncio.get_running_loop().create_task
        answers = [start(ask(client, "_answer", {"wait_id": wait_id, "value": {"say": say}})) for say in ("print", "drop")]
        said = [await each for each in answers]
        (won,) = [each for each in said if each.get("status") == "answered"]
        (lost,) = [each for each in said if each.get("code") == 409]
        assert won["command_id"] == "r1"
        assert lost["winner"]["value"]["say"] in ("print", "drop")

        async def signs() -> bool:
            return [each["node"] for each in await ask(client, "waiting", {})] == ["sign"]

        await eventually(signs, "it waits for the signature")
        # Nobody signs, and its owner dies while it is open.
        await asyncio.to_thread(kill_all, deployment)

        async def expired() -> bool:
            return bool(await ask(client, "status", {}) == "expired")

        await eventually(expired, "the wait has expired")
        reply = await ask(client, "run", INPUT, "r1")
        (closed,) = reply["__interrupt__"]
        assert (closed["status"], closed["node"]) == ("expired", "sign")
        assert reply["words"] == [f"{lost['winner']['value']['say']} 1"]
        late = await ask(client, "_answer", {"wait_id": closed["wait_id"], "value": "Ada"})
        assert (late["code"], late["winner"]["expired"]) == (409, True)

        resumes = [start(ask(client, "resume", {"answers": {closed["id"]: name}}, name)) for name in ("Ada", "Bob")]
        ended = [await each for each in resumes]
        (done,) = [each for each in ended if "words" in each]
        (other,) = [each for each in ended if each.get("code") == 409]
        assert done["words"][1] in ("signed Ada", "signed Bob")
        assert (other["reason"], await ask(client, "status", {})) == ("not_open", "done")
    finally:
        await client.close()
    deployment.stop()
    verified = run_cuebook("replay", "--verify", "--app", "tests.support.asking_graph:app", "--data", str(deployment.data))
    assert verified.returncode == 0, verified.stdout + verified.stderr
