"""What any NATS client sees (design.md 3): the public clients of Python and Node with nothing of ours, headers, chunks, discovery."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from events.ids import shard_of
from runtime.past.log_service import OPERATIONS
from tests.support.deployment import Deployment
from tests.support.wire import ask, log, positions, stream_events

SUPPORT = Path(__file__).parents[1] / "support"
NODE = Path(__file__).parents[1] / "node"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node client, installed from its lock."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        reason = "NODE CLIENT NOT TESTED: there is no node and npm here; install Node.js 18 or newer"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "plain_client.mjs"):
        shutil.copy(NODE / name, folder)
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"npm ci failed: {done.stdout}{done.stderr}"
    return folder


def check_plain_run(done: "subprocess.CompletedProcess[str]", account: str) -> None:
    """What both plain clients must have seen."""
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["first"], seen["once"], seen["balance"]) == (500, [1000, 1000], 1007)
    assert seen["ack"] > 0
    for version, (event, cents) in enumerate(zip(seen["events"], (500, 500, 7), strict=True), 1):
        assert event["specversion"] == "1.0"
        assert (event["subject"], event["type"], event["sequence"]) == (f"account/{account}", "account.deposited", str(version))
        assert event["source"] == f"/cue/account/{account}"
        assert (event["datacontenttype"], event["data"]) == ("application/json", {"cents": cents})
    assert len({event["id"] for event in seen["events"]}) == 3
    assert [event["commandid"] for event in seen["events"][1:]] == ["salary-1", "gift-1"]
    check_endpoints(seen["info"])


def check_endpoints(info: dict[str, Any]) -> None:
    assert info["type"] == "io.nats.micro.v1.info_response"
    endpoints = {endpoint["subject"]: endpoint for endpoint in info["endpoints"]}
    deposit = endpoints["cue.ask.account.*.deposit"]["metadata"]
    schema = json.loads(deposit["request_schema"])
    if "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    assert schema["properties"] == {"cents": {"type": "integer"}}
    assert schema["required"] == ["cents"]
    assert json.loads(deposit["response_schema"]) == {"type": "integer"}
    assert (deposit["kind"], endpoints["cue.ask.account.*.balance"]["metadata"]["kind"]) == ("command", "query")
    assert {f"cue.log.{name}" for name in OPERATIONS} <= endpoints.keys()


def test_a_python_script_without_cuebook_drives_the_bank(bank: Deployment) -> None:
    script = SUPPORT / "plain_client.py"
    text = script.read_text()
    assert "cuebook" not in text.replace("$SRV.INFO.cuebook", "").lower()
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import asyncio", "import json", "import sys", "import nats"]
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 20
    done = subprocess.run(
        [sys.executable, "-I", str(script), bank.nats_url, "plain-py"], capture_output=True, text=True, timeout=30, check=False
    )
    check_plain_run(done, "plain-py")


def test_a_node_script_without_cuebook_drives_the_bank(bank: Deployment, node_folder: Path) -> None:
    done = subprocess.run(
        ["node", "plain_client.mjs", bank.nats_url, "plain-js"], cwd=node_folder, capture_output=True, text=True, timeout=30, check=False
    )
    check_plain_run(done, "plain-js")


def test_the_lock_of_the_node_client_names_no_registry() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all("resolved" not in package and package["integrity"].startswith("sha512-") for package in packages)
    assert "http" not in json.dumps(lock)


async def test_every_worker_answers_ping_info_and_stats(client: Client, bank: Deployment) -> None:
    for verb in ("PING", "INFO", "STATS"):
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish(f"$SRV.{verb}", b"", reply=inbox)
        found: list[dict[str, Any]] = []
        while len(found) < len(bank.workers):
            each = json.loads((await answers.next_msg(timeout=5)).data)
            if not each["id"].startswith("projector-"):
                found.append(each)
        await answers.unsubscribe()
        assert {each["type"] for each in found} == {f"io.nats.micro.v1.{verb.lower()}_response"}
        assert {each["name"] for each in found} == {"cuebook"}
        assert {each["id"] for each in found} == {f"{role}-{pid}" for role, pid in bank.workers.items()}
        alone = json.loads((await client.request(f"$SRV.{verb}.cuebook.{found[0]['id']}", b"", timeout=5)).data)
        assert alone["id"] == found[0]["id"]
        if verb == "STATS":
            names = alone["memos"]["addresses of asks"]
            assert 0 <= names["entries"] <= names["misses"]
            assert "analysis" in alone["step_cache"]["namespaces"]


async def test_meta_headers_say_where_a_command_stands(client: Client) -> None:
    plain = await ask(client, "account.meta.deposit", {"cents": 1})
    assert plain.headers == {}
    for version, tail in ((2, "account.meta.deposit"), (3, "account.meta.deposit.meta-1")):
        found = await ask(client, tail, {"cents": 1}, headers={"Cue-Meta": "1"})
        assert (found.code, found.body) == (None, version)
        assert found.headers["Cue-Shard"] == str(shard_of("account", "meta", 4))
        assert found.headers["Cue-Version"] == str(version)
        (event,) = (event for event in await stream_events(client, "account/meta") if event["version"] == version)
        assert found.headers["Cue-Position"] == str(event["position"])
        assert found.headers["Cue-Command-Id"] == event["command_id"]
    query = await ask(client, "account.meta.balance", headers={"Cue-Meta": "1"})
    assert (query.body, query.headers["Cue-Version"]) == (3, "3")


async def test_the_meta_headers_of_a_repeat_are_those_of_the_original(client: Client) -> None:
    original = await ask(client, "account.meta-again.deposit.one", {"cents": 5}, headers={"Cue-Meta": "1"})
    await ask(client, "account.meta-again.deposit", {"cents": 5})
    repeat = await ask(client, "account.meta-again.deposit.one", {"cents": 5}, headers={"Cue-Meta": "1"})
    assert repeat.body == original.body == 5
    assert repeat.headers["Cue-Command-Id"] == "one"
    assert len(await stream_events(client, "account/meta-again")) == 2


async def test_the_message_id_header_is_the_command_id(client: Client) -> None:
    replies = [await ask(client, "account.by-header.deposit", {"cents": 5}, headers={"Nats-Msg-Id": "only-once"}) for _ in range(3)]
    assert [reply.body for reply in replies] == [5, 5, 5]
    (event,) = await stream_events(client, "account/by-header")
    assert event["command_id"] == "only-once"


async def test_causes_are_recorded_and_published(client: Client) -> None:
    events = await client.subscribe("cue.event.account.causes.>")
    await client.flush()
    given = {"Cue-Correlation-Id": "order-7", "Cue-Causation-Id": "click-3", "traceparent": TRACEPARENT}
    assert (await ask(client, "account.causes.deposit.c-1", {"cents": 5}, headers=given)).body == 5
    (event,) = await stream_events(client, "account/causes")
    assert (event["correlation_id"], event["causation_id"], event["traceparent"]) == ("order-7", "click-3", TRACEPARENT)
    cloud = json.loads((await events.next_msg(timeout=5)).data)
    assert (cloud["correlationid"], cloud["causationid"], cloud["traceparent"]) == ("order-7", "click-3", TRACEPARENT)
    assert (cloud["id"], cloud["shard"], cloud["position"]) == (event["event_id"], event["shard"], str(event["position"]))
    traced = await log(client, "trace", correlation_id="order-7")
    assert [each["event_id"] for each in traced["events"]] == [event["event_id"]]


async def test_a_correlation_reaches_the_receiver_of_a_send(client: Client) -> None:
    await ask(client, "account.cause-from.deposit", {"cents": 50})
    await ask(client, "account.cause-from.transfer.t-1", {"cents": 20, "to": "cause-to"}, headers={"Cue-Correlation-Id": "order-8"})
    async with asyncio.timeout(10):
        while not (found := await log(client, "trace", correlation_id="order-8"))["events"][2:]:
            await asyncio.sleep(0.02)
    withdrawn, sent, deposited = found["events"]
    assert (withdrawn["stream"], deposited["stream"]) == ("account/cause-from", "account/cause-to")
    assert (sent["kind"], sent["payload"]["command_id"]) == ("message", deposited["command_id"])
    assert deposited["sender"] == "account/cause-from"
    assert deposited["causation_id"] in ("t-1", sent["event_id"])
    assert deposited["time"] > sent["time"] > withdrawn["time"]


async def test_an_expired_command_is_refused_and_leaves_nothing(client: Client) -> None:
    """S10: 504 is always not done."""
    before = await positions(client)
    late = str(int(time.time() * 1_000) - 1)
    found = await ask(client, "account.late.deposit.l-1", {"cents": 5}, headers={"Cue-Deadline": late})
    assert (found.code, found.body["error"], found.body["outcome"]) == (504, "deadline_passed", "not_done")
    assert await positions(client) == before
    # The id is not used up.
    in_time = str(int(time.time() * 1_000) + 10_000)
    assert (await ask(client, "account.late.deposit.l-1", {"cents": 5}, headers={"Cue-Deadline": in_time})).body == 5


async def test_an_error_reply_says_the_same_in_headers_and_body(client: Client) -> None:
    found = await ask(client, "account.poor.withdraw", {"cents": 5})
    assert found.code == 409
    assert found.headers["Nats-Service-Error"].startswith("rejected")
    assert found.body == {
        "code": 409, "error": "rejected", "message": "there is not that much in the account", "retryable": False, "outcome": "not_done",
        "cents": 5, "balance": 0,
    }  # fmt: skip


async def test_chunks_show_attempt_and_offset_and_are_not_recorded(probe_client: Client) -> None:
    chunks = await probe_client.subscribe("cue.chunk.probe.talker.talk.>")
    await probe_client.flush()
    assert (await ask(probe_client, "probe.talker.talk.t-1", {"words": ["to", "be", "or"]})).body == 3
    heard = [await chunks.next_msg(timeout=5) for _ in range(4)]
    assert {message.subject for message in heard} == {"cue.chunk.probe.talker.talk.t-1"}
    bodies = [json.loads(message.data) for message in heard]
    assert all(body.keys() == {"attempt", "offset", "data", "end"} for body in bodies)
    assert [body["data"] for body in bodies[:3]] == ["to", "be", "or"]
    assert [body["offset"] for body in bodies[:3]] == sorted({body["offset"] for body in bodies[:3]})
    assert [body["end"] for body in bodies] == [False, False, False, True]
    assert len({body["attempt"] for body in bodies}) == 1
    assert '"be"' not in json.dumps([event for event in await stream_events(probe_client, "probe/talker") if event["kind"] == "step"])


async def test_a_handler_that_fails_names_its_failure_event(probe_client: Client) -> None:
    found = await ask(probe_client, "probe.clumsy.fail", {"text": "oops"})
    assert (found.code, found.body["error"]) == (500, "failed")
    (event,) = await stream_events(probe_client, "probe/clumsy")
    assert found.body["event_id"] == event["event_id"]
    assert event["kind"] == "control"
    assert (await ask(probe_client, "probe.clumsy.seen")).body == {"count": 0, "last": ""}
