"""Two workspaces never see each other's memories, whatever name a NATS client puts into a subject or a body (design.md 7)."""

import json
from collections.abc import Iterator

import nats
import pytest

from events.ids import is_token
from runtime.client import connect
from tests.support.deployment import Deployment
from tests.support.eventually import eventually
from tests.support.wire import answer_of, log, stream_events

pytestmark = pytest.mark.timeout(120)
SECRET = "xyzzy plugh"
IN_SUBJECTS = ("*", ">", "a.bank", "bank.*", "*.bank", "bank.>", "bank%", "../bank", "bank/x", "BANK", "ban", "bank1", "_INBOX", "$SYS")
IN_BODIES = ("*", ">", "a.bank", "bank.*", "bank.>", "*.bank", "memory/bank", "BANK", "", None, 5, ["bank"], {"$ne": ""})
VIEW = ("recall", "memories", "patterns", "interactions", "stats", "solution", "stale", "other_models")
ASKS = {"standing": {"subject": "s"}, "remember": {"content": "planted", "type": "semantic"}, "forget": {"memories": ["m"]}}


@pytest.fixture(scope="module")
def deployment(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("apart") / "data") as made:
        made.wait_balanced()
        yield made


async def test_no_name_in_a_subject_or_a_body_reaches_another_workspace(deployment: Deployment) -> None:
    async with connect(deployment.nats_url) as cue:
        bank = cue.ref("memory", "bank")
        await bank.ask("remember", content=SECRET, type="semantic", importance=0.9, session=SECRET)
        await bank.ask("learn", pattern=SECRET, solution=SECRET, success=True)

        async def found() -> bool:
            return SECRET in json.dumps(await cue.view("memory").recall(workspace="bank", query=SECRET))

        await eventually(found, "the view holds it")
    client = await nats.connect(deployment.nats_url)
    try:
        recorded = await stream_events(client, "memory/bank")
        for name in IN_BODIES:
            for operation in VIEW:
                for more in ({"query": SECRET, "pattern": SECRET}, {"query": "xyzzy"}, {"pattern": "xyzzy"}, {}):
                    for who in ({"workspace": name}, {"workspace": "bank", "_caller": f"memory/{name}"}, {"_caller": f"a/{name}"}):
                        answer = await client.request(f"cue.view.memory.{operation}", json.dumps(who | more).encode(), timeout=10)
                        assert SECRET.encode() not in answer.data, (operation, who, more)
        for name in IN_SUBJECTS:
            for method, arguments in ASKS.items():
                try:
                    message = await client.request(f"cue.ask.memory.{name}.{method}", json.dumps(arguments).encode(), timeout=5)
                except (nats.errors.NoRespondersError, nats.errors.BadSubjectError):
                    continue
                assert SECRET.encode() not in message.data, (name, method)
                if not is_token(name):
                    assert answer_of(message).code in (400, 404), (name, method)
        now = await stream_events(client, "memory/bank")
        # The recalls of its own are counted, which may come late; nothing else was done to it.
        assert now[: len(recorded)] == recorded
        assert {each["type"] for each in now[len(recorded) :]} <= {"memory.accessed"}
        names = [each["stream"].partition("/")[2] for each in (await log(client, "streams"))["streams"]]
        assert all(is_token(name) for name in names), names
    finally:
        await client.close()
