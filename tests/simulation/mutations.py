"""Mechanisms taken out one by one: the simulation must find each, or it proves nothing about it.

``python -m tests.simulation.mutations`` prints which seed of fifty finds it first, how many do, and by which invariants.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import pytest

from actors.turn import Turn
from events.in_memory.store_memory import MemoryShard
from runtime.cell import Cell
from runtime.exchange import Reply
from runtime.over_nats.tells_nats import TellIntake
from runtime.turns import endings
from runtime.turns.outcomes import short_outcome
from runtime.turns.taking_up import TakingUp
from runtime.turns.timers import Timers
from tests.simulation.chaos import FAULTS
from tests.simulation.checkers import violations
from tests.simulation.world import simulate

Patch = pytest.MonkeyPatch
SEEDS = 50


def without_epochs(patch: Patch) -> None:
    """S3: appends do not compare the epoch."""
    patch.setattr(MemoryShard, "_fence", lambda self: self._ownership)


def without_inbox(patch: Patch) -> None:
    """S24: a repeated id is a new command."""
    original = MemoryShard._decide

    def decide(self: Any, group: Any) -> Any:
        if group.inbox is not None:
            self._content.inbox.pop((group.inbox.command_id, group.inbox.stream), None)
        return original(self, group)

    patch.setattr(MemoryShard, "_decide", decide)


def without_pair_numbers(patch: Patch) -> None:
    """S25: an outbox row is taken in whatever order it comes."""
    original = MemoryShard._take_arrival

    def take(self: Any, arrival: Any) -> Any:
        return original(self, msgspec.structs.replace(arrival, sender=None))

    patch.setattr(MemoryShard, "_take_arrival", take)


def without_journal(patch: Patch) -> None:
    """S19: a re-run does not look at what is recorded."""
    original = Turn.__init__

    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        # But for its waits: else each run opens one more, for ever.
        self.entries = {use: entry for use, entry in self.entries.items() if use.kind == "wait"}

    patch.setattr(Turn, "__init__", make)


def without_conflicts(patch: Patch) -> None:
    """S18: a failed commit leaves the speculative state in place."""
    original = short_outcome

    def outcome(self: Any, item: Any, result: Any) -> None:
        state = self.state
        original(self, item, result)
        self.state = state if self.state is None else self.state

    patch.setattr("runtime.cell.short_outcome", outcome)


def without_commit(patch: Patch) -> None:
    """Design 6: replies leave before the commit."""
    original = Cell.submit

    def submit(self: Any, item: Any, group: Any) -> None:
        original(self, item, group)
        item.answer(Reply(item.reply, item.error))

    patch.setattr(Cell, "submit", submit)


def without_takeover_of_sends(patch: Patch) -> None:
    """S25: a new owner does not look for unsent rows."""

    async def unsent(_self: Any) -> list[Any]:
        return []

    patch.setattr(MemoryShard, "unsent", unsent)


def without_memory_of_refusals(patch: Patch) -> None:
    """S24: a refusal of a chosen id leaves no row."""

    def forget(cell: Any, item: Any, _status: Any, error: Any) -> None:
        cell.after_what_it_saw(item, cell.stand(error=error))

    patch.setattr(endings, "remember", forget)


def without_order_in_doubt(patch: Patch) -> None:
    """I-16: what is committed after an unknown outcome is handed out directly."""
    patch.setattr(TakingUp, "in_doubt", property(lambda _: False))


def without_attaching(patch: Patch) -> None:
    """S24: the same id under way is decided once more beside it."""
    original = Cell.receive

    def receive(self: Any, item: Any) -> None:
        self.inflight.clear()
        original(self, item)

    patch.setattr(Cell, "receive", receive)


def without_timers_of_the_log(patch: Patch) -> None:
    """S26: a timer lives in the memory of its owner only."""

    async def timers(_self: Any) -> list[Any]:
        return []

    patch.setattr(MemoryShard, "timers", timers)


def without_removal_of_timers(patch: Patch) -> None:
    """S26: a timer that fired keeps its row."""
    original = MemoryShard._take_arrival

    def take(self: Any, arrival: Any) -> Any:
        kept = self._content.timers.get((arrival.entry.stream, arrival.timer_id))
        accepted = original(self, arrival)
        if kept is not None:
            self._content.timers[arrival.entry.stream, arrival.timer_id] = kept
        return accepted

    patch.setattr(MemoryShard, "_take_arrival", take)


def without_retrying_timers(patch: Patch) -> None:
    """S26: a timer whose commit failed is forgotten until the next owner."""
    patch.setattr(Timers, "again", lambda self, timers: None)


def without_parking(patch: Patch) -> None:
    """S21: an ambiguous step runs again without asking anybody."""

    async def park(*_: Any) -> None:
        return None

    patch.setattr(Turn, "_park", park)


def without_commit_of_tells(patch: Patch) -> None:
    """S11: a tell is acknowledged before it is in the inbox."""
    original = TellIntake._take

    async def take(self: Any, messages: Any) -> bool:
        for message in messages:
            await message.ack()
            message._ackd = False
        return await original(self, messages)

    patch.setattr(TellIntake, "_take", take)


def without_gaps_of_tells(patch: Patch) -> None:
    """S11: intake goes on behind a tell that did not arrive."""
    original = TellIntake._take

    async def take(self: Any, messages: Any) -> bool:
        for message in messages:
            self._last = message.metadata.sequence.consumer - 1
            await original(self, [message])
        return True

    patch.setattr(TellIntake, "_take", take)


class Mutation(NamedTuple):
    """What is taken out, and the invariant that must name it within `SEEDS` seeds. faults: what goes wrong in these runs; where somebody
    else mends what the mechanism would have (a new owner, say), only what shows it."""

    take_out: Callable[[Patch], None]
    invariant: str
    faults: Mapping[str, int] = FAULTS


MUTATIONS = (
    Mutation(without_epochs, "I-4"), Mutation(without_inbox, "I-7"), Mutation(without_pair_numbers, "I-16"),
    Mutation(without_journal, "I-14"), Mutation(without_conflicts, "I-8"), Mutation(without_commit, "I-5"),
    Mutation(without_takeover_of_sends, "run"), Mutation(without_memory_of_refusals, "I-1"), Mutation(without_attaching, "I-6"),
    Mutation(without_timers_of_the_log, "run"), Mutation(without_removal_of_timers, "run"), Mutation(without_parking, "S-21"),
    Mutation(without_commit_of_tells, "S-11"), Mutation(without_gaps_of_tells, "I-16"),
    Mutation(without_retrying_timers, "run", {"inject": 5, "fill": 3}),
)  # fmt: skip
RARE = (Mutation(without_order_in_doubt, "I-16"),)
"""What fifty seeds do not find: it has tests of its own (`test_taking_up`).

Looked for and not in this list: the wait of the barrier (`Cell.settle`, S15). What is submitted upon a group that fails is refused by its
expected version and decided again, so without the wait a turn needs more attempts, and nothing else changes. And the copies of a worker
that lost a shard (`Seat.drop`): what they would do wrong needs an answer for want of room to one copy while the other lies in the socket of
a stopped worker, so it is shown by hand (`test_seats`, `tests/crash/mutations.py`).
"""


def main() -> int:
    warnings.simplefilter("ignore")
    missed = 0
    for mutation in (*MUTATIONS, *RARE):
        found: list[int] = []
        named: Counter[str] = Counter()
        with pytest.MonkeyPatch.context() as patch:
            mutation.take_out(patch)
            for seed in range(SEEDS):
                wrong = violations(simulate(seed, faults=mutation.faults)[0])
                if wrong:
                    found.append(seed)
                    named.update({finding.partition(":")[0] for finding in wrong})
        missed += not found and mutation in MUTATIONS
        first = found[0] if found else "none"
        print(f"{mutation.take_out.__name__:28} first {first:>4}  {len(found):2} of {SEEDS}  {dict(named.most_common(4))}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
