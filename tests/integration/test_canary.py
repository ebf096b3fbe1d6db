"""The canary of a sealed actor (S29, I-22): sent every way into a real deployment, it is in no file of the data folder, nor in what is
made of it, before and after `erase`; and of a plain actor it is nowhere once that is erased."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from events.keeping.verify import verify
from tests.support.deployment import Deployment, clean_environment, cuebook_argv, wait_until_async

CANARY = "canary-91c4"
APP = "tests.support.sealed_app:app"
ROOT = Path(__file__).resolve().parents[2]


def hits(*places: Path) -> list[str]:
    """Every file that holds the canary: tables, write-ahead logs, anchors, log files, the NATS server's store."""
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*"))) if path.is_file()]
    assert files
    return [str(path) for path in files if CANARY.encode() in path.read_bytes()]


async def asked(client: Client, subject: str, **arguments: Any) -> Any:
    reply = await client.request(f"cue.ask.{subject}", json.dumps(arguments).encode(), timeout=20)
    return reply.headers.get("Nats-Service-Error-Code") if reply.headers else json.loads(reply.data)


async def say_everything(client: Client, actor: str) -> None:
    """Argument, reply, event, step, error, summary, chunk, timer, refusal, failure, tell, dead letter."""
    events, chunks = await client.subscribe(f"cue.event.{actor}.>"), await client.subscribe(f"cue.chunk.{actor}.>")
    assert await asked(client, f"{actor}.note.c1", text=CANARY) == CANARY
    assert CANARY in await asked(client, f"{actor}.step_through.c2", text=CANARY)
    assert await asked(client, f"{actor}.refuse.c3", text=CANARY) == "409"
    assert await asked(client, f"{actor}.break_down.c4", text=CANARY) == "500"
    assert await asked(client, f"{actor}.wrong", text=CANARY) == "500"
    assert await asked(client, f"{actor}.note.c5", texts=CANARY) == "400"
    js = client.jetstream()
    for method in ("note", "refuse", "break_down", "nothing_of_that_name"):
        await js.publish(f"cue.tell.{actor}.{method}.t-{method}", json.dumps({"text": CANARY}).encode())
    before = len(await asked(client, f"{actor}.all"))
    await js.publish(f"cue.tell.{actor}.note.t-last", json.dumps({"text": CANARY}).encode())
    while len(await asked(client, f"{actor}.all")) <= before:
        pass
    assert CANARY.encode() in (await chunks.next_msg(timeout=10)).data
    said = b"".join([(await events.next_msg(timeout=10)).data for _ in range(4)])
    assert (CANARY.encode() in said) == actor.startswith("board"), "cue.event carries no data of a sealed actor"
    await events.unsubscribe()
    await chunks.unsubscribe()


def cuebook(data: Path, environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*cuebook_argv(*arguments), "--data", str(data)], cwd=ROOT, env=clean_environment(environment), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("_nats_program")
async def test_s29_the_canary_of_a_sealed_actor_and_of_an_erased_plain_one(tmp_path: Path) -> None:
    data, keys = tmp_path / "data", tmp_path / "keys"
    environment = {"CUEBOOK_KEYS": str(keys), "PYTHONPATH": os.fspath(ROOT)}
    with Deployment(data, app=APP, environment=environment) as deployment:
        deployment.wait_balanced()
        client = await nats.connect(deployment.nats_url)
        try:
            await say_everything(client, "patient.p1")
            await asked(client, "patient.p2.note", text="kept")
            await wait_until_async(lambda: not hits(data), f"no canary of a sealed actor in any file, but {hits(data)}", 20.0)
            shown = cuebook(data, environment, "log", "actor:patient/p1", "--json")
            assert CANARY in shown.stdout, shown.stderr
            hidden = cuebook(data, {**environment, "CUEBOOK_KEYS": str(tmp_path / "elsewhere")}, "log", "actor:patient/p1", "--json")
            assert hidden.stdout
            assert CANARY not in hidden.stdout
            assert cuebook(data, environment, "backup", str(tmp_path / "before")).returncode == 0
            erased = cuebook(data, environment, "erase", "patient/p1", "--yes")
            assert erased.returncode == 0, erased.stderr
            assert "keys are destroyed" in erased.stderr
            for _ in range(2):
                assert await asked(client, "patient.p1.note.c1", text=CANARY) == "410"
            assert hits(data) == []
            assert cuebook(data, environment, "export", str(tmp_path / "x.jsonl")).returncode == 0
            assert cuebook(data, environment, "backup", str(tmp_path / "after")).returncode == 0
            assert hits(tmp_path / "before", tmp_path / "after", tmp_path / "x.jsonl") == []
            assert await asked(client, "patient.p2.all") == ["kept"]

            await say_everything(client, "board.b1")
            await asked(client, "board.b2.note", text="kept")
            assert hits(data / "log")
            erased = cuebook(data, environment, "erase", "board/b1", "--yes")
            assert erased.returncode == 0, erased.stderr
            assert "backups, exports and copies" in erased.stderr
            assert hits(data / "log", data / "logs") == []
            assert await asked(client, "board.b2.all") == ["kept"]
            assert await asked(client, "board.b1.all") == "410"
        finally:
            await client.close()
        assert deployment.stop() == 0
    assert hits(data / "log", data / "logs") == []
    assert verify(data / "log") == []
