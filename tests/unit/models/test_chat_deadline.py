"""The deadline of a call to a model bounds all of it: what is under way then is ended, also across restarts - on virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from actors import Actor, State, command
from actors.errors import ActorError, OutcomeUnknown, Unavailable
from actors.models.limits import FAIR_CHANCE_S, ProviderLimits
from actors.models.port import OnText
from actors.models.provider import Provider
from actors.models.records import Answer, Failure, Message, Request
from actors.models.registry import Configured, ProviderRegistry
from runtime import App
from runtime.local import LocalRuntime
from runtime.tasks import Tasks
from tests.support.logs import START_US
from tests.support.virtual import Virtual, virtually
from tests.unit.models.support import APP, ScriptedClient, Shape, World, answer, events_of, world


class Slow(ScriptedClient):
    """Takes `seconds` for each answer, and says something all the while."""

    def __init__(self, seconds: float, text: str = "yes") -> None:
        super().__init__(text)
        self.seconds = seconds

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        self.ledger.append(key)
        self.requests.append(request)
        try:
            for _ in range(10):
                await asyncio.sleep(self.seconds / 10)
                on_text("word ")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return answer(str(self.script[0]))


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def reason_of(asked: Awaitable[Any]) -> str:
    try:
        await asked
    except ActorError as error:
        return str(error.fields.get("reason"))
    return "answered"


@pytest.mark.parametrize("stream", [False, True])
def test_the_attempt_under_way_is_ended_and_its_permit_is_free_at_once(stream: bool) -> None:
    client = Slow(60.0)

    async def act(runtime: LocalRuntime) -> None:
        began = now_s()
        with pytest.raises(Unavailable) as told:
            await runtime.ask("agent/a", "ask", text="1", deadline_s=10.0, stream=stream, timeout_s=100)
        assert told.value.fields["reason"] == "deadline"
        assert now_s() - began == pytest.approx(10.0, abs=0.1)
        assert client.cancelled == 1
        assert (await runtime.ask("provider/main", "health"))["under_way"] == 0
        client.seconds = 1.0
        assert await runtime.ask("agent/b", "ask", text="2", deadline_s=2.0) == "yes"

    World({"main": client}, {"main": ProviderLimits(concurrency=1)}).run(act)


def test_a_shared_answer_goes_on_for_those_who_have_time() -> None:
    client = Slow(30.0)

    async def act(runtime: LocalRuntime) -> None:
        short, long = (
            asyncio.ensure_future(reason_of(runtime.ask(f"agent/{name}", "ask", text="same", deadline_s=deadline_s, timeout_s=100)))
            for name, deadline_s in (("short", 10.0), ("long", 60.0))
        )
        assert await short == "deadline"
        assert client.cancelled == 0
        assert await long == "answered"

    world(main=client).run(act)
    assert len(client.ledger) == 1


def test_waits_between_attempts_and_in_line_count() -> None:
    client = Slow(8.0)

    async def act(runtime: LocalRuntime) -> None:
        began = now_s()
        asked = [
            asyncio.ensure_future(reason_of(runtime.ask(f"agent/a{number}", "ask", text=str(number), deadline_s=20.0, timeout_s=100)))
            for number in range(4)
        ]
        assert sorted([await each for each in asked]) == ["answered", "answered", "busy", "deadline"]
        assert now_s() - began == pytest.approx(20.0, abs=0.1)

    World({"main": client}, {"main": ProviderLimits(concurrency=1)}).run(act)
    assert client.cancelled == 1


def test_nobody_is_asked_after_the_deadline_in_place_of_who_took_it() -> None:
    hangs, spare = Slow(60.0), ScriptedClient("from the other")

    async def act(runtime: LocalRuntime) -> str:
        return await reason_of(runtime.ask("agent/a", "ask", text="?", deadline_s=10.0))

    assert world(main=hangs, spare=spare).run(act) == "deadline"
    assert spare.ledger == []


def test_a_command_that_waited_for_its_turn_has_as_long_for_its_call() -> None:
    """`now` of a turn without a journal is when its command came, which may be long ago."""
    client = Slow(200.0)

    async def act(runtime: LocalRuntime) -> list[str]:
        asked = [asyncio.ensure_future(reason_of(runtime.ask("agent/a", "ask", text=str(number), timeout_s=1_000))) for number in range(3)]
        return [await each for each in asked]

    assert World({"main": client}, {"main": ProviderLimits(timeout_s=250.0)}).run(act) == ["answered"] * 3


def test_a_repair_has_what_is_left() -> None:
    class Shaper(Actor[State], name="shaper"):
        @command
        async def shape(self) -> Shape:
            return await self.model("main").ask_for(Shape, [Message(role="user", content="?")], deadline_s=15.0)

    client = Slow(10.0, "no shape")

    async def main(virtual: Virtual) -> None:
        registry = ProviderRegistry({"main": Configured(client=client)}, Tasks().spawn)
        async with virtual.runtime(App(actors=[Shaper, Provider]), registry) as runtime:
            assert await reason_of(runtime.ask("shaper/s", "shape")) == "deadline"
            assert now_s() == pytest.approx(15.0, abs=0.1)

    virtually(main)
    assert (len(client.ledger), client.cancelled) == (2, 1)


def test_s10_an_answer_counts_that_comes_after_the_deadline_of_the_command() -> None:
    """The caller has gone, the turn has not: its answer is paid for, in the books, and there for whoever asks again."""
    client = Slow(10.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            with pytest.raises(OutcomeUnknown):
                await runtime.ask("agent/a", "ask", command_id="c", text="?", timeout_s=5)
            await asyncio.sleep(10)
            assert await runtime.ask("agent/a", "ask", command_id="c", text="?", timeout_s=5) == "yes"
            assert (await runtime.ask("provider/main", "health"))["total"]["calls"] == 1

        await world(main=client).play(virtual, act)
        assert events_of(virtual, "provider/main") == ["provider.call_admitted", "provider.call_answered"]

    virtually(main)


# -- behind a crash -----------------------------------------------------------------------------------------------------------------------


def crashed(then: Callable[[LocalRuntime], Awaitable[None]], *, after_s: float, client: ScriptedClient) -> list[dict[str, Any]]:
    """A call with 20 s was begun and its process is gone a second later; another one comes `after_s` after that. Intents of the calls."""

    async def main(virtual: Virtual) -> list[dict[str, Any]]:
        registry = ProviderRegistry({"main": Configured(client=client)}, Tasks().spawn)
        async with virtual.runtime(APP, registry) as runtime:
            asked = asyncio.ensure_future(runtime.ask("agent/a", "ask", command_id="c", text="?", deadline_s=20.0, timeout_s=900))
            await asyncio.sleep(1)
            for shard in runtime.shards:
                shard.abandon()
            asked.cancel()
            await asyncio.wait([asked])
        await asyncio.sleep(after_s)
        async with virtual.runtime(APP, registry) as runtime:
            await then(runtime)
        events = [event for event in virtual.log.content(0).events if event.stream == "agent/a" and event.type == "step.started"]
        return [msgspec.json.decode(event.payload) for event in events]

    return virtually(main)


async def _ask_again(runtime: LocalRuntime) -> str:
    return await reason_of(runtime.ask("agent/a", "ask", command_id="c", text="?", deadline_s=20.0, timeout_s=900))


def test_s19_behind_its_deadline_a_call_is_not_repeated() -> None:
    client = Slow(60.0)

    async def then(runtime: LocalRuntime) -> None:
        assert await _ask_again(runtime) == "deadline"
        assert (await runtime.ask("provider/main", "health"))["under_way"] == 0

    (intent,) = crashed(then, after_s=30.0, client=client)
    assert intent["deadline_us"] - START_US == pytest.approx(20e6, abs=100_000)
    assert len(client.ledger) == 1


def test_s19_before_its_deadline_a_call_is_repeated_under_its_key_for_what_is_left() -> None:
    client = Slow(60.0)

    async def then(runtime: LocalRuntime) -> None:
        assert await _ask_again(runtime) == "deadline"
        assert now_s() == pytest.approx(20.0, abs=0.2)

    crashed(then, after_s=5.0, client=client)
    assert len(client.ledger) == 2
    assert len(set(client.ledger)) == 1


# -- what it says of the provider ---------------------------------------------------------------------------------------------------------


async def _cut_off(runtime: LocalRuntime, deadline_s: float, times: int) -> str:
    for number in range(times):
        assert await reason_of(runtime.ask("agent/a", "ask", text=f"{deadline_s} {number}", deadline_s=deadline_s)) == "deadline"
    return str((await runtime.ask("provider/main", "health"))["breaker"])


def test_one_that_hangs_opens_the_breaker_although_all_are_impatient() -> None:
    assert world(main=Slow(1_000.0)).run(lambda runtime: _cut_off(runtime, FAIR_CHANCE_S + 1, 5)) == "open"


def test_callers_who_had_no_time_left_do_not_open_it() -> None:
    assert world(main=Slow(1_000.0)).run(lambda runtime: _cut_off(runtime, FAIR_CHANCE_S / 2, 20)) == "closed"


def test_a_trial_that_was_cut_off_too_soon_leaves_the_next_one_the_trial() -> None:
    client = Slow(1_000.0)

    async def act(runtime: LocalRuntime) -> None:
        assert await _cut_off(runtime, FAIR_CHANCE_S + 1, 5) == "open"
        await asyncio.sleep(61)
        assert await _cut_off(runtime, 1.0, 1) == "open"
        client.seconds = 3.0
        assert await reason_of(runtime.ask("agent/b", "ask", text="?", deadline_s=4.0)) == "answered"
        assert (await runtime.ask("provider/main", "health"))["breaker"] == "closed"

    world(main=client).run(act)
