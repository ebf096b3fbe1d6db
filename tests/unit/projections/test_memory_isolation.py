"""Two workspaces never see each other's memories, patterns or vectors, by any path through the view."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.ids import is_token
from projections import operations
from projections.embedding.hashing import HashEmbedder
from projections.errors import BadArgumentsError
from projections.memory.projection import MemoryProjection
from projections.operations import operations_of, parse_request
from runtime import wire
from tests.support.memory_view import Facts, MemoryView, memory_view

SECRET = "xyzzy"
QUESTIONS: dict[str, dict[str, Any]] = {
    "recall": {"query": f"{SECRET} launch code payment", "k": 50},
    "memories": {"limit": 1_000},
    "solution": {"pattern": "shared pattern", "min_success_rate": 0.0},
    "patterns": {"limit": 1_000},
    "interactions": {"limit": 1_000},
    "stats": {},
    "stale": {"before_us": 2**62, "importance_below": 1.0, "accessed_below": 1_000},
    "other_models": {"model": "none", "limit": 500},
}
HOSTILE = (
    "bank' OR '1'='1", "bank\" OR 1=1 --", "shop' UNION SELECT * FROM memories --", "%", "_", "*", "bank*", "shop OR bank", "../bank",
    "bank\x00", "shop/bank", "memory/bank", "", " bank", "bank ", "BANK", "b\u0430nk", "words_1", "NULL", "a" * 65, "shop\nbank",
)  # fmt: skip
FTS_LANGUAGE = (
    "bank", '"bank"', "words:xyzzy", "xyzzy*", "^xyzzy", "xyzzy NEAR/5 code", "NOT payment",
    "payment NOT payment OR xyzzy", "{words} : xyzzy",
    '") OR (xyzzy', "' UNION SELECT content FROM memories --", "payment\x00xyzzy", "(((((",
    "AND", "OR", "NEAR(", "-words:payment", "rowid:1",
)  # fmt: skip


def fill(view: MemoryView, facts: Facts, workspace: str, secret: str, count: int = 20) -> None:
    """The same names, sessions, agents and patterns in every workspace; only what is said differs."""
    view.apply(*[
        facts.stored(
            workspace, f"the {secret} payment code {n}", name=f"m{n}", session="s", agent="fixer", importance=0.1, metadata={"of": secret},
        )
        for n in range(count)
    ])  # fmt: skip
    view.apply(facts.learned(workspace, "fixer", "shared pattern", f"{secret} solution", True))
    dealt = {"agent": "a", "with_actor": "b", "type": "t", "content": secret, "result": secret, "session": "s"}
    view.apply(facts.event(workspace, "memory.interaction_recorded", dealt))


async def everything(view: MemoryView, workspace: str, **changed: Any) -> str:
    answers = {name: await view.ask(name, workspace=workspace, **(arguments | changed)) for name, arguments in QUESTIONS.items()}
    return msgspec.json.encode(answers).decode()


def test_every_operation_names_its_workspace() -> None:
    """One that does not would be a way round; a new one has to be asked below as well."""
    found = operations_of(MemoryProjection(HashEmbedder()))
    assert set(found) == set(QUESTIONS)
    for operation in found.values():
        fields = {field.name: field.required for field in msgspec.structs.fields(operation.arguments)}
        assert fields.get("workspace") is True, operation.name


def test_an_actor_is_answered_about_its_own_workspace() -> None:
    """Whoever asks from inside a turn needs not name it, and cannot name another one."""
    recall = operations_of(MemoryProjection(HashEmbedder()))["recall"]
    assert parse_request(recall, b'{"_caller": "reviewer/shop", "query": "x"}').arguments["workspace"] == "shop"
    assert parse_request(recall, b'{"_caller": "reviewer/shop", "query": "x", "workspace": "shop"}').arguments["workspace"] == "shop"
    for body in (
        b'{"_caller": "reviewer/shop", "query": "x", "workspace": "bank"}',
        b'{"_caller": "reviewer/", "query": "x", "workspace": "bank"}',
        b'{"_caller": 5, "query": "x", "workspace": "bank"}',
        b'{"_caller": "reviewer", "query": "x"}',
        b'{"_caller": "reviewer/shop", "_caller": "reviewer/bank", "query": "x"}',
    ):
        with pytest.raises(BadArgumentsError):
            parse_request(recall, body)


def test_both_sides_call_the_members_of_ours_alike() -> None:
    """The worker adds them, the projector takes them out; neither may import the other."""
    assert (operations.AFTER, operations.CALLER) == (wire.VIEW_AFTER, wire.VIEW_CALLER)


async def test_no_answer_holds_anything_of_another_workspace(tmp_path: Path) -> None:
    facts = Facts()
    with memory_view(tmp_path) as view:
        fill(view, facts, "shop", "plain")
        fill(view, facts, "bank", SECRET)
        mine = await everything(view, "shop")
        assert "plain" in mine
        assert SECRET not in mine
        assert SECRET in await everything(view, "bank")
        assert SECRET not in await everything(view, "unknown")


async def test_what_another_workspace_stores_changes_no_score(tmp_path: Path) -> None:
    """Not through how rare a word is, nor through who is nearest, nor through what is newest: the answers are the same bytes."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        fill(view, facts, "shop", "plain")
        before = await everything(view, "shop")
        facts.day = 90.0
        fill(view, facts, "bank", "plain", count=200)
        assert await everything(view, "shop") == before


async def test_the_same_names_are_different_memories(tmp_path: Path) -> None:
    """What one workspace forgets, counts or renews is its own, whatever it is called."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        fill(view, facts, "shop", "plain")
        fill(view, facts, "bank", SECRET)
        before = await everything(view, "bank")
        renewed = {"model": "other-1", "vector": "AACAPw=="}
        view.apply(
            facts.event("shop", "memory.accessed", {"counts": {f"m{n}": 9 for n in range(20)}}),
            facts.event("shop", "memory.meaning_renewed", {"meanings": {"m1": renewed}}),
            facts.event("shop", "memory.forgotten", {"memories": [f"m{n}" for n in range(20)], "reason": "asked"}),
        )
        assert await everything(view, "bank") == before
        assert (await view.ask("stats", workspace="shop"))["memories"] == 0


@pytest.mark.parametrize("workspace", HOSTILE)
async def test_a_hostile_workspace_is_refused_or_nobodys(tmp_path: Path, workspace: str) -> None:
    facts = Facts()
    with memory_view(tmp_path) as view:
        fill(view, facts, "bank", SECRET)
        for name, arguments in QUESTIONS.items():
            if is_token(workspace):
                answer = await view.ask(name, **(arguments | {"workspace": workspace}))
                assert SECRET not in msgspec.json.encode(answer).decode()
            else:
                with pytest.raises(BadArgumentsError) as caught:
                    await view.ask(name, **(arguments | {"workspace": workspace}))
                assert caught.value.fields["field"] == "workspace"


@pytest.mark.parametrize("query", FTS_LANGUAGE)
async def test_the_language_of_fts5_means_nothing_in_a_question(tmp_path: Path, query: str) -> None:
    """Neither an error nor an answer of somebody else."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        fill(view, facts, "shop", "plain")
        fill(view, facts, "bank", SECRET)
        found = await view.ask("recall", workspace="shop", query=query, k=50)
        assert SECRET not in msgspec.json.encode(found).decode()


@pytest.mark.parametrize("text", [*HOSTILE[:5], "') OR 1=1 --", "m1' , 'm2"])
async def test_hostile_filters_are_values(tmp_path: Path, text: str) -> None:
    facts = Facts()
    with memory_view(tmp_path) as view:
        fill(view, facts, "shop", "plain")
        fill(view, facts, "bank", SECRET)
        for name, filters in {
            "recall": {"session": text, "agent": text}, "memories": {"session": text, "agent": text, "subject": text},
            "solution": {"agent": text}, "patterns": {"agent": text}, "interactions": {"with_actor": text, "session": text},
            "stale": {"after": text}, "other_models": {"model": text},
        }.items():  # fmt: skip
            for field, value in filters.items():
                answer = await view.ask(name, **(QUESTIONS[name] | {"workspace": "shop", field: value}))
                assert SECRET not in msgspec.json.encode(answer).decode(), (name, field)


async def test_hostile_names_and_texts_are_data(tmp_path: Path) -> None:
    """Of memories, agents, sessions, subjects: what an event says is never part of a statement."""
    facts = Facts()
    bad = "x'); DROP TABLE memories; --"
    with memory_view(tmp_path) as view:
        view.apply(
            facts.stored("shop", bad, name=bad, session=bad, agent=bad, metadata={bad: bad}),
            facts.learned("shop", bad, bad, bad, True),
            facts.event("shop", "memory.accessed", {"counts": {bad: 1}}),
        )
        (found,) = await view.ask("recall", workspace="shop", query="drop table", session=bad)
        assert (found["memory"], found["content"], found["accesses"]) == (bad, bad, 1)
        assert (await view.ask("solution", workspace="shop", pattern=bad))["solution"] == bad
        view.apply(facts.event("shop", "memory.forgotten", {"memories": [bad], "reason": "asked"}))
        assert await view.ask("memories", workspace="shop") == []


async def test_an_erased_workspace_leaves_the_others_alone(tmp_path: Path) -> None:
    """Rows, words and vectors of it go; no table of it stays."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        fill(view, facts, "shop", "plain")
        fill(view, facts, "bank", SECRET)
        before = await everything(view, "shop")
        view.db.execute("BEGIN")
        view.projection.erase(view.db, facts.event("bank", "stream.erased", {}).stream)
        view.projection.erase(view.db, facts.event("bank", "stream.erased", {}, actor="reviewer").stream)
        view.db.execute("COMMIT")
        assert await everything(view, "shop") == before
        assert SECRET not in await everything(view, "bank")
        assert SECRET not in repr(view.rows())
        tables = [
            name for (name,) in view.db.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'words_%' AND sql LIKE 'CREATE VIRTUAL%'")
        ]
        assert len(tables) == 1
