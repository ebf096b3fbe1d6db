"""The memory of a running deployment, whatever its app: remembered by an actor, found by a view, looked at from the command line."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from actors.errors import BadPayload
from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def bank(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("memory") / "data") as deployment:
        deployment.wait_balanced()
        yield deployment


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still not: {what}") from None


async def recalled(cue: Client, workspace: str, query: str, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await cue.view("memory").recall(workspace=workspace, query=query, **wanted)
    return found


async def test_what_is_remembered_is_found_and_counted(bank: Deployment) -> None:
    """Access counts rise by events of their own, in lots: the recalls leave nothing in the log themselves."""
    async with connect(bank.nats_url) as cue:
        shop = cue.ref("memory", "shop")
        name = await shop.ask("remember", content="the payment service retries three times", type="semantic", importance=0.8)
        await until(lambda: recalled(cue, "shop", "payment retries"), "the memory is found")
        for _ in range(5):
            assert [each["memory"] for each in await recalled(cue, "shop", "payment retries")] == [name]

        async def accesses() -> bool:
            (memory,) = await cue.view("memory").memories(workspace="shop")
            return int(memory["accesses"]) >= 6

        await until(accesses, "all recalls are counted")
        assert await recalled(cue, "elsewhere", "payment retries") == []
        with pytest.raises(BadPayload):
            await shop.ask("remember", content="x", type="dream")


async def test_ten_agents_remember_and_recall_at_once(bank: Deployment) -> None:
    """A hundred writes and a hundred recalls at the same time: no lost write, nothing is locked, nobody waits long."""
    async with connect(bank.nats_url) as cue:

        async def agent(number: int) -> list[str]:
            names = []
            for turn in range(10):
                memory, _ = await both(
                    cue.ref("memory", "crowd").ask("remember", content=f"agent {number} did thing {turn}", agent=f"a{number}"),
                    recalled(cue, "crowd", f"what did agent {number} do"),
                )
                names.append(memory)
            return names

        async with asyncio.TaskGroup() as group:
            agents = [group.create_task(agent(number)) for number in range(10)]
        names = {name for each in agents for name in each.result()}
        assert len(names) == 100

        async def all_there() -> bool:
            found = await cue.view("memory").memories(workspace="crowd", limit=1_000)
            return {each["memory"] for each in found} == names

        await until(all_there, "every write is in the view")
        status = await cue.view("memory")._target("_status", {})
        assert status["parked"] == []
        assert status["failure"] is None


async def both(first: Any, second: Any) -> tuple[Any, Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in (first, second)]
    return tasks[0].result(), tasks[1].result()


async def test_consolidation_takes_what_is_dull_and_leaves_the_rest(bank: Deployment) -> None:
    """It sees its own writes: the view has caught up before it names anything."""
    async with connect(bank.nats_url) as cue:
        attic = cue.ref("memory", "attic")
        for number in range(20):
            await attic.ask("remember", content=f"dull thing {number}", importance=0.1)
        kept = await attic.ask("remember", content="a bright thing", importance=0.9)
        assert await attic.ask("consolidate", max_age_days=0) == {"forgotten": 20, "more": False}

        async def left() -> bool:
            return [each["memory"] for each in await cue.view("memory").memories(workspace="attic")] == [kept]

        await until(left, "the dull ones are gone")
        stats = await cue.view("memory").stats(workspace="attic")
        assert (stats["memories"], stats["forgotten"], sum(stats["vectors"].values())) == (1, 20, 1)


def test_what_the_processes_computed_once_is_shown(bank: Deployment) -> None:
    """Workers and projector together; by `cache stats`, and in a line by `status` and `doctor`."""
    asyncio.run(_ask_a_lot(bank))
    done = run_cuebook("cache", "stats", "--data", str(bank.data), "--json")
    shown = msgspec.json.decode(done.stdout)
    assert shown["processes"] == 3
    memos = {each["memo"]: each for each in shown["memos"]}
    words = memos["features of words"]
    assert words["processes"] == 3
    assert words["hits"] > 0
    assert words["rate"] == round(words["hits"] / (words["hits"] + words["misses"]), 4)
    status = msgspec.json.decode(run_cuebook("status", "--data", str(bank.data), "--json").stdout)
    assert re.search(r"memos \d+% of [\d,]+ calls", status["cache"])
    lines = [msgspec.json.decode(line) for line in run_cuebook("doctor", "--data", str(bank.data), "--json").stdout.splitlines()]
    (found,) = (each["found"] for each in lines if each["check"] == "memos")
    assert found.endswith("in 3 processes")


async def _ask_a_lot(bank: Deployment) -> None:
    async with connect(bank.nats_url) as cue:
        for _ in range(3):
            await cue.ref("memory", "words").ask("remember", content="the same words again and again")


def test_the_command_line_works_with_and_without_a_deployment(bank: Deployment) -> None:
    """The same answers, from the service and from the files."""

    def cuebook(*words: str) -> list[Any]:
        done = run_cuebook("memory", *words, "--data", str(bank.data), "--json")
        assert done.returncode == 0, done.stderr
        return [msgspec.json.decode(line) for line in done.stdout.splitlines()]

    (made,) = cuebook("remember", "we", "deploy", "on", "fridays", "-w", "desk", "--importance", "0.8")
    asyncio.run(_until_found(bank))
    live = cuebook("search", "deploy", "day", "-w", "desk", "--explain")
    assert [each["memory"] for each in live] == [made["memory"]]
    assert set(live[0]["parts"]) == {"meaning", "words", "recency", "importance"}
    bank.stop()
    try:
        offline = cuebook("search", "deploy", "day", "-w", "desk")
        assert [(each["memory"], each["score"]) for each in offline] == [(each["memory"], each["score"]) for each in live]
        (stats,) = cuebook("stats", "-w", "desk")
        assert stats["memories"] == 1
        missing = run_cuebook("memory", "stats", "-w", "nobody", "--data", str(bank.data))
        assert missing.returncode == 3
    finally:
        bank.start()


async def _until_found(bank: Deployment) -> None:
    async with connect(bank.nats_url) as cue:
        await until(lambda: recalled(cue, "desk", "deploy"), "the memory is found")
