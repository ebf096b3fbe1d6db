"""Identical questions under way are one call: one permit's worth, one failure, one bill - whoever of those who ask is cancelled or dies."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, State, command
from actors.errors import ActorError
from actors.models.limits import ProviderLimits
from actors.models.provider import Provider
from actors.models.provider_state import Permit, ProviderState
from actors.models.records import Usage
from actors.registry import ActorType
from events.ids import shard_of
from runtime import App
from runtime.local import LocalRuntime, local_runtime
from tests.support.eventually import until
from tests.support.virtual import Virtual, virtually
from tests.unit.models.support import ScriptedClient, World, answer, down
from tests.unit.models.test_line import PROVIDER, Timed, all_of, in_line, payloads, refusal


def ask(runtime: LocalRuntime, name: str, text: str, **more: Any) -> "asyncio.Future[Any]":
    return asyncio.ensure_future(runtime.ask(f"agent/{name}", "ask", text=text, command_id=name, timeout_s=900, **more))


async def health(runtime: LocalRuntime) -> dict[str, Any]:
    said: dict[str, Any] = await runtime.ask(PROVIDER, "health")
    return said


def test_identical_questions_need_one_permit_together() -> None:
    client = Timed(5.0)

    async def act(runtime: LocalRuntime) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        asked = []
        for number in range(10):
            asked.append(ask(runtime, f"a{number}", "the same"))
            await asyncio.sleep(0.1)
        assert ((await health(runtime))["under_way"], (await health(runtime))["in_line"]) == (1, 0)
        assert await all_of(asked) == ["yes"] * 10
        assert clock() - began == pytest.approx(5.0, abs=0.1)
        assert client.order == ["the same"]
        assert (await health(runtime))["total"] == {"calls": 10, "input_tokens": 10, "output_tokens": 5, "cost_micro_usd": 0}

    World({"main": client}, {"main": ProviderLimits(concurrency=1, requests_per_minute=10.0)}).run(act)


def test_those_in_line_with_one_question_are_let_through_together() -> None:
    client = Timed(5.0)

    async def act(runtime: LocalRuntime) -> None:
        asked = [ask(runtime, "first", "another")]
        await asyncio.sleep(0.1)
        for number, text in enumerate(["same", "other", "same", "same"]):
            asked.append(ask(runtime, f"a{number}", text))
            await asyncio.sleep(0.1)
        await in_line(runtime, 4)
        await all_of(asked)
        assert client.order == ["another", "same", "other"]
        assert client.most == 1

    World({"main": client}, {"main": ProviderLimits(concurrency=1)}).run(act)


def test_s22_who_began_is_cancelled_and_the_call_goes_on_for_the_others() -> None:
    """It still is a call under way, so nobody takes its place; and somebody who is left pays for it."""
    client = Timed(10.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            leading = ask(runtime, "a0", "the same")
            await asyncio.sleep(0.1)
            asked = [ask(runtime, f"a{number}", "the same") for number in range(1, 4)]
            other = ask(runtime, "b", "another")
            await in_line(runtime, 1)
            assert await runtime.cancel("agent/a0", "a0") == "cancelled"
            assert (await refusal(leading)).number == 499
            assert await all_of([*asked, other]) == ["yes"] * 4
            assert client.order == ["the same", "another"]
            assert client.most == 1
            assert client.began[1][1] - client.began[0][1] == pytest.approx(10.0, abs=0.1)
            assert (await health(runtime))["total"] == {"calls": 4, "input_tokens": 20, "output_tokens": 10, "cost_micro_usd": 0}

        await World({"main": client}, {"main": ProviderLimits(concurrency=1)}).play(virtual, act)
        assert len(payloads(virtual, "provider.callers_left")) == 1

    virtually(main)


def test_one_failure_of_many_who_asked_the_same_is_one_failure() -> None:
    client = ScriptedClient(down(), "yes")

    async def act(runtime: LocalRuntime) -> None:
        client.gate = asyncio.Event()
        asked = [ask(runtime, f"a{number}", "the same") for number in range(8)]
        await until(lambda: bool(client.ledger), "the call is under way")
        await asyncio.sleep(1)
        client.gate.set()
        assert await all_of(asked) == ["yes"] * 8
        said = await health(runtime)
        assert (said["failures"], said["breaker"], said["under_way"]) == ({"http_503": 1}, "closed", 0)

    World({"main": client}, {"main": ProviderLimits()}).run(act)


def test_s10_a_deadline_of_one_who_shares_a_call_says_nothing_of_the_provider() -> None:
    client = Timed(30.0)

    async def act(runtime: LocalRuntime) -> None:
        patient = ask(runtime, "patient", "the same")
        hasty = [ask(runtime, f"a{number}", "the same", deadline_s=15.0) for number in range(6)]
        for each in hasty:
            assert (await refusal(each)).fields["reason"] == "deadline"
        said = await health(runtime)
        assert (said["failures"], said["breaker"], said["under_way"]) == ({}, "closed", 1)
        assert await patient == "yes"
        assert client.order == ["the same"]

    World({"main": client}, {"main": ProviderLimits()}).run(act)


def test_s19_after_a_kill_they_are_one_call_again() -> None:
    client = Timed(5.0)
    names = [f"a{number}" for number in range(6)]

    async def main(virtual: Virtual) -> None:
        limits = {"main": ProviderLimits(concurrency=1)}

        async def before(runtime: LocalRuntime) -> None:
            for name in names:
                ask(runtime, name, "the same").add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.sleep(1)

        async def after(runtime: LocalRuntime) -> None:
            assert await all_of([ask(runtime, name, "the same") for name in names]) == ["yes"] * 6

        await World({"main": client}, limits).play(virtual, before, killed=True)
        await World({"main": client}, limits).play(virtual, after)
        assert client.order == ["the same"] * 2
        assert client.most == 1

    virtually(main)


def test_a_question_that_is_asked_elsewhere_is_another_call() -> None:
    """Two processes cannot share a flight: each needs a permit."""

    async def act(runtime: LocalRuntime) -> None:
        async def admit(permit: str, question: str) -> str:
            said = await runtime.ask(
                PROVIDER, "admit", agent="a", run="r", reserve=0, deadline_s=10.0, permit=permit, patience_s=10.0, question=question
            )
            return str(said["type"])

        assert [await admit("p", "0-x"), await admit("q", "1-x"), await admit("r", "0-x")] == ["admitted", "queued", "admitted"]
        usage = msgspec.to_builtins(Usage())
        await runtime.ask(PROVIDER, "report", permit="p", agent="a", run="r", usage=usage)
        assert (await health(runtime))["in_line"] == 1, "one of those who share the call has not heard its end yet"
        await runtime.ask(PROVIDER, "leave", permit="r")
        assert ((await health(runtime))["in_line"], (await health(runtime))["under_way"]) == (0, 1)

    World({"main": ScriptedClient(answer())}, {"main": ProviderLimits(concurrency=1)}).run(act)


def test_beside_a_trial_nobody_shares() -> None:
    client = ScriptedClient(*[down()] * 5, "yes")

    async def act(runtime: LocalRuntime) -> None:
        with pytest.raises(ActorError):
            await ask(runtime, "opens", "the same", deadline_s=20.0)
        client.gate = asyncio.Event()
        asked = [ask(runtime, f"a{number}", "the same") for number in range(3)]
        await in_line(runtime, 3)
        await asyncio.sleep(62)
        assert ((await health(runtime))["under_way"], (await health(runtime))["in_line"]) == (1, 2)
        client.gate.set()
        assert await all_of(asked) == ["yes"] * 3

    World({"main": client}, {"main": ProviderLimits(attempts=5)}).run(act)


class Homely(Actor[State], name="homely"):
    @command
    def where(self) -> int:
        return self.home

    @command
    async def where_later(self) -> int:
        await self.step("pause", asyncio.sleep, 0.0)
        return self.home


async def test_actors_of_one_home_live_in_one_process(tmp_path: Path) -> None:
    async with local_runtime(App(actors=[Homely]), tmp_path / "log") as runtime:
        for number in range(12):
            for method in ("where", "where_later"):
                assert await runtime.ask(f"homely/{number}", method) == shard_of("homely", f"{number}", 4)


def test_permits_of_logs_without_questions_still_fold() -> None:
    entry = ActorType(Provider).events["provider.call_admitted"]
    assert (entry.version, entry.chain.first) == (2, 1)
    former = b'{"permit":"p","call":{"agent":"a","run":"r","expires_at":9.0,"reserved":1},"next_free":2.0}'
    event: Any = entry.decoder.decode(entry.chain.upcast(former, 1))
    state = ProviderState()
    event.apply(state)
    assert state.permits == {"p": Permit(agent="a", run="r", expires_at=9.0, reserved=1, question="")}
