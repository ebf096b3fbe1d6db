"""S37: ``cache_ttl`` looks up before it runs, the hit is journaled as the result, and what is not known to be the same is not taken."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from actors.errors import BadPayload, StepFailed
from actors.journal import open_turn
from actors.testing import ActorTest, MemoryDriver
from events.caching import NAMESPACES, Address, Cached
from events.ids import StreamId
from projections.cache.step_cache import TieredStepCache
from tests.support.logs import ManualClock
from tests.support.sage import CALLS, HOLD, Sage, SecretSage, local_cache, marks


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    CALLS.clear()
    HOLD.clear()
    yield
    HOLD.clear()


def sage(cache: TieredStepCache | None, id: str = "a") -> ActorTest:
    return ActorTest(Sage, id, step_cache=cache)


async def answers(actor: ActorTest, *questions: Any, **arguments: Any) -> list[Any]:
    return [(await actor.when("ask", question=question, **arguments)).reply for question in questions]


async def test_s37_the_second_time_the_result_is_taken_from_the_cache_and_marked() -> None:
    actor = sage(local_cache(ManualClock()))
    assert await answers(actor, "why", "why") == ["answer to why"] * 2
    assert CALLS == ["why"]
    first, second = marks(actor._events)
    assert first.cache is not None
    assert second.cache is not None
    assert first.result == second.result == "answer to why"
    assert "hit" not in first.cache
    assert second.cache == {**first.cache, "hit": 3}, "the version of the event that it was first recorded as"
    ended = [event for event in actor._events if event.type == "step.completed"]
    assert ended[0].version == 3
    assert ended[1].summary == "step think taken from the cache"


async def test_s37_without_a_cache_every_lookup_is_a_miss() -> None:
    actor = sage(None)
    assert await answers(actor, "why", "why") == ["answer to why"] * 2
    assert CALLS == ["why", "why"]
    assert [mark.cache and "hit" in mark.cache for mark in marks(actor._events)] == [False, False]


async def test_s37_a_step_without_cache_ttl_neither_asks_nor_offers() -> None:
    class Refusing:
        async def get(self, address: Address, stream: StreamId) -> Cached | None:
            raise AssertionError("asked")

        def keep(self, address: Address, cached: Cached) -> None:
            raise AssertionError("offered")

        def give_up(self, address: Address) -> None:
            raise AssertionError("given up")

        def forget(self, stream: StreamId) -> None:
            raise AssertionError("forgotten")

    actor = ActorTest(Sage, step_cache=Refusing())
    await answers(actor, "why", namespace=None)
    assert marks(actor._events)[0].cache is None


async def test_s37_a_rerun_never_asks_the_cache() -> None:
    """Also where the cache has by then forgotten the result, or has another one."""
    clock = ManualClock()
    cache = local_cache(clock)
    actor = sage(cache)
    await answers(actor, "why")
    CALLS.clear()
    result = await actor.when("ask", question="why")  # itself runs the turn again from its journal, and compares
    assert result.reply == "answer to why"
    journal = [event for event in actor._events if event.command_id == "test-2" and event.type != "sage.answered"]
    opened = open_turn(journal, "test-2")
    assert opened is not None
    entry = next(iter(opened.entries.values()))
    assert entry.result is not None
    assert msgspec.json.decode(entry.result) == "answer to why"
    assert CALLS == []


async def test_s37_empty_results_are_hits() -> None:
    """The predecessor never took None, 0, False or an empty text for one (facts/predecessor.md 2.2)."""
    cache = local_cache(ManualClock())
    actor = sage(cache)
    assert await answers(actor, "nothing", "nothing") == [None, None]
    assert CALLS == ["nothing"]
    counts = cache.statistics().namespaces["response"]
    assert (counts.recent, counts.missed, counts.lookups) == (1, 1, 2)


@pytest.mark.parametrize("namespace", list(NAMESPACES))
async def test_a_namespace_alone_says_how_long(namespace: str) -> None:
    actor = sage(local_cache(ManualClock()))
    await answers(actor, "why", namespace=namespace)
    mark = marks(actor._events)[0].cache
    assert mark is not None
    assert (mark["namespace"], mark["ttl_us"]) == (namespace, NAMESPACES[namespace] * 1_000_000)


async def test_a_result_is_not_served_after_its_time() -> None:
    clock = ManualClock()
    actor = sage(local_cache(clock))
    await answers(actor, "why", ttl=10)
    clock.advance(9)
    await answers(actor, "why", ttl=10)
    assert len(CALLS) == 1
    clock.advance(2)
    await answers(actor, "why", ttl=10)
    assert len(CALLS) == 2


async def test_another_actor_another_content_another_namespace_are_misses() -> None:
    """The workspace is the id of the actor: two never share."""
    cache = local_cache(ManualClock())
    await answers(sage(cache, "a"), "why")
    await answers(sage(cache, "b"), "why")
    assert len(CALLS) == 2
    await answers(sage(cache, "a"), "how")
    await answers(sage(cache, "a"), "why", namespace="api")
    assert len(CALLS) == 4
    await answers(sage(cache, "a"), "why")
    assert len(CALLS) == 4


@pytest.mark.parametrize(("one", "other"), [([1], "[1]"), (1, "1"), (1, True), (0, False), ("", None), ({"a": 1}, [["a", 1]])])
async def test_arguments_that_are_not_equal_are_not_the_same(one: Any, other: Any) -> None:
    actor = sage(local_cache(ManualClock()))
    await answers(actor, one, other)
    assert len(CALLS) == 2


async def test_what_the_result_depends_on_can_be_named() -> None:
    actor = sage(local_cache(ManualClock()))
    await answers(actor, "a long text", content="digest")
    await answers(actor, "another text", content="digest")
    assert CALLS == ["a long text"]


async def test_the_arguments_that_a_partial_holds_count() -> None:
    actor = sage(local_cache(ManualClock()))
    for question in ("why", "how", "why"):
        assert (await actor.when("bound", question=question)).reply == f"answer to {question}"
    assert CALLS == ["why", "how"]


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("hidden", {}, "cache_key="),
        ("at_most_once", {}, "at most once"),
        ("ask", {"namespace": "else"}, "no namespace"),
        ("ask", {"ttl": 0}, "cache_ttl"),
        ("ask", {"ttl": 90_000}, "cache_ttl"),
        ("ask", {"namespace": None, "content": "x"}, "cache_key without"),
    ],
)
async def test_what_cannot_be_cached_like_this_is_refused(method: str, arguments: dict[str, Any], said: str) -> None:
    """A closure may depend on anything, and what happens at most once is no answer to give twice."""
    with pytest.raises(BadPayload, match=said):
        await sage(local_cache(ManualClock())).when(method, question="why", **arguments)
    assert CALLS == []


async def test_a_failure_is_not_cached_and_lets_the_next_one_try() -> None:
    cache = local_cache(ManualClock())
    for _ in range(2):
        with pytest.raises(StepFailed):
            await sage(cache).when("ask", question="fail")
    assert CALLS == ["fail", "fail"]


async def test_single_flight_who_asks_for_the_same_meanwhile_waits_for_it() -> None:
    HOLD["why"] = asyncio.Event()
    cache = local_cache(ManualClock())
    actor = sage(cache)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(actor.when("together", questions=["why"] * 5))
        while not CALLS:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert CALLS == ["why"]
        HOLD["why"].set()
    assert asked.result().reply == ["answer to why"] * 5
    counts = cache.statistics().namespaces["response"]
    assert (counts.missed, counts.recent, counts.waited) == (1, 4, 4)


async def test_single_flight_who_is_cancelled_leaves_the_work_to_the_next() -> None:
    HOLD["why"] = asyncio.Event()
    cache = local_cache(ManualClock())
    async with asyncio.TaskGroup() as group:
        first = group.create_task(sage(cache).when("ask", question="why"))
        while not CALLS:
            await asyncio.sleep(0)
        second = group.create_task(sage(cache).when("ask", question="why"))
        for _ in range(20):
            await asyncio.sleep(0)
        first.cancel()
        while len(CALLS) < 2:
            await asyncio.sleep(0)
        HOLD["why"].set()
    assert second.result().reply == "answer to why"


async def test_s29_what_a_sealed_actor_hears_is_never_cached() -> None:
    cache = local_cache(ManualClock())
    actor = ActorTest(SecretSage, "a", step_cache=cache)
    await answers(actor, "why", "why")
    assert CALLS == ["why", "why"]
    assert cache.statistics().entries == 0
    assert [mark.cache for mark in marks(actor._events)] == [None, None]


async def test_a_result_of_another_type_is_a_miss() -> None:
    """The code changed what it returns and kept its version: what is taken from the cache has to be what a step of today returns."""

    class Former:
        async def get(self, address: Address, stream: StreamId) -> Cached | None:
            return Cached(b'"seven"', stream, 1, 2**60)

        def keep(self, address: Address, cached: Cached) -> None: ...
        def give_up(self, address: Address) -> None: ...
        def forget(self, stream: StreamId) -> None: ...

    actor = ActorTest(Sage, step_cache=Former())
    assert (await actor.when("tally", question="why")).reply == 1
    assert marks(actor._events)[0].cache is not None
    assert "hit" not in (marks(actor._events)[0].cache or {})


async def test_other_code_does_not_take_what_this_code_had(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = local_cache(ManualClock())
    await answers(sage(cache), "why")
    monkeypatch.setattr(MemoryDriver, "code_version", "2")
    await answers(sage(cache), "why")
    assert len(CALLS) == 2


async def test_a_forgotten_stream_is_forgotten() -> None:
    cache = local_cache(ManualClock())
    await answers(sage(cache), "why")
    cache.forget(StreamId("sage/b"))
    await answers(sage(cache), "why")
    assert len(CALLS) == 1
    cache.forget(StreamId("sage/a"))
    assert cache.statistics().entries == 0
    await answers(sage(cache), "why")
    assert len(CALLS) == 2
