"""The memory actor: what it takes, what it refuses, what it records; without a server and without a view."""

import base64
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import pytest

from actors.errors import BadPayload, Rejected, Unavailable
from actors.memory import Memory, memory_actor
from actors.memory.facts import MeaningRenewed, MemoriesForgotten, MemoryStored, PatternLearned, SubjectNoted
from actors.sensitive import sensitive_values
from actors.testing import ActorTest, Result
from events.embedding import Embedding, embedding, unpacked


class Letters:
    """An embedder of two dimensions: how many letters, how many digits."""

    model = "letters-1"
    dimensions = 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> list[Embedding]:
        self.calls.append(list(texts))
        return [embedding(self.model, [sum(c.isalpha() for c in text), sum(c.isdigit() for c in text)]) for text in texts]


T = TypeVar("T")


def only(kind: type[T], done: Result) -> T:
    """The one event of a turn."""
    (event,) = done.events
    assert isinstance(event, kind)
    return event


def memory(answers: dict[str, Any] | None = None, *, in_loop: bool = True) -> ActorTest:
    return ActorTest(memory_actor(Letters(), in_loop=in_loop), "shop", answers=answers)


async def test_what_is_remembered_stands_in_the_event_with_its_meaning() -> None:
    """The vector and the model that made it: a view is rebuilt without any model."""
    done = await memory().when(
        "remember", content="ab1", type="semantic", importance=1, metadata={"why": [1, None]}, session="s1", agent="architect"
    )
    stored = only(MemoryStored, done)
    assert stored.memory == done.reply
    assert (stored.content, stored.type, stored.importance, stored.metadata) == ("ab1", "semantic", 1.0, {"why": [1, None]})
    assert (stored.session, stored.agent, stored.meaning.model) == ("s1", "architect", "letters-1")
    assert list(unpacked(base64.b64decode(stored.meaning.vector))) == pytest.approx([2 / 5**0.5, 1 / 5**0.5])
    # The same JSON as an Embedding: who reads the log needs no class of ours.
    assert msgspec.convert(msgspec.to_builtins(stored.meaning), Embedding).dimensions == 2
    assert done.journal == [], "a quick embedder must not make a turn long"


async def test_the_call_of_a_slow_model_is_a_recorded_step() -> None:
    """Asked once, also where its turn runs again after a crash (S15): ActorTest compares both."""
    done = await memory(in_loop=False).when("remember", content="ab1")
    assert done.journal == ["turn.started", "step.started", "step.completed"]
    stored = only(MemoryStored, done)
    assert stored.type == "episodic"
    assert stored.importance == 0.5


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"content": "x", "type": "dream"}, "type"),
        ({"content": "x", "importance": 1.01}, "importance"),
        ({"content": "x", "importance": -0.1}, "importance"),
        ({"content": "x", "importance": "high"}, "importance"),
        ({"content": "x", "metadata": ["no object"]}, "metadata"),
        ({"content": ""}, "content"),
        ({"content": None}, "content"),
        ({"content": "x" * 16_385}, "content"),
        ({"content": "x", "metadata": {"x": "y" * 2_048}}, "metadata"),
        ({"content": "x", "session": ""}, "session"),
        ({"content": "x", "workspace": "other"}, "workspace"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_by_field(arguments: dict[str, Any], field: str) -> None:
    """Types are enforced, importance lies between 0 and 1, sizes have bounds."""
    with pytest.raises(BadPayload) as caught:
        await memory().when("remember", **arguments)
    assert caught.value.fields["field"] == field


async def test_each_try_of_a_pattern_is_a_fact_of_its_own() -> None:
    """Nothing is overwritten: rates, and which solution is best, are folded from all of them."""
    test = memory()
    await test.when("learn", pattern="ImportError", solution="install it", success=True, agent="fixer")
    done = await test.when("learn", pattern="ImportError", solution="delete it", success=False, agent="fixer")
    assert done.events == [PatternLearned(agent="fixer", pattern="ImportError", solution="delete it", success=False)]
    assert test.state().learned == 2


async def test_an_actor_of_another_workspace_is_refused() -> None:
    """By id, whatever it asks; its own agents and people from outside are not."""
    test = memory()
    for sender, refused in (("reviewer/bank", True), ("memory/shop2", True), ("reviewer/shop", False), (None, False)):
        test.sender = sender
        calls: dict[str, dict[str, Any]] = {
            "remember": {"content": "x"},
            "learn": {"pattern": "p", "solution": "s", "success": True},
            "record_interaction": {"with_actor": "a", "type": "t", "content": "c"},
            "accessed": {"counts": {"m": 1}},
            "forget": {"memories": ["m"]},
            "standing": {"subject": "s"},
            "compare": {"subject": "s", "keys": []},
            "note": {"subject": "s", "round": "r", "digest": "d", "total": 0, "found": {}, "gone": []},
        }
        for method, arguments in calls.items():
            if method in ("standing", "compare") and refused:
                with pytest.raises(Rejected, match="workspace"):
                    await test.when(method, **arguments)
                continue
            done = await test.when(method, **arguments)
            assert done.refused is refused, (sender, method)


async def test_the_asking_agent_is_who_remembers() -> None:
    """By its type, unless it names somebody else."""
    test = memory()
    test.sender = "reviewer/shop"
    assert only(MemoryStored, await test.when("remember", content="x")).agent == "reviewer"
    assert only(MemoryStored, await test.when("remember", content="x", agent="architect")).agent == "architect"
    done = await test.when("learn", pattern="p", solution="s", success=True)
    assert only(PatternLearned, done).agent == "reviewer"


async def test_consolidation_forgets_what_the_view_names() -> None:
    """Page by page, by name, so that what was forgotten stands in the log; the age counts from the turn's own time."""
    asked: list[dict[str, Any]] = []

    def stale(**arguments: Any) -> dict[str, Any]:
        asked.append(arguments)
        return {"memories": ["a", "b"], "next": "b"} if arguments["after"] is None else {"memories": ["c"], "next": None}

    done = await memory({"memory.stale": stale}).when("consolidate", max_age_days=2)
    assert done.reply == {"forgotten": 3, "more": False}
    assert done.events == [
        MemoriesForgotten(memories=["a", "b"], reason="consolidated"),
        MemoriesForgotten(memories=["c"], reason="consolidated"),
    ]
    assert [each["after"] for each in asked] == [None, "b"]
    assert asked[0]["before_us"] == pytest.approx(1_700_000_000_000_000 - 2 * 86_400_000_000, abs=1_000)
    assert (asked[0]["importance_below"], asked[0]["accessed_below"]) == (0.3, 2)


async def test_nothing_to_forget_leaves_no_fact() -> None:
    done = await memory({"memory.stale": lambda **_: {"memories": [], "next": None}}).when("consolidate")
    assert done.events == []
    assert done.reply == {"forgotten": 0, "more": False}


async def test_vectors_of_another_model_are_renewed_in_pages() -> None:
    done = await memory({"memory.other_models": lambda **_: {"memories": {"a": "x", "b": "1"}, "left": 5}}).when("renew_meanings", limit=2)
    assert done.reply == {"model": "letters-1", "renewed": 2, "left": 3}
    renewed = only(MeaningRenewed, done)
    assert {name: meaning.model for name, meaning in renewed.meanings.items()} == {"a": "letters-1", "b": "letters-1"}


def noted(**found: str) -> dict[str, Any]:
    return {key: {"text": text, "importance": 0.3} for key, text in found.items()}


async def test_a_round_is_compared_with_the_one_before() -> None:
    """What is new, what is gone, and since when the rest has been known."""
    test = memory()
    assert (await test.when("standing", subject="findings")).reply is None
    first = await test.when("compare", subject="findings", keys=["b", "a", "b"])
    assert first.reply == {"found": ["b", "a"], "gone": {}}
    await test.when("note", subject="findings", round="r1", digest="d1", total=2, found=noted(a="one", b="two"), gone=[])
    second = await test.when("compare", subject="findings", keys=["c", "b"])
    assert second.reply == {"found": ["c"], "gone": {"a": {"text": "one", "importance": 0.3, "since": "r1"}}}
    done = await test.when("note", subject="findings", round="r2", digest="d2", total=2, found=noted(c="three"), gone=["a"])
    fact = only(SubjectNoted, done)
    assert fact.found["c"].meaning is not None
    standing = (await test.when("standing", subject="findings")).reply
    assert (standing["round"], standing["digest"], standing["total"], standing["known"]) == ("r2", "d2", 2, 2)
    third = await test.when("compare", subject="findings", keys=[])
    assert {key: item["since"] for key, item in third.reply["gone"].items()} == {"b": "r1", "c": "r2"}
    assert (await test.when("compare", subject="others", keys=["a"])).reply == {"found": ["a"], "gone": {}}


async def test_a_subject_has_room_for_so_many_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.memory.actor.KNOWN_MAX", 2)
    test = memory()
    await test.when("note", subject="s", round="r1", digest="d", total=2, found=noted(a="1", b="2"), gone=[])
    done = await test.when("note", subject="s", round="r2", digest="d", total=3, found=noted(c="3"), gone=[])
    assert done.refused
    # What goes makes room.
    done = await test.when("note", subject="s", round="r2", digest="d", total=2, found=noted(c="3"), gone=["a"])
    assert not done.refused


async def test_a_note_is_split_where_vectors_are_large() -> None:
    """Each event stays below the largest; only the last says that the round is complete, the first what is gone."""

    class Large(Letters):
        model = "large-1"
        dimensions = 8_192

        async def embed(self, texts: Sequence[str]) -> list[Embedding]:
            return [embedding(self.model, [1.0] * self.dimensions) for _ in texts]

    test = ActorTest(memory_actor(Large(), in_loop=True), "shop")
    found = noted(**{f"k{n}": "x" for n in range(50)})
    done = await test.when("note", subject="s", round="r", digest="d", total=50, found=found, gone=["old"])
    assert len(done.events) > 1
    facts = [event for event in done.events if isinstance(event, SubjectNoted)]
    assert [fact.digest for fact in facts] == [*[""] * (len(facts) - 1), "d"]
    assert [fact.gone for fact in facts] == [["old"], *[[]] * (len(facts) - 1)]
    assert [key for fact in facts for key in fact.found] == list(found)


async def test_a_fact_that_is_not_searchable_has_no_vector() -> None:
    done = await memory().when("note", subject="s", round="r", digest="d", total=1, found=noted(a="1"), gone=[], searchable=False)
    assert only(SubjectNoted, done).found["a"].meaning is None


async def test_a_vector_is_as_sensitive_as_its_text() -> None:
    """Both leave in no bug report: a vector can be turned back into words."""
    done = await memory().when("remember", content="my secret plan")
    stored = only(MemoryStored, done)
    hidden = list(sensitive_values(MemoryStored, msgspec.to_builtins(stored)))
    assert "my secret plan" in hidden
    assert stored.meaning.vector in hidden
    method = memory().kind.method("remember")
    assert list(sensitive_values(method.arguments, {"content": "my secret plan"})) == ["my secret plan"]


async def test_without_an_embedder_it_says_what_is_missing() -> None:
    with pytest.raises(Unavailable, match="memory_actor"):
        await ActorTest(Memory, "shop").when("remember", content="x")
