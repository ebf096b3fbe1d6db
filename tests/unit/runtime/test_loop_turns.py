"""However much waits, the loop turns in between: timers, heartbeats and other actors are not held up by a crowd."""

import asyncio
from itertools import pairwise
from pathlib import Path

from actors import Actor, Event, State, command
from events.limits import MESSAGES_AT_ONCE, OUTCOMES_AT_ONCE
from runtime.app import App
from runtime.local import local_runtime

WAITING = 300


class Count(State):
    n: int = 0


class Counted(Event[Count], tag="loop_turns.counted"):
    def apply(self, state: Count) -> None:
        state.n += 1


DECIDED = [0]


class CounterActor(Actor[Count], name="loop_turns"):
    @command
    async def count(self) -> int:
        DECIDED[0] += 1
        self.emit(Counted())
        return self.state.n


async def test_a_crowd_that_wakes_an_actor_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """They wait in its mailbox until its state is read; then each turn is short, and none of them lets go of the loop."""
    DECIDED[0] = 0
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(DECIDED[0])
            await asyncio.sleep(0)

    async with local_runtime(App([CounterActor]), tmp_path, shards=1) as runtime, asyncio.TaskGroup() as group:
        asked = [group.create_task(runtime.ask("loop_turns/a", "count")) for _ in range(WAITING)]
        watching = group.create_task(watch())
        assert [await ask for ask in asked] == list(range(1, WAITING + 1))
        watching.cancel()
    assert seen[0] == 0
    assert max(after - before for before, after in pairwise(seen)) <= max(MESSAGES_AT_ONCE, OUTCOMES_AT_ONCE)
