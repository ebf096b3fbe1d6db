"""What happened in one simulated run, as plain data: the checkers know nothing else."""

from collections.abc import Sequence
from typing import Any

import msgspec

from events.envelope import RecordedEvent
from events.store import InboxEntry

NOT_LOOKED = (429, 503, 504, 507)
"""Numbers that a worker answers without having looked the command up."""


class Answered(msgspec.Struct, frozen=True):
    """One answer that a client got: body of a reply, or number and outcome of an error."""

    at_s: float
    body: bytes | None
    number: int | None = None
    outcome: str = "done"
    message: str = ""


class Operation(msgspec.Struct, kw_only=True):
    """One command or query of a client, asked under one id until its outcome was known."""

    command_id: str
    stream: str
    method: str
    arguments: dict[str, Any]
    query: bool = False
    answers: list[Answered] = []

    @property
    def done(self) -> Answered | None:
        return next((answer for answer in self.answers if answer.body is not None), None)

    @property
    def resolved(self) -> bool:
        """Its outcome is known. After an unknown one, a worker that cannot look says nothing of the earlier attempts."""
        if self.done is not None:
            return True
        was_unknown = any(answer.outcome == "unknown" for answer in self.answers)
        last = self.answers[-1] if self.answers else None
        return last is not None and last.outcome == "not_done" and not (was_unknown and last.number in NOT_LOOKED)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One answer that left a shard, whether or not it arrived."""

    at_s: float
    worker: str
    epoch: int
    stream: str
    method: str
    command_id: str
    body: bytes | None
    number: int | None
    outcome: str
    version: int
    query: bool


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One group that was committed: by whom, in the epoch that it believed in."""

    shard: int
    worker: str
    epoch: int
    command_id: str | None
    positions: tuple[int, ...]


class Taken(msgspec.Struct, frozen=True):
    """One worker became the owner of a shard."""

    shard: int
    epoch: int
    worker: str


class Executed(msgspec.Struct, kw_only=True):
    """One run of a step's function. recorded: its result stood in the log already; owner: the one who ran it still owned the shard."""

    key: str
    worker: str
    recorded: bool
    owner: bool


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody was told who cancelled a command, or answered a wait: `id` names it; value is the answer."""

    stream: str
    id: str
    status: str
    value: str = ""


class Tell(msgspec.Struct, kw_only=True):
    """One command that was handed to JetStream. kept: it said so."""

    stream: str
    command_id: str
    method: str
    kept: bool = False


class Live(msgspec.Struct, frozen=True):
    """What an actor said of itself at the end."""

    version: int
    state_hash: str


class History(msgspec.Struct, kw_only=True):
    """One finished run."""

    seed: int
    operations: list[Operation] = []
    told: list[Told] = []
    written: list[Written] = []
    taken: list[Taken] = []
    executed: list[Executed] = []
    cancelled: list[Ended] = []
    tells: list[Tell] = []
    dropped: set[str] = set()
    """Commands that a person dropped as dead letters."""
    answered: list[Ended] = []
    problems: list[str] = []
    """What no run may come to: it spins, a worker's task died, a callback raised, it did not settle."""
    events: dict[int, list[RecordedEvent]] = {}
    inbox: list[InboxEntry] = []
    unsent: int = 0
    copied: set[str] = set()
    """Commands that the network doubled."""
    live: dict[str, Live] = {}
    counts: dict[str, int] = {}
    steps: int = 0
    seconds: float = 0.0

    def streams(self) -> dict[str, list[RecordedEvent]]:
        found: dict[str, list[RecordedEvent]] = {}
        for shard in sorted(self.events):
            for event in self.events[shard]:
                found.setdefault(event.stream, []).append(event)
        return found

    def of_command(self, stream: str, command_id: str) -> Sequence[RecordedEvent]:
        return [event for event in self.streams().get(stream, ()) if event.command_id == command_id]
