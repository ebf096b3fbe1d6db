"""Calls to model services: tried, retried, handed on, refused, paid - on virtual time, against scripted clients."""

import asyncio
from typing import Any

import pytest

from actors.errors import ActorError, Rejected, Unavailable
from actors.models.limits import ProviderLimits
from actors.models.records import Answer, Failure
from runtime.local import LocalRuntime
from tests.support.virtual import Virtual, virtually
from tests.unit.models.support import ScriptedClient, World, answer, down, events_of, refused, world


async def refusal_of(asked: Any) -> ActorError:
    with pytest.raises(ActorError) as caught:
        await asked
    return caught.value


def test_an_answer_is_recorded_with_what_it_cost() -> None:
    limits = ProviderLimits(usd_per_million_input=2.0, usd_per_million_output=10.0)
    client = ScriptedClient(answer("blue", tokens=(1_000, 100)))

    async def act(runtime: LocalRuntime) -> Any:
        assert await runtime.ask("agent/a", "ask", text="which colour?") == "blue"
        return await runtime.ask("provider/main", "health")

    health = World({"main": client}, {"main": limits}).run(act)
    assert health["total"] == {"calls": 1, "input_tokens": 1_000, "output_tokens": 100, "cost_micro_usd": 3_000}
    assert health["agents"]["agent"]["cost_micro_usd"] == 3_000
    assert health["under_way"] == 0


def test_transient_failures_are_tried_again_under_one_key_and_permanent_ones_are_not() -> None:
    client = ScriptedClient(down(), down("timeout"), "yes")
    assert world(main=client).run(lambda runtime: runtime.ask("agent/a", "ask", text="?")) == "yes"
    assert len(client.ledger) == 3
    assert len(set(client.ledger)) == 1
    stubborn = ScriptedClient(refused())
    error = world(main=stubborn).run(lambda runtime: refusal_of(runtime.ask("agent/a", "ask", text="?")))
    assert isinstance(error, Rejected)
    assert error.fields["reason"] == "http_401"
    assert len(stubborn.ledger) == 1


def test_retry_after_is_honoured() -> None:
    client = ScriptedClient(down("http_429", retry_after_s=17.0), "yes")

    async def act(runtime: LocalRuntime) -> float:
        began = asyncio.get_running_loop().time()
        await runtime.ask("agent/a", "ask", text="?")
        return asyncio.get_running_loop().time() - began

    assert world(main=client).run(act) == pytest.approx(17.0, abs=0.5)


def test_waits_between_attempts_grow_and_differ_between_callers() -> None:
    times: dict[int, list[float]] = {}

    def act_of(seed: int) -> Any:
        def noted() -> Failure:
            times.setdefault(seed, []).append(asyncio.get_running_loop().time())
            return down()

        client = ScriptedClient(noted)

        async def act(runtime: LocalRuntime) -> Any:
            return await refusal_of(runtime.ask("agent/a", "ask", text="?"))

        return world(main=client).run(act, seed=seed)

    for seed in range(20):
        act_of(seed)
    first = [tried[1] - tried[0] for tried in times.values()]
    last = [tried[3] - tried[2] for tried in times.values()]
    assert len({round(wait, 3) for wait in first}) > 10
    assert max(first) <= 0.6
    assert sum(last) > sum(first)


def test_s19_a_deadline_ends_the_attempts() -> None:
    client = ScriptedClient(down(retry_after_s=60.0))
    error = world(main=client).run(lambda runtime: refusal_of(runtime.ask("agent/a", "ask", text="?", deadline_s=10.0)))
    assert isinstance(error, Unavailable)
    assert len(client.ledger) == 1


def test_the_breaker_opens_after_five_tries_once_after_a_minute_and_its_life_is_in_the_log() -> None:
    client = ScriptedClient(*[down()] * 6, "yes")

    async def main(virtual: Virtual) -> None:
        there = World({"main": client}, {"main": ProviderLimits(attempts=5)})

        async def act(runtime: LocalRuntime) -> None:
            await refusal_of(runtime.ask("agent/a", "ask", text="1", deadline_s=30.0))
            assert len(client.ledger) == 5
            at_once = await refusal_of(runtime.ask("agent/a", "ask", text="2", deadline_s=20.0))
            assert at_once.fields["reason"] == "open"
            assert len(client.ledger) == 5
            await asyncio.sleep(61)
            await refusal_of(runtime.ask("agent/a", "ask", text="3", deadline_s=30.0))
            assert len(client.ledger) == 6
            await asyncio.sleep(61)
            assert await runtime.ask("agent/a", "ask", text="4") == "yes"
            assert await runtime.ask("agent/a", "ask", text="5") == "yes"

        await there.play(virtual, act)
        breaker = [kind.rpartition("_")[2] for kind in events_of(virtual, "provider/main") if "breaker" in kind]
        assert breaker == ["opened", "tried", "opened", "tried", "closed"]

    virtually(main)


def test_an_open_breaker_is_open_after_a_restart() -> None:
    client = ScriptedClient(down())

    async def main(virtual: Virtual) -> None:
        there = World({"main": client}, {"main": ProviderLimits(attempts=5)})
        await there.play(virtual, lambda runtime: refusal_of(runtime.ask("agent/a", "ask", text="1", deadline_s=30.0)))
        error = await there.play(virtual, lambda runtime: refusal_of(runtime.ask("agent/b", "ask", text="2", deadline_s=30.0)))
        assert error.fields["reason"] == "open"
        assert len(client.ledger) == 5

    virtually(main)


def test_whoever_can_wait_for_the_trial_does() -> None:
    client = ScriptedClient(*[down()] * 5, "yes")

    async def act(runtime: LocalRuntime) -> Any:
        await refusal_of(runtime.ask("agent/a", "ask", text="1", deadline_s=30.0, timeout_s=500))
        return await runtime.ask("agent/a", "ask", text="2", deadline_s=300.0, timeout_s=500)

    assert World({"main": client}, {"main": ProviderLimits(attempts=5)}).run(act) == "yes"


def test_a_fallback_answers_while_the_breaker_is_open() -> None:
    main, spare = ScriptedClient(down()), ScriptedClient("from the other")

    async def act(runtime: LocalRuntime) -> Any:
        for number in range(3):
            assert await runtime.ask("agent/a", "ask", text=str(number), timeout_s=100) == "from the other"
        return len(main.ledger)

    assert world(main=main, spare=spare).run(act) <= 8


def test_other_providers_keep_their_state() -> None:
    dead, fine = ScriptedClient(down()), ScriptedClient("fine")
    there = World({"dead": dead, "fine": fine}, {})

    async def act(runtime: LocalRuntime) -> Any:
        await refusal_of(runtime.ask("agent/a", "ask", text="1", model="dead", deadline_s=20.0))
        await refusal_of(runtime.ask("agent/a", "ask", text="2", model="dead", deadline_s=20.0))
        assert await runtime.ask("agent/b", "ask", text="3", model="fine") == "fine"
        return [(await runtime.ask(f"provider/{name}", "health"))["breaker"] for name in ("dead", "fine")]

    assert there.run(act) == ["open", "closed"]


def test_a_budget_stops_before_it_is_overdrawn_and_says_so_at_four_fifths() -> None:
    limits = ProviderLimits(budget_usd=0.01, usd_per_million_output=1.0)
    client = ScriptedClient(answer("yes", tokens=(0, 1_900)))

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            errors = []
            for number in range(8):
                try:
                    await runtime.ask("agent/a", "ask", text=str(number))
                except Rejected as error:
                    errors.append(error.fields["reason"])
            assert errors
            assert set(errors) == {"budget"}
            assert (await runtime.ask("provider/main", "health"))["today"]["cost_micro_usd"] <= 10_000
            await asyncio.sleep(24 * 3600)
            assert await runtime.ask("agent/a", "ask", text="the day after") == "yes"

        await World({"main": client}, {"main": limits}).play(virtual, act)

    virtually(main)


def test_a_budget_alert_comes_once_a_day() -> None:
    limits = ProviderLimits(budget_usd=1.0, usd_per_million_output=1.0)
    client = ScriptedClient(answer("yes", tokens=(0, 300_000)), answer("yes", tokens=(0, 510_000)), answer("yes", tokens=(0, 10)))

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            for number in range(5):
                await runtime.ask("agent/a", "ask", text=str(number))

        await World({"main": client}, {"main": limits}).play(virtual, act)
        assert events_of(virtual, "provider/main").count("provider.budget_alerted") == 1

    virtually(main)


def test_the_rate_spreads_calls() -> None:
    times: list[float] = []

    def noted() -> Answer:
        times.append(asyncio.get_running_loop().time())
        return answer()

    client = ScriptedClient(noted)

    async def act(runtime: LocalRuntime) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(runtime.ask(f"agent/a{number}", "ask", text=str(number), timeout_s=500))

    World({"main": client}, {"main": ProviderLimits(requests_per_minute=60)}).run(act)
    assert len(times) == 60
    assert times[-1] - times[0] >= 52
    for begin in range(60):
        assert sum(times[begin] <= time < times[begin] + 10 for time in times) <= 18


def test_concurrency_is_bounded_over_all_agents() -> None:
    running, most = 0, 0

    class Counting(ScriptedClient):
        async def call(self, request: Any, key: str, on_text: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(3)
            running -= 1
            return answer()

    async def act(runtime: LocalRuntime) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(runtime.ask(f"agent/a{number}", "ask", text=str(number), timeout_s=500))

    World({"main": Counting("x")}, {"main": ProviderLimits(concurrency=3)}).run(act)
    assert most == 3


def test_identical_questions_under_way_share_one_call() -> None:
    client = ScriptedClient(answer("shared", tokens=(100, 10)))

    async def act(runtime: LocalRuntime) -> Any:
        client.gate = asyncio.Event()
        asked = [asyncio.ensure_future(runtime.ask(f"agent/a{number}", "ask", text="the same")) for number in range(5)]
        while not client.ledger:
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        client.gate.set()
        assert await asyncio.gather(*asked) == ["shared"] * 5
        return (await runtime.ask("provider/main", "health"))["total"]

    total = world(main=client).run(act)
    assert len(client.ledger) == 1
    assert (total["calls"], total["input_tokens"]) == (5, 100)


def test_cancelling_the_last_who_waits_ends_the_request() -> None:
    client = ScriptedClient("never")

    async def act(runtime: LocalRuntime) -> int:
        client.gate = asyncio.Event()
        asked = [
            asyncio.ensure_future(runtime.ask(f"agent/{name}", "ask", text="the same", command_id=name)) for name in ("one", "two")
        ]
        while not client.ledger:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await runtime.cancel("agent/one", "one")
        await refusal_of(asked[0])
        assert client.cancelled == 0
        await runtime.cancel("agent/two", "two")
        await refusal_of(asked[1])
        return client.cancelled

    assert world(main=client).run(act) == 1


def test_a_wrong_shape_is_repaired_once_and_then_refused() -> None:
    good = ScriptedClient("a green triangle", '```json\n{"colour": "green", "sides": 3}\n```')
    assert world(main=good).run(lambda runtime: runtime.ask("agent/a", "shape", text="?")) == {"colour": "green", "sides": 3}
    assert "does not fit" in good.requests[1].messages[-1].content
    bad = ScriptedClient("no", '{"colour": 3}')
    error = world(main=bad).run(lambda runtime: refusal_of(runtime.ask("agent/a", "shape", text="?")))
    assert error.fields["reason"] == "schema"
    assert len(bad.requests) == 2


def test_an_unknown_provider_is_told_at_once_with_the_known_ones() -> None:
    error = world(main=ScriptedClient("x")).run(lambda runtime: refusal_of(runtime.ask("agent/a", "ask", text="?", model="other")))
    assert "main" in error.message
