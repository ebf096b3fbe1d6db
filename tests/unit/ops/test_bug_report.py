"""`export --correlation`: a small log of one conversation, without what must not leave the house, that opens with the same verbs."""

import asyncio
import json
from pathlib import Path

import pytest

from actors import Actor, Event, Sensitive, State, command, query
from events.keeping.verify import verify
from runtime import App
from runtime.local import local_runtime
from tests.support.verbs import Verb

APP = f"{__name__}:app"
EMAIL, ADDRESS, KEY, NOTE = "jane@example.org", "12 Long Street", "sk-abcdefghijklmnop1234", "knows my dog Rex"


class Customer(State):
    email: str = ""
    orders: int = 0


class Registered(Event[Customer], tag="customer.registered"):
    email: Sensitive[str]

    def apply(self, state: Customer) -> None:
        state.email = self.email


class Ordered(Event[Customer], tag="customer.ordered"):
    note: str

    def apply(self, state: Customer) -> None:
        state.orders += 1


class CustomerActor(Actor[Customer], name="customer"):
    @command
    async def register(self, email: Sensitive[str]) -> str:
        self.emit(Registered(email=email))
        return f"welcome {email}"

    @command
    async def order(self, note: str, address: Sensitive[str]) -> int:
        await self.step("label", label, address)
        self.emit(Ordered(note=f"{note} for {self.state.email}"))
        self.ref(CustomerActor, "shop").tell.order_at(address=address)
        return self.state.orders

    @command
    async def order_at(self, address: Sensitive[str]) -> None:
        self.emit(Ordered(note="delivered"))

    @query
    def orders(self) -> int:
        return self.state.orders


async def label(address: str) -> str:
    return f"To: {address} with {KEY}"


app = App(actors=[CustomerActor])


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("deployment")

    async def make() -> None:
        async with local_runtime(app, data / "log", shards=2) as cue:
            await cue.ask("customer/jane", "register", email=EMAIL, command_id="register-1")
            await cue.ask("customer/else", "register", email="other@example.org", command_id="register-2")
            await cue.ask("customer/jane", "order", note=NOTE, address=ADDRESS, command_id="order-1")
            while await cue.ask("customer/shop", "orders") == 0:
                pass
            await cue.ask("customer/jane", "order", note="later", address="elsewhere", command_id="order-2")

    asyncio.run(make())
    return data


@pytest.fixture
def report(cuebook: Verb, tmp_path: Path) -> Path:
    file = tmp_path / "bug.jsonl"
    code, rows, said = cuebook("export", str(file), "--correlation", "order-1", "--app", APP, "--redact", "dog Rex")
    assert code == 0, said
    assert rows[0]["redacted"] > 0
    assert "before them" in said
    return file


def test_nothing_marked_named_or_shaped_like_a_key_is_in_the_file(report: Path) -> None:
    text = report.read_text()
    for secret in (EMAIL, ADDRESS, KEY, "dog Rex"):
        assert secret not in text
    assert "order-1" in text


def test_only_the_streams_of_the_conversation_up_to_its_end_are_in_the_file(report: Path) -> None:
    events = [line for line in map(json.loads, report.read_text().splitlines()) if "event_id" in line]
    assert {event["stream"] for event in events} == {"customer/jane", "customer/shop"}
    assert {event["correlation_id"] for event in events} == {"register-1", "order-1"}  # the state needs the one before
    assert "order-2" not in report.read_text()


def test_it_opens_with_the_same_verbs_and_its_chain_verifies(report: Path, cuebook: Verb, tmp_path: Path) -> None:
    other = tmp_path / "opened"
    assert cuebook("import", str(report), data=other)[0] == 0
    assert verify(other / "log") == []
    assert cuebook("verify", data=other)[0] == 0
    _, rows, _ = cuebook("log", "corr:order-1", "-n", "0", data=other)
    assert next(row["type"] for row in rows if row["stream"] == "customer/jane") == "turn.started"
    _, rows, _ = cuebook("state", "customer/jane", "--app", APP, data=other)
    assert rows[0]["state"] == {"email": "[redacted]", "orders": 1}
    assert cuebook("trace", "order-1", data=other)[0] == 0
    assert cuebook("replay", "--verify", "--app", APP, data=other)[0] == 0


def test_hashes_and_ids_are_those_of_the_original(report: Path, cuebook: Verb) -> None:
    _, rows, _ = cuebook("log", "corr:order-1", "-n", "0")
    original = {row["event_id"]: row["hash"] for row in rows}
    lines = map(json.loads, report.read_text().splitlines())
    events = [line for line in lines if line.get("correlation_id") == "order-1" and "hash" in line]
    assert {event["event_id"]: event["hash"] for event in events} == original
    redacted = [event for event in events if "[redacted]" in json.dumps(event["payload"])]
    assert redacted
    assert all(event["salt"] is None for event in redacted)  # else values could be tried against the digest


def test_without_code_it_says_that_no_marks_are_known(cuebook: Verb, tmp_path: Path) -> None:
    file = tmp_path / "bug.jsonl"
    code, _, said = cuebook("export", str(file), "--correlation", "order-1")
    assert code == 0
    assert "no field is known as Sensitive" in said
    assert KEY not in file.read_text()


def test_an_unknown_conversation_is_not_found_and_leaves_no_file(cuebook: Verb, tmp_path: Path) -> None:
    code, _, said = cuebook("export", str(tmp_path / "x.jsonl"), "--correlation", "nobody")
    assert code == 3
    assert "nobody" in said
    assert list(tmp_path.iterdir()) == []


def test_redact_without_correlation_is_refused(cuebook: Verb, tmp_path: Path) -> None:
    assert cuebook("export", str(tmp_path / "x.jsonl"), "--redact", "abcd")[0] == 2
