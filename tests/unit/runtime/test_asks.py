"""What settles an ask between workers, and what makes it go out again (S8, S9)."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from actors.errors import ActorError, LogFull, OutcomeUnknown, Overloaded, Rejected, Unavailable, error_body
from events.clock import SystemClock
from events.codec import encode
from runtime.exchange import Reply
from runtime.over_nats.asks import Asks
from runtime.wire import Answer, Envelope

ENVELOPE = Envelope(kind="ask", stream="notes/a", method="note", command_id="c-1")


class World:
    """The asks of one process, and what they send."""

    def __init__(self) -> None:
        self.sent: list[Envelope] = []
        self.asks = Asks("_INBOX.w", SystemClock(), lambda _: 0, lambda _, envelope: self.sent.append(envelope))

    def ask(self, *, within_s: float = 30.0, repeated: bool = False) -> "asyncio.Task[Reply]":
        deadline_ms = SystemClock().wall_us() // 1_000 + int(within_s * 1_000)
        return _task(self.asks.ask(ENVELOPE, deadline_ms, repeated=repeated))

    def answer(self, sending: int, error: ActorError | None = None) -> None:
        """The answer to one sending, counted from 0."""
        token = self.sent[sending].reply.removeprefix("_INBOX.w.r.")
        body = b"1" if error is None else encode(error_body(error))
        self.asks.on_answer(token, Answer(body=body, failed=error is not None, version=1, position=1, time=1))


def _task(ask: Coroutine[Any, Any, Reply]) -> "asyncio.Task[Reply]":
    return asyncio.get_running_loop().create_task(ask)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("error", [LogFull("full"), Overloaded("full")])
async def test_no_room_settles_an_ask_that_was_sent_once(world: World, error: ActorError) -> None:
    asked = world.ask()
    await asyncio.sleep(0)
    world.answer(0, error)
    assert type((await asked).error) is type(error)


async def test_no_room_does_not_settle_an_ask_that_was_sent_twice_until_both_have_said_so(world: World) -> None:
    asked = world.ask(within_s=0.3)
    await asyncio.sleep(0)
    world.asks.again(0)
    world.answer(1, LogFull("full"))
    world.answer(1, LogFull("full"))
    assert isinstance((await asked).error, OutcomeUnknown)


async def test_an_ask_that_was_refused_for_room_at_every_sending_was_not_done(world: World) -> None:
    asked = world.ask(within_s=0.3)
    await asyncio.sleep(0)
    world.asks.again(0)
    world.answer(1, LogFull("full"))
    world.answer(0, LogFull("full"))
    assert isinstance((await asked).error, LogFull)


async def test_an_earlier_run_of_the_turn_counts_as_a_sending_that_nobody_answered(world: World) -> None:
    asked = world.ask(within_s=0.1, repeated=True)
    await asyncio.sleep(0)
    world.answer(0, LogFull("full"))
    assert isinstance((await asked).error, OutcomeUnknown)


async def test_a_refusal_settles_it_whichever_sending_it_answers(world: World) -> None:
    asked = world.ask(repeated=True)
    await asyncio.sleep(0)
    world.asks.again(0)
    world.answer(0, Rejected("no"))
    assert isinstance((await asked).error, Rejected)


async def test_s24_what_the_log_remembers_settles_it_whatever_its_class_says(world: World) -> None:
    """Else it would go out again until its deadline, and hear the same each time."""
    asked = world.ask(repeated=True)
    await asyncio.sleep(0)
    world.asks.again(0)
    full = LogFull("full")
    full.final = True
    world.answer(0, full)
    told = (await asked).error
    assert isinstance(told, LogFull)
    assert told.final


async def test_however_many_say_that_nobody_is_there_it_goes_out_once_more(world: World) -> None:
    """Else each answer brings forth the next, and a shard without owner drowns in its own asks."""
    asked = world.ask()
    await asyncio.sleep(0)
    for _ in range(50):
        world.asks.on_nobody(0)
    for _ in range(50):
        world.answer(0, Unavailable("starting"))
    await asyncio.sleep(0.25)
    assert len(world.sent) <= 3
    world.answer(0)
    assert (await asked).body == b"1"
