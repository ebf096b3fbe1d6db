"""Budgets of calls, agents and runs on virtual time: said at 80 % and 100 %, kept by stopping what would exceed them, across restarts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from actors import Actor, State, command
from actors.errors import ActorError, Rejected
from actors.models import budget, records
from actors.models.limits import ProviderLimits
from actors.models.provider import Provider
from actors.models.provider_state import ProviderState
from actors.models.records import Usage
from actors.models.registry import Configured, ProviderRegistry
from actors.registry import ActorType
from runtime import App
from runtime.local import LocalRuntime
from runtime.tasks import Tasks
from tests.support.virtual import Virtual, virtually
from tests.unit.models.support import Agent, ScriptedClient, answer

CENT = 10_000
"""In millionths of a dollar; what each answer costs here."""
Act = Callable[[LocalRuntime], Awaitable[Any]]


def priced(**budgets: float) -> ProviderLimits:
    """A million tokens of answers cost a dollar."""
    return msgspec.convert({"usd_per_million_output": 1.0, **budgets}, ProviderLimits)


class Second(Agent, name="second"):
    """Another agent."""


class Nothing(State):
    pass


class Boss(Actor[Nothing], name="boss"):
    """One run: asks agents, one after another, with a wait for somebody's word in between."""

    @command
    async def run(self, before: int, behind: int) -> list[str]:
        said = [await self._ask(number) for number in range(before)]
        if behind:
            await self.wait_for("go")
        return said + [await self._ask(number) for number in range(before, before + behind)]

    async def _ask(self, number: int) -> str:
        agent = "agent" if number % 2 else "second"
        try:
            return str(await self.ref(agent, "a").ask(text=f"{number}", max_tokens=10))
        except Rejected as error:
            return str(error.fields["reason"])


APP = App(actors=[Agent, Second, Boss, Provider])


def play(limits: ProviderLimits, *parts: Act, client: ScriptedClient | None = None) -> tuple[Any, list[dict[str, Any]]]:
    """Each part by a runtime of its own, with a restart in between; returns what the last one returned, and what was alerted."""

    async def main(virtual: Virtual) -> tuple[Any, list[dict[str, Any]]]:
        main_client = client or ScriptedClient(answer("yes", tokens=(0, CENT)))
        registry = ProviderRegistry({"main": Configured(client=main_client, limits=limits)}, Tasks().spawn)
        found = None
        for part in parts:
            async with virtual.runtime(APP, registry) as runtime:
                found = await part(runtime)
            await asyncio.sleep(1)
        events = [event for event in virtual.log.content(0).events if event.type == "provider.spending_alerted"]
        return found, [msgspec.json.decode(event.payload)["alert"] for event in events]

    return virtually(main)


async def asked(runtime: LocalRuntime, agent: str, text: str, **more: Any) -> str:
    try:
        return str(await runtime.ask(f"{agent}/a", "ask", text=text, **{"max_tokens": 10, **more}))
    except ActorError as error:
        return str(error.fields["reason"])


def asks(agent: str, *texts: str) -> Act:
    async def part(runtime: LocalRuntime) -> list[str]:
        return [await asked(runtime, agent, text) for text in texts]

    return part


def test_an_agent_stops_at_its_own_budget_across_restarts_and_the_others_go_on() -> None:
    async def then(runtime: LocalRuntime) -> Any:
        first = [await asked(runtime, "agent", "6"), await asked(runtime, "second", "6")]
        health = await runtime.ask("provider/main", "health")
        await asyncio.sleep(24 * 3_600)
        return first, health["agents_today"]["agent"]["cost_micro_usd"], await asked(runtime, "agent", "the day after")

    limits = priced(agent_budget_usd=0.05)
    (first, spent, day_after), alerts = play(limits, asks("agent", "1", "2", "3"), asks("agent", "4"), asks("agent", "5"), then)
    assert first == ["agent_budget", "yes"]
    assert spent == 5 * CENT
    assert day_after == "yes"
    assert [(each["scope"], each["name"], each["percent"], each["spent"]) for each in alerts] == [
        ("agent", "agent", 80, 4 * CENT), ("agent", "agent", 100, 5 * CENT),
    ]  # fmt: skip


def test_a_run_of_several_agents_stops_at_its_budget_behind_a_restart_and_says_so_before() -> None:
    async def begins(runtime: LocalRuntime) -> None:
        with pytest.raises(ActorError):  # it waits
            await runtime.ask("boss/b", "run", command_id="the-run", before=3, behind=4, timeout_s=None)

    async def goes_on(runtime: LocalRuntime) -> Any:
        (wait_id,) = [row.wait_id for shard in runtime.shards for row in await shard.store.waits()]
        await runtime.answer("boss/b", wait_id, True)
        said = await runtime.ask("boss/b", "run", command_id="the-run", before=3, behind=4)
        other = await runtime.ask("boss/b", "run", command_id="another-run", before=1, behind=0)
        return said, other, (await runtime.ask("provider/main", "run", run="the-run"))["cost_micro_usd"]

    limits = priced(run_budget_usd=0.05)
    (said, other, spent), alerts = play(limits, begins, goes_on)
    assert said == ["yes"] * 5 + ["run_budget"] * 2
    assert other == ["yes"], "another run has a budget of its own"
    assert spent == 5 * CENT
    assert [(each["scope"], each["name"], each["percent"], each["spent"], each["limit"]) for each in alerts] == [
        ("run", "the-run", 80, 4 * CENT, 5 * CENT), ("run", "the-run", 100, 5 * CENT, 5 * CENT),
    ]  # fmt: skip


def test_a_call_that_may_cost_too_much_is_not_asked_and_one_that_came_near_is_told() -> None:
    client = ScriptedClient(answer("yes", tokens=(0, CENT)))

    async def part(runtime: LocalRuntime) -> list[str]:
        return [await asked(runtime, "agent", "?", max_tokens=13_000), await asked(runtime, "agent", "?", max_tokens=12_000)]

    said, alerts = play(priced(call_budget_usd=0.0125), part, client=client)
    assert said == ["call_budget", "yes"]
    assert len(client.ledger) == 1
    assert [(each["scope"], each["percent"], each["spent"]) for each in alerts] == [("call", 80, CENT)]


@pytest.mark.parametrize("whose", ["agent_budget_usd", "run_budget_usd"])
def test_calls_at_once_cannot_overdraw_a_budget_together(whose: str) -> None:
    client = ScriptedClient(answer("yes", tokens=(0, CENT)))

    class Many(Actor[Nothing], name="many"):
        @command
        async def run(self) -> list[str]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(number)) for number in range(12)]
            return [task.result() for task in tasks]

        async def _ask(self, number: int) -> str:
            message = records.Message(role="user", content=str(number))
            try:
                return (await self.model("main").chat([message], max_tokens=CENT)).text
            except Rejected as error:
                return str(error.fields["reason"])

    async def main(virtual: Virtual) -> list[str]:
        limits = priced(**{whose: 0.05})
        client.gate = asyncio.Event()
        registry = ProviderRegistry({"main": Configured(client=client, limits=limits)}, Tasks().spawn)
        async with virtual.runtime(App(actors=[Many, Provider]), registry) as runtime:
            run = asyncio.ensure_future(runtime.ask("many/m", "run"))
            await asyncio.sleep(1)
            client.gate.set()
            said: list[str] = await run
            return said

    said = virtually(main)
    assert (said.count("yes"), said.count(whose.removesuffix("_usd"))) == (5, 7)


def test_another_budget_is_alerted_anew() -> None:
    limits = [priced(agent_budget_usd=0.05), priced(agent_budget_usd=0.1)]

    async def report(runtime: LocalRuntime, limits: ProviderLimits) -> None:
        await runtime.ask("provider/main", "configure", limits=msgspec.to_builtins(limits))
        usage = msgspec.to_builtins(Usage(cost_micro_usd=4 * CENT))
        await runtime.ask("provider/main", "report", permit="p", agent="agent", run="r", usage=usage)

    _, alerts = play(limits[0], lambda runtime: report(runtime, limits[0]), lambda runtime: report(runtime, limits[1]))
    assert [(each["percent"], each["spent"], each["limit"]) for each in alerts] == [(80, 4 * CENT, 5 * CENT), (80, 8 * CENT, 10 * CENT)]


def test_of_many_runs_those_that_called_last_are_remembered_whatever_order_their_names_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "RUNS_KEPT", 3)
    kind = ActorType(Provider)
    state = ProviderState()
    for number in range(20):
        for run in ("zz-long", f"short-{number:02}"):
            budget.spend(state, "agent", run, "2026-01-01", Usage(cost_micro_usd=1))
        state = kind.decode_state(kind.encode_state(state))  # as from a snapshot, which sorts names
    assert sorted(state.runs) == ["short-18", "short-19", "zz-long"]
    assert state.runs["zz-long"].cost_micro_usd == 20
    assert state.runs.keys() == state.runs_used.keys()


def test_limits_of_former_logs_are_read() -> None:
    entry = ActorType(Provider).events["provider.limits_set"]
    assert (entry.version, entry.chain.first) == (2, 1)
    former = entry.chain.upcast(msgspec.json.encode({"limits": {"timeout_s": 7.0, "run_budget_usd": 1.0}}), 1)
    assert entry.decoder.decode(former).limits == ProviderLimits(timeout_s=7.0, run_budget_usd=1.0)
