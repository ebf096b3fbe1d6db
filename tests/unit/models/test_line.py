"""The line before a provider: first come first served, woken at once, and nothing of it lost - on virtual time."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from actors.errors import ActorError, Unavailable
from actors.models.limits import LEASE_GRACE_S, ProviderLimits
from actors.models.port import OnText
from actors.models.provider import CallAdmitted, CallAnswered, LimitsSet
from actors.models.provider_state import ProviderState
from actors.models.records import Answer, Failure, Request
from events.envelope import RecordedEvent
from runtime.local import LocalRuntime
from tests.support.eventually import eventually
from tests.support.virtual import Virtual, virtually
from tests.unit.models.support import ScriptedClient, World, answer, down, events_of

PROVIDER = "provider/main"


class Timed(ScriptedClient):
    """Takes `seconds` for each answer; notes when each question began, and how many were under way at most."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__("x")
        self.seconds = seconds
        self.began: list[tuple[str, float]] = []
        self.under_way: Counter[str] = Counter()
        self.most = 0

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        self.began.append((request.messages[0].content, asyncio.get_running_loop().time()))
        self.under_way[key] += 1
        self.most = max(self.most, len(self.under_way))
        try:
            await asyncio.sleep(self.seconds)
        finally:
            del self.under_way[key]
        return answer()

    @property
    def order(self) -> list[str]:
        return [text for text, _ in self.began]


async def refusal(asked: Any) -> ActorError:
    with pytest.raises(ActorError) as caught:
        await asked
    return caught.value


def ask(runtime: LocalRuntime, name: str, **more: Any) -> "asyncio.Future[Any]":
    return asyncio.ensure_future(runtime.ask(f"agent/{name}", "ask", text=name, command_id=name, timeout_s=900, **more))


async def all_of(asked: Sequence["asyncio.Future[Any]"]) -> list[Any]:
    return list(await asyncio.gather(*asked))


def recorded(virtual: Virtual, stream: str) -> list[RecordedEvent]:
    return [event for event in virtual.log.content(0).events if event.stream == stream]


def payloads(virtual: Virtual, kind: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.payload) for event in recorded(virtual, PROVIDER) if event.type == kind]


async def in_line(runtime: LocalRuntime, number: int) -> None:
    """Until so many wait."""

    async def stand() -> bool:
        return bool((await runtime.ask(PROVIDER, "health"))["in_line"] == number)

    await eventually(stand, f"{number} stand in line")


def test_first_come_is_first_served_and_nobody_polls() -> None:
    client = Timed(2.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            asked = []
            for number in range(30):
                asked.append(ask(runtime, f"a{number}"))
                await asyncio.sleep(0.01)  # virtual time: one after another
            await all_of(asked)

        await World({"main": client}, {"main": ProviderLimits(concurrency=3)}).play(virtual, act)
        assert client.order == [f"a{number}" for number in range(30)]
        assert client.most == 3
        # Woken when a permit is free, not at the next look: each third one begins when the one three before it has ended.
        begins = [time for _, time in client.began]
        assert all(later - earlier == pytest.approx(2.0, abs=0.02) for earlier, later in zip(begins, begins[3:], strict=False))
        first, last = recorded(virtual, "agent/a0"), recorded(virtual, "agent/a29")
        assert len(last) - len(first) == 2, "who waits asks once more, however long it takes"
        assert len(payloads(virtual, "provider.call_admitted")) == 30
        assert len(payloads(virtual, "provider.call_queued")) == 27

    virtually(main)


def test_who_is_admitted_at_once_writes_what_it_always_wrote() -> None:
    async def main(virtual: Virtual) -> None:
        await World({"main": Timed()}, {"main": ProviderLimits(concurrency=1)}).play(virtual, lambda runtime: ask(runtime, "a"))
        assert events_of(virtual, PROVIDER) == ["provider.limits_set", "provider.call_admitted", "provider.call_answered"]
        asks = [event.type for event in recorded(virtual, "agent/a") if event.type.startswith("ask.")]
        assert asks == ["ask.started", "ask.completed"] * 2

    virtually(main)


def test_i8_the_line_keeps_its_order_over_a_snapshot() -> None:
    """A snapshot sorts the keys of the state: the order stands in the places."""
    client = Timed(1.0)
    names = [f"b{number:03}" for number in range(220)]

    async def main(virtual: Virtual) -> None:
        limits = {"main": ProviderLimits(concurrency=1)}

        async def before(runtime: LocalRuntime) -> None:
            for name in names:
                ask(runtime, name).add_done_callback(lambda done: done.cancelled() or done.exception())
            while not virtual.log.content(0).snapshots:
                await asyncio.sleep(1.0)
            assert (await runtime.ask(PROVIDER, "health"))["in_line"] > 20

        async def after(runtime: LocalRuntime) -> None:
            await all_of([ask(runtime, name) for name in names])

        await World({"main": client}, limits).play(virtual, before, killed=True)
        done = len(client.order)
        await World({"main": client}, limits).play(virtual, after)
        assert client.order[done] == client.order[done - 1], "the one that was being answered is answered anew"
        assert client.order[:done] + client.order[done + 1 :] == names

    virtually(main)


def test_s22_who_is_cancelled_in_line_leaves_it_at_once() -> None:
    client = Timed(10.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            asked = [ask(runtime, name) for name in ("a", "b", "c")]
            await in_line(runtime, 2)
            assert await runtime.cancel("agent/b", "b") == "cancelled"
            await in_line(runtime, 1)
            assert (await refusal(asked.pop(1))).number == 499
            await all_of(asked)
            assert client.order == ["a", "c"]
            assert client.began[1][1] - client.began[0][1] == pytest.approx(10.0, abs=0.05)

        await World({"main": client}, {"main": ProviderLimits(concurrency=1)}).play(virtual, act)
        assert [left["reason"] for left in payloads(virtual, "provider.callers_left")] == ["given_up"]

    virtually(main)


def test_s22_who_is_cancelled_while_it_is_answered_gives_its_permit_to_the_next() -> None:
    client = Timed(100.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            asked = [ask(runtime, name) for name in ("a", "b")]
            await in_line(runtime, 1)
            await asyncio.sleep(5)
            cancelled_at = asyncio.get_running_loop().time()
            assert await runtime.cancel("agent/a", "a") == "cancelled"
            assert (await refusal(asked[0])).number == 499
            await asked[1]
            assert client.began[1][1] - cancelled_at < 0.05

        await World({"main": client}, {"main": ProviderLimits(concurrency=1)}).play(virtual, act)

    virtually(main)


def test_s10_a_deadline_ends_the_waiting_in_line_and_nobody_is_let_through_behind_it() -> None:
    client = Timed(20.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            clock = asyncio.get_running_loop().time
            asked = [ask(runtime, "a")]
            await asyncio.sleep(0.1)
            began = clock()
            short = ask(runtime, "b", deadline_s=5.0)
            await asyncio.sleep(0.1)
            asked.append(ask(runtime, "c"))
            error = await refusal(short)
            assert isinstance(error, Unavailable)
            assert error.fields["reason"] == "busy"
            assert clock() - began == pytest.approx(5.0, abs=0.1)
            await in_line(runtime, 1)
            await all_of(asked)
            assert client.order == ["a", "c"]
            assert client.began[1][1] - client.began[0][1] == pytest.approx(20.0, abs=0.05)

        await World({"main": client}, {"main": ProviderLimits(concurrency=1)}).play(virtual, act)

    virtually(main)


def test_a_caller_that_never_comes_back_loses_its_permit_by_a_timer() -> None:
    """Nobody asks the provider anything meanwhile: the timer alone lets the next one through."""
    client = Timed(1.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            clock = asyncio.get_running_loop().time
            began = clock()
            said = await runtime.ask(PROVIDER, "admit", agent="gone", run="r", reserve=0, deadline_s=10.0, permit="p", patience_s=10.0)
            assert said["type"] == "admitted"
            await ask(runtime, "a")
            assert client.began[0][1] - began == pytest.approx(10.0 + LEASE_GRACE_S, abs=0.1)

        await World({"main": client}, {"main": ProviderLimits(concurrency=1)}).play(virtual, act)
        assert payloads(virtual, "provider.permits_lost") == [{"permits": ["p"]}]

    virtually(main)


def test_s10_who_died_in_line_gets_no_permit_behind_its_deadline() -> None:
    client = Timed(20.0)

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            asked = [ask(runtime, "a")]
            await asyncio.sleep(0.1)
            said = await runtime.ask(PROVIDER, "admit", agent="gone", run="r", reserve=0, deadline_s=9.0, permit="p", patience_s=9.0)
            assert said["type"] == "queued"
            asked.append(ask(runtime, "b"))
            await all_of(asked)
            assert client.began[1][1] - client.began[0][1] == pytest.approx(20.0, abs=0.05)

        await World({"main": client}, {"main": ProviderLimits(concurrency=1)}).play(virtual, act)
        assert payloads(virtual, "provider.callers_left") == [{"permits": ["p"], "reason": "deadline"}]

    virtually(main)


def test_the_slowest_of_hundreds_waits_for_those_before_it_and_no_longer() -> None:
    """Ten at a time at a provider that takes four: while everybody polled, one in a hundred waited a minute, and some for ever."""
    took: list[float] = []
    calls, at_once, concurrency = 200, 10, 4
    chance = random.Random(5)

    class Slow(Timed):
        async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
            self.seconds = chance.uniform(0.2, 2.0)
            return await super().call(request, key, on_text)

    async def act(runtime: LocalRuntime) -> None:
        async def lane(numbers: range) -> None:
            for number in numbers:
                began = asyncio.get_running_loop().time()
                await ask(runtime, f"a{number}", deadline_s=100.0)
                took.append(asyncio.get_running_loop().time() - began)

        async with asyncio.TaskGroup() as group:
            for first in range(at_once):
                group.create_task(lane(range(first, calls, at_once)))

    World({"main": Slow()}, {"main": ProviderLimits(concurrency=concurrency, timeout_s=30.0)}).run(act)
    took.sort()
    mean, p99 = sum(took) / calls, took[calls * 99 // 100]
    print(f"mean {mean:.2f} s, p99 {p99:.2f} s, longest {took[-1]:.2f} s")
    # Ten share four lanes of 1.1 s: 2.75 s each; the unluckiest meets the slowest answers everywhere, two rounds and its own.
    assert mean == pytest.approx(1.1 * at_once / concurrency, rel=0.1)
    assert p99 < 3 * 2.0


def test_one_of_the_line_makes_the_trial_and_the_others_follow_its_answer() -> None:
    client = ScriptedClient(*[down()] * 5, "yes")

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            clock = asyncio.get_running_loop().time
            await refusal(ask(runtime, "opens", deadline_s=20.0))
            opened = clock()
            client.gate = asyncio.Event()
            asked = [ask(runtime, f"a{number}") for number in range(5)]
            await in_line(runtime, 5)
            await asyncio.sleep(62)
            assert (await runtime.ask(PROVIDER, "health"))["breaker"] == "half_open"
            assert len(client.ledger) == 6, "one trial, whoever waits"
            client.gate.set()
            assert await all_of(asked) == ["yes"] * 5
            assert clock() - opened < 62.5

        await World({"main": client}, {"main": ProviderLimits(attempts=5)}).play(virtual, act)
        tried = payloads(virtual, "provider.breaker_tried")
        assert len(tried) == 1
        first = min(payloads(virtual, "provider.call_queued"), key=lambda queued: queued["caller"]["place"])
        assert tried[0]["permit"] == first["permit"]

    virtually(main)


def test_a_trial_that_fails_leaves_the_line_as_it_is() -> None:
    client = ScriptedClient(*[down()] * 6, "yes")

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            await refusal(ask(runtime, "opens", deadline_s=20.0))
            asked = [ask(runtime, f"a{number}") for number in range(3)]
            assert await all_of(asked) == ["yes"] * 3

        await World({"main": client}, {"main": ProviderLimits(attempts=5)}).play(virtual, act)
        assert [kind.rpartition("_")[2] for kind in events_of(virtual, PROVIDER) if "breaker" in kind] == [
            "opened", "tried", "opened", "tried", "closed"
        ]  # fmt: skip

    virtually(main)


def test_who_has_others_to_ask_leaves_the_line_when_the_breaker_opens() -> None:
    main_client, spare = ScriptedClient(down()), ScriptedClient("from the other")
    main_client.gate = asyncio.Event()

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            clock = asyncio.get_running_loop().time
            first = [ask(runtime, f"a{number}") for number in range(5)]
            await asyncio.sleep(1)
            waiting = [ask(runtime, f"b{number}") for number in range(9)]
            await in_line(runtime, 9)
            began = clock()
            assert main_client.gate is not None
            main_client.gate.set()
            # The first four failures let four through; the fifth opens it.
            assert await all_of(waiting[4:]) == ["from the other"] * 5
            assert clock() - began < 0.1
            await all_of([*first, *waiting])

        limits = {"main": ProviderLimits(concurrency=5), "spare": ProviderLimits()}
        await World({"main": main_client, "spare": spare}, limits).play(virtual, act)
        left = payloads(virtual, "provider.callers_left")
        assert [(len(each["permits"]), each["reason"]) for each in left] == [(5, "open")]

    virtually(main)


def test_who_waits_in_vain_for_the_rate_is_told_at_once() -> None:
    async def act(runtime: LocalRuntime) -> None:
        limits = msgspec.to_builtins(ProviderLimits(requests_per_minute=6.0))
        asked = [ask(runtime, f"a{number}") for number in range(4)]
        await in_line(runtime, 3)
        began = asyncio.get_running_loop().time()
        error = await refusal(ask(runtime, "late", deadline_s=25.0))
        assert error.fields["reason"] == "rate"
        assert asyncio.get_running_loop().time() - began < 0.1
        await runtime.ask(PROVIDER, "configure", limits={**limits, "requests_per_minute": 600.0})
        await all_of(asked)

    World({"main": ScriptedClient("x")}, {"main": ProviderLimits(requests_per_minute=6.0)}).run(act)


def test_s19_ten_wait_while_their_process_is_killed_and_go_on_in_their_order() -> None:
    client = Timed(5.0)

    async def main(virtual: Virtual) -> None:
        limits = {"main": ProviderLimits(concurrency=2)}
        names = [f"a{number}" for number in range(12)]

        async def before(runtime: LocalRuntime) -> None:
            for name in names:
                ask(runtime, name).add_done_callback(lambda done: done.cancelled() or done.exception())
                await asyncio.sleep(0.01)  # virtual time: one after another
            await in_line(runtime, 10)

        async def after(runtime: LocalRuntime) -> None:
            assert await all_of([ask(runtime, name) for name in names]) == ["yes"] * 12

        await World({"main": client}, limits).play(virtual, before, killed=True)
        await World({"main": client}, limits).play(virtual, after)
        # The two that were being answered are answered anew, under the permits they have; the others follow as they came.
        assert sorted(client.order[2:4]) == names[:2]
        assert client.order[4:] == names[2:]
        assert client.most == 2
        assert len(payloads(virtual, "provider.call_queued")) == 10
        _check_permits(virtual, 2)

    virtually(main)


def _check_permits(virtual: Virtual, concurrency: int) -> None:
    """Of the log: none given twice, none more than there are, each of them ended once."""
    given: Counter[str] = Counter()
    held: set[str] = set()
    for event in recorded(virtual, PROVIDER):
        payload = msgspec.json.decode(event.payload)
        if event.type == "provider.call_admitted":
            given[payload["permit"]] += 1
            held.add(payload["permit"])
            assert len(held) <= concurrency
        elif event.type in ("provider.call_answered", "provider.call_failed"):
            held.remove(payload["permit"])
        elif event.type in ("provider.callers_left", "provider.permits_lost"):
            held -= set(payload["permits"])
    assert set(given.values()) == {1}
    assert not held


@pytest.mark.parametrize("seed", range(6))
def test_no_permit_is_lost_or_given_twice_however_often_the_process_is_killed(seed: int) -> None:
    """Kills at random while callers come, are cancelled and run out of time."""
    chance = random.Random(seed)
    concurrency, callers = 3, 40

    class Random(Timed):
        async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
            self.seconds = chance.uniform(0.2, 4.0)
            ended = await super().call(request, key, on_text)
            return down() if chance.random() < 0.1 else ended

    client = Random()

    async def main(virtual: Virtual) -> None:
        limits = {"main": ProviderLimits(concurrency=concurrency, timeout_s=30.0)}
        outcomes: dict[str, str] = {}
        patience = {f"a{number}": chance.choice([8.0, 300.0, 300.0]) for number in range(callers)}

        async def follow(runtime: LocalRuntime, name: str) -> None:
            try:
                await ask(runtime, name, deadline_s=patience[name])
                outcomes[name] = "done"
            except ActorError as error:
                if error.number != 503 or "reason" in error.fields:  # else the process has ended: asked again by id
                    outcomes[name] = f"{error.number} {error.fields.get('reason', '')}"

        async def life(runtime: LocalRuntime) -> None:
            asked = [asyncio.ensure_future(follow(runtime, name)) for name in patience if name not in outcomes]
            for _ in range(chance.randrange(1, 4)):
                await asyncio.sleep(chance.uniform(0.0, 2.0))
                victim = chance.choice(list(patience))
                with suppress(ActorError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await runtime.cancel(f"agent/{victim}", victim)
            for each in asked:
                each.cancel()

        async def to_the_end(runtime: LocalRuntime) -> None:
            await all_of([asyncio.ensure_future(follow(runtime, name)) for name in patience if name not in outcomes])
            await in_line(runtime, 0)
            assert (await runtime.ask(PROVIDER, "health"))["under_way"] == 0

        for _ in range(10):
            await World({"main": client}, limits).play(virtual, life, killed=True)
            client.under_way.clear()
        await World({"main": client}, limits).play(virtual, to_the_end)
        assert len(outcomes) == callers
        assert set(outcomes.values()) <= {"done", "499 ", "503 busy", "503 deadline", "503 open", "503 http_503"}, outcomes
        assert "done" in outcomes.values()
        _check_permits(virtual, concurrency)

    virtually(main, seed=seed)


def test_what_was_recorded_before_there_was_a_line_still_folds() -> None:
    state = ProviderState()
    old: list[tuple[type[Any], str]] = [
        (LimitsSet, '{"limits":{"timeout_s":120.0,"attempts":4,"concurrency":2}}'),
        (CallAdmitted, '{"permit":"p","call":{"agent":"a","run":"r","expires_at":150.0,"reserved":7},"next_free":100.0}'),
        (
            CallAnswered,
            '{"permit":"p","agent":"a","run":"r","day":"2026-01-01","usage":{"input_tokens":1,"output_tokens":2,"cost_micro_usd":3}}',
        ),
    ]
    for kind, payload in old:
        msgspec.json.decode(payload, type=kind).apply(state)
    assert (state.permits, state.line, state.total.cost_micro_usd) == ({}, {}, 3)
