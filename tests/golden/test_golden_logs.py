"""Logs that former versions of an app wrote, read by today's: the same states, to the hash (style.md 8; 0.1.0/ORIGIN.md)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, State, upcaster
from actors.registry import ActorType
from actors.traps import pure
from events.codec import canonical_hash
from events.envelope import GENESIS_HASH, Kind, RecordedEvent, chain_hash, payload_hash
from runtime.turns.recovery import recover

RECORDED = Path(__file__).parent / "0.1.0"


class Savings(State):
    cents: int = 0
    moves: int = 0
    notes: list[str] = []


class Deposited(Event[Savings], tag="savings.deposited", version=3):
    cents: int
    currency: str
    source: str

    def apply(self, state: Savings) -> None:
        state.cents += self.cents
        state.moves += 1


@upcaster("savings.deposited", 1)
def with_currency(old: dict[str, Any]) -> dict[str, Any]:
    return {"amount": {"cents": old["cents"], "currency": "EUR"}}


@upcaster("savings.deposited", 2)
def flat_with_source(old: dict[str, Any]) -> dict[str, Any]:
    return {**old["amount"], "source": "unknown"}


class Noted(Event[Savings], tag="savings.noted"):
    note: str

    def apply(self, state: Savings) -> None:
        state.notes.append(self.note)


class SavingsActor(Actor[Savings], name="savings"):
    """Version 3 of the app: today's."""


class RecordedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stream: str
    version: int
    state_hash: str
    state: Any


def lines(name: str, type_: Any) -> list[Any]:
    return [msgspec.json.decode(line, type=type_) for line in (RECORDED / name).read_bytes().splitlines()]


def events_of(name: str) -> dict[str, list[RecordedEvent]]:
    found: dict[str, list[RecordedEvent]] = {}
    for event in lines(name, RecordedEvent):
        found.setdefault(event.stream, []).append(event)
    return found


def folded(events: Iterable[RecordedEvent]) -> Any:
    with pure():
        return recover(ActorType(SavingsActor), None, list(events)).state


LOGS = ("savings-1", "savings-2")


@pytest.mark.parametrize("log", LOGS)
def test_todays_code_folds_a_golden_log_to_the_states_of_then(log: str) -> None:
    streams = events_of(f"{log}.jsonl")
    states = lines(f"{log}.states.jsonl", RecordedState)
    assert {each.stream for each in states} == set(streams)
    for each in states:
        state = folded(streams[each.stream][: each.version])
        assert msgspec.to_builtins(state) == each.state
        assert canonical_hash(state) == each.state_hash, (each.stream, each.version)


@pytest.mark.parametrize("log", LOGS)
def test_the_state_hashes_inside_a_golden_log_are_met(log: str) -> None:
    """S34: what the code of then left for `replay --verify`."""
    met = 0
    for events in events_of(f"{log}.jsonl").values():
        for event in events:
            if event.state_hash is not None:
                assert canonical_hash(folded(events[: event.version])) == event.state_hash
                met += 1
    assert met == {"savings-1": 1, "savings-2": 2}[log]


@pytest.mark.parametrize("log", LOGS)
def test_the_hash_chain_of_a_golden_log_still_verifies(log: str) -> None:
    """S27: the hash of an event is computed today as it was then."""
    for events in events_of(f"{log}.jsonl").values():
        previous = GENESIS_HASH
        for event in events:
            assert event.salt is not None
            previous = chain_hash(
                previous, stream=event.stream, version=event.version, event_id=event.event_id, type=event.type,
                schema_version=event.schema_version, kind=event.kind, recorded_at_us=event.recorded_at_us, time=event.time,
                command_id=event.command_id, causation_id=event.causation_id, correlation_id=event.correlation_id,
                sender=event.sender, branch=event.branch, payload_digest=payload_hash(bytes.fromhex(event.salt), bytes(event.payload)),
            )  # fmt: skip
            assert previous.hex() == event.hash, (event.stream, event.version)


def test_the_golden_logs_hold_every_former_version() -> None:
    """Else a step of the chain would be untested."""
    written = {
        log: {(event.type, event.schema_version) for event in lines(f"{log}.jsonl", RecordedEvent) if event.kind is Kind.STATE}
        for log in LOGS
    }
    assert written["savings-1"] == {("savings.deposited", 1), ("savings.noted", 1)}
    assert written["savings-2"] - written["savings-1"] == {("savings.deposited", 2)}
