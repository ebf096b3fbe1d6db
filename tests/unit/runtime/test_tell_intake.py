"""When a tell is acknowledged to JetStream, which then forgets it (S11)."""

from types import SimpleNamespace
from typing import Any

import pytest

from events.clock import SystemClock
from events.errors import LogFullError
from runtime.over_nats.tells_nats import TellIntake
from runtime.wire import Subjects


class Shard:
    """Takes what it is given, or has no room. happened: in which order."""

    number, lost = 0, False
    app = SimpleNamespace(registry=SimpleNamespace(sealed=frozenset[str]()))

    def __init__(self, happened: list[str], *, full: bool = False) -> None:
        self._happened = happened
        self._full = full

    def args_hash(self, _command: Any) -> str:
        return ""

    async def accept(self, arrivals: list[Any]) -> None:
        if self._full:
            raise LogFullError("no space left")
        self._happened += [f"committed {arrival.entry.command_id}" for arrival in arrivals]


class Told:
    """A message of the stream."""

    headers, data = None, b"{}"

    def __init__(self, number: int, happened: list[str]) -> None:
        self.subject = f"cue._tell.0.account.a.deposit.c{number}"
        self.metadata = SimpleNamespace(sequence=SimpleNamespace(consumer=number, stream=number))
        self._happened = happened
        self._number = number

    async def ack(self) -> None:
        self._happened.append(f"acknowledged c{self._number}")


def intake(shard: Shard) -> Any:
    client: Any = SimpleNamespace(jetstream=lambda: None)
    found: Any = shard
    return TellIntake(client, Subjects("cue", 1), found, SystemClock())


async def test_s11_a_tell_is_acknowledged_after_the_commit_that_took_it() -> None:
    happened: list[str] = []
    assert await intake(Shard(happened))._take([Told(1, happened), Told(2, happened)])
    assert happened == ["committed c1", "committed c2", "acknowledged c1", "acknowledged c2"]


async def test_s11_a_tell_that_found_no_room_is_not_acknowledged() -> None:
    happened: list[str] = []
    with pytest.raises(LogFullError):
        await intake(Shard(happened, full=True))._take([Told(1, happened)])
    assert happened == []


async def test_s11_what_comes_behind_a_gap_is_neither_taken_nor_acknowledged() -> None:
    happened: list[str] = []
    assert not await intake(Shard(happened))._take([Told(1, happened), Told(3, happened)])
    assert happened == ["committed c1", "acknowledged c1"]
