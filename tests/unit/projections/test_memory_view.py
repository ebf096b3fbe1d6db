"""The memory view: what is found and why, what is forgotten, what agents have learned."""

from pathlib import Path
from typing import Any

import pytest

from events.embedding import embedding
from projections.embedding.hashing import hashed
from projections.errors import BadArgumentsError
from projections.memory import reading
from projections.memory.ranking import WEIGHTS
from projections.memory.tables import words_table
from projections.memory.words import any_of, rarest, terms_of
from tests.support.memory_view import Facts, MemoryView, meaning, memory_view


def names(found: list[dict[str, Any]]) -> list[str]:
    return [each["memory"] for each in found]


def shadow_rows(view: MemoryView) -> list[tuple[Any, ...]]:
    return view.db.execute("SELECT id FROM vectors WHERE vector IS NOT NULL").fetchall()


async def test_what_is_near_the_question_comes_first_whatever_its_type(tmp_path: Path) -> None:
    """Of every type, not of one; and what is important but has nothing to do with it does not win."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        for number, kind in enumerate(("episodic", "semantic", "procedural", "entity")):
            view.apply(
                facts.stored("shop", f"{kind}: retry the payment after a timeout", name=f"right{number}", type=kind, importance=0.1),
                facts.stored("shop", "the office is painted green", name=f"loud{number}", type=kind, importance=1.0),
            )
        found = await view.ask("recall", workspace="shop", query="payment timeouts", k=8)
    assert sorted(names(found)[:4]) == ["right0", "right1", "right2", "right3"]
    assert {each["type"] for each in found[:4]} == {"episodic", "semantic", "procedural", "entity"}


async def test_a_score_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    """Each is visible, each lies between 0 and 1, and so does the sum."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(facts.stored("shop", "deploy on fridays", importance=0.25))
        facts.day = 30.0
        view.apply(facts.stored("shop", "never deploy at night", importance=1.0))
        found = await view.ask("recall", workspace="shop", query="deploy")
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    for each in found:
        parts = each["parts"]
        assert {name: part["weight"] for name, part in parts.items()} == WEIGHTS
        assert all(0.0 <= part["value"] <= 1.0 for part in parts.values())
        assert each["score"] == pytest.approx(sum(part["weight"] * part["value"] for part in parts.values()), abs=1e-5)
        assert parts["meaning"]["value"] == pytest.approx(each["similarity"], abs=1e-5)
    old = next(each for each in found if each["content"] == "deploy on fridays")
    assert old["parts"]["recency"]["value"] == pytest.approx(0.5, abs=1e-3), "a half-life of thirty days"
    assert old["parts"]["importance"]["value"] == 0.25


async def test_words_find_what_has_no_vector_or_another_models(tmp_path: Path) -> None:
    """A change of the model under way loses nothing that shares a word with the question."""
    from events.embedding import embedding

    other = embedding("other-3", [1.0, 2.0, 3.0])
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(
            facts.stored("shop", "the payment gateway", name="other", vector=meaning("", other)),
            facts.event(
                "shop", "memory.subject_noted",
                {"subject": "s", "round": "r", "digest": "d", "at": "t", "total": 1, "agent": None, "gone": [],
                 "found": {"k": {"text": "payment is slow", "importance": 0.5, "meaning": None}}},
            ),
        )  # fmt: skip
        found = await view.ask("recall", workspace="shop", query="payment")
        assert sorted(names(found)) == ["other", "s:k"]
        assert [each["similarity"] for each in found] == [None, None]
        assert await view.ask("other_models", workspace="shop", model="hash-512-1") == {
            "memories": {"other": "the payment gateway"}, "left": 1,
        }  # fmt: skip
        renewed = {"other": {"model": meaning("x").model, "vector": meaning("the payment gateway").vector}}
        view.apply(facts.event("shop", "memory.meaning_renewed", {"meanings": renewed}))
        assert (await view.ask("other_models", workspace="shop", model="hash-512-1"))["left"] == 0
        (first, _) = await view.ask("recall", workspace="shop", query="payment gateway")
        assert first["similarity"] == pytest.approx(0.816, abs=0.2)
        assert (await view.ask("stats", workspace="shop"))["vectors"] == {"hash-512-1": 1}


async def test_names_of_code_are_found_by_their_parts(tmp_path: Path) -> None:
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(
            facts.stored("shop", "calls parseHTTPHeaders2 first", name="hump"), facts.stored("shop", "see read_the_body", name="snake")
        )
        for query, name in (("http headers", "hump"), ("parse", "hump"), ("body", "snake"), ("parsehttpheaders2", "hump")):
            found = await view.ask("recall", workspace="shop", query=query, k=1)
            assert names(found) == [name], query
            assert found[0]["parts"]["words"]["value"] == 1.0, query


async def test_a_question_without_an_answer_has_none(tmp_path: Path) -> None:
    """Nothing is filled up with what is merely important or new."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        assert await view.ask("recall", workspace="shop", query="anything") == []
        view.apply(facts.stored("shop", "zzz", importance=1.0))
        for query in ("", "??", "\x00", "12"):
            assert await view.ask("recall", workspace="shop", query=query) == []


async def test_filters_hold_for_what_is_near_and_for_what_shares_words(tmp_path: Path) -> None:
    """Also where all that is nearest is filtered away: then those that pass are looked through."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(*[facts.stored("shop", f"payment timeout number {n}", type="semantic", importance=0.2) for n in range(300)])
        view.apply(
            facts.stored("shop", "a timeout", name="wanted", type="procedural", importance=0.9, session="s1", agent="fixer"),
            facts.stored("shop", "the weather", name="far", type="procedural", importance=0.9, session="s1", agent="fixer"),
        )
        for wanted in (
            {"types": ["procedural"]}, {"min_importance": 0.9}, {"session": "s1"}, {"agent": "fixer"},
            {"types": ["procedural", "entity"], "min_importance": 0.5, "session": "s1", "agent": "fixer"},
        ):  # fmt: skip
            found = await view.ask("recall", workspace="shop", query="payment timeout", k=3, **wanted)
            assert names(found)[:1] == ["wanted"], wanted
            assert all(each["type"] == "procedural" for each in found), wanted


async def test_forgetting_takes_row_words_and_vector_together(tmp_path: Path) -> None:
    """And nothing comes back, after a restart neither."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(facts.stored("shop", "alpha beta", name="a"), facts.stored("shop", "beta gamma", name="b"))
        assert sorted(names(await view.ask("recall", workspace="shop", query="beta"))) == ["a", "b"]
        view.apply(facts.event("shop", "memory.forgotten", {"memories": ["a", "never there"], "reason": "asked"}))
        assert names(await view.ask("recall", workspace="shop", query="alpha beta")) == ["b"]
        assert len(shadow_rows(view)) == 1
        (stats,) = [await view.ask("stats", workspace="shop")]
        assert (stats["memories"], stats["forgotten"], stats["vectors"]) == (1, 1, {"hash-512-1": 1})
        terms = [row for row in view.rows() if str(row[0]).startswith("words_")]
        assert {row[1] for row in terms} == {"beta", "gamma"}
    with memory_view(tmp_path) as view:
        assert names(await view.ask("recall", workspace="shop", query="alpha beta")) == ["b"]


async def test_a_name_that_comes_again_takes_the_place_of_what_had_it(tmp_path: Path) -> None:
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(facts.stored("shop", "old words", name="a"))
        view.apply(facts.stored("shop", "new terms", name="a"))
        assert names(await view.ask("recall", workspace="shop", query="old words", k=5)) == []
        assert names(await view.ask("recall", workspace="shop", query="new terms")) == ["a"]
        assert len(shadow_rows(view)) == 1


async def test_access_counts_rise_and_protect(tmp_path: Path) -> None:
    """Old, unimportant and hardly ever found: only all three together make a memory stale."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(
            facts.stored("shop", "x", name="dull", importance=0.1), facts.stored("shop", "x", name="used", importance=0.1),
            facts.stored("shop", "x", name="important", importance=0.3),
        )  # fmt: skip
        facts.day = 40.0
        view.apply(facts.stored("shop", "x", name="new", importance=0.1))
        view.apply(facts.event("shop", "memory.accessed", {"counts": {"used": 1, "gone": 7}}))
        view.apply(facts.event("shop", "memory.accessed", {"counts": {"used": 1, "dull": 1}}))
        used = next(each for each in await view.ask("memories", workspace="shop") if each["memory"] == "used")
        assert used["accesses"] == 2
        assert used["accessed_at_us"] > used["created_at_us"]
        before_us = used["created_at_us"] + 30 * 86_400_000_000
        page = await view.ask("stale", workspace="shop", before_us=before_us, importance_below=0.3, accessed_below=2)
        assert page == {"memories": ["dull"], "next": None}


async def test_stale_memories_come_page_by_page(tmp_path: Path) -> None:
    """Every one once, in the order of their names."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(*[facts.stored("shop", "x", name=f"m{n:02}", importance=0.0) for n in range(25)])
        seen: list[str] = []
        after = None
        while True:
            page = await view.ask("stale", workspace="shop", before_us=2**62, importance_below=0.3, accessed_below=2, limit=10, after=after)
            seen += page["memories"]
            after = page["next"]
            if after is None:
                break
    assert seen == [f"m{n:02}" for n in range(25)]


async def test_two_agents_keep_rates_of_their_own(tmp_path: Path) -> None:
    """The same pattern, one fails: neither record touches the other, and what failed never takes the place of what worked."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(
            facts.learned("shop", "fixer", "ImportError: x", "install x", True),
            facts.learned("shop", "fixer", "importerror:  X", "install x", True),
            facts.learned("shop", "second", "ImportError: x", "install x", False),
            facts.learned("shop", "fixer", "ImportError: x", "delete the import", False),
        )
        best = await view.ask("solution", workspace="shop", pattern="IMPORTERROR: x")
        assert (best["solution"], best["agent"], best["uses"], best["success_rate"]) == ("install x", "fixer", 2, 1.0)
        assert best["pattern_rate"] == pytest.approx(2 / 3, abs=1e-6)
        assert await view.ask("solution", workspace="shop", pattern="ImportError: x", agent="second", min_success_rate=0) is None
        rates = {each["agent"]: (each["uses"], each["success_rate"]) for each in await view.ask("patterns", workspace="shop")}
        assert rates == {"fixer": (3, pytest.approx(2 / 3, abs=1e-6)), "second": (1, 0.0)}
        stats = (await view.ask("stats", workspace="shop"))["patterns"]
        assert stats == {
            "count": 2,
            "agents": 2,
            "success_rate_mean": pytest.approx(1 / 3, abs=1e-6),
            "success_rate_best": pytest.approx(2 / 3, abs=1e-6),
        }


async def test_a_long_record_counts_more_than_a_lucky_one(tmp_path: Path) -> None:
    """Nine of ten is better than one of one; below the asked rate nothing is offered."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(*[facts.learned("shop", "a", "p", "proven", n > 0) for n in range(10)], facts.learned("shop", "a", "p", "lucky", True))
        assert (await view.ask("solution", workspace="shop", pattern="p"))["solution"] == "proven"
        assert (await view.ask("solution", workspace="shop", pattern="p", min_success_rate=0.95))["solution"] == "lucky"
        assert await view.ask("solution", workspace="shop", pattern="q") is None


async def test_interactions_are_found_from_either_side(tmp_path: Path) -> None:
    facts = Facts()
    with memory_view(tmp_path) as view:
        for number, (agent, other, session) in enumerate((("a", "b", "s"), ("b", "c", None), ("c", "a", "s"))):
            payload = {"agent": agent, "with_actor": other, "type": "asks", "content": str(number), "result": None, "session": session}
            view.apply(facts.event("shop", "memory.interaction_recorded", payload))

        async def said(**wanted: Any) -> list[str]:
            return [each["content"] for each in await view.ask("interactions", workspace="shop", **wanted)]

        assert await said() == ["2", "1", "0"]
        assert await said(with_actor="b") == ["1", "0"]
        assert await said(session="s") == ["2", "0"]
        assert await said(limit=1) == ["2"]


async def test_a_noted_fact_is_a_memory_as_long_as_it_holds(tmp_path: Path) -> None:
    """Consolidation leaves it alone; when its subject says that it is gone, it goes with words and vector."""
    facts = Facts()

    def noted(found: dict[str, str], gone: list[str]) -> Any:
        items = {
            key: {"text": text, "importance": 0.1, "meaning": {"model": "hash-512-1", "vector": meaning(text).vector}}
            for key, text in found.items()
        }
        return facts.event("shop", "memory.subject_noted", {
            "subject": "findings", "round": "r", "digest": "d", "at": "t", "total": 2, "agent": "reviewer", "found": items, "gone": gone,
        })  # fmt: skip

    with memory_view(tmp_path) as view:
        view.apply(noted({"k1": "shell injection", "k2": "unused import"}, []))
        (found,) = [each for each in await view.ask("recall", workspace="shop", query="shell injection") if each["parts"]["words"]["value"]]
        assert (found["memory"], found["type"], found["subject"], found["agent"]) == ("findings:k1", "entity", "findings", "reviewer")
        assert (await view.ask("stale", workspace="shop", before_us=2**62, importance_below=1, accessed_below=9))["memories"] == []
        view.apply(noted({}, ["k1"]))
        assert names(await view.ask("memories", workspace="shop", subject="findings")) == ["findings:k2"]
        assert len(shadow_rows(view)) == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"query": "x"}, "workspace"),
        ({"query": "x", "workspace": "shop", "k": 0}, "k"),
        ({"query": "x", "workspace": "shop", "k": 51}, "k"),
        ({"query": "x", "workspace": "shop", "types": ["dream"]}, "types[0]"),
        ({"query": "x", "workspace": "shop", "types": []}, "types"),
        ({"query": "x", "workspace": "shop", "min_importance": 1.5}, "min_importance"),
        ({"query": 1, "workspace": "shop"}, "query"),
        ({"query": "x", "workspace": "shop", "where": "1=1"}, "where"),
    ],
)
async def test_arguments_are_checked_by_field(tmp_path: Path, arguments: dict[str, Any], field: str) -> None:
    with memory_view(tmp_path) as view, pytest.raises(BadArgumentsError) as caught:
        await view.ask("recall", **arguments)
    assert caught.value.fields["field"] == field


def test_a_query_becomes_quoted_words_and_nothing_else() -> None:
    """Function words only count where there is nothing else."""
    assert terms_of("How do I retry the payment?") == ['"retry"', '"payment"']
    assert terms_of("to be or not to be") == ['"to"', '"be"', '"or"', '"not"']
    assert any_of(terms_of('words:* NEAR("a" b) ^c -d + "x"" OR')) == '"words" OR "near" OR "b" OR "c" OR "d" OR "x"'
    assert terms_of("parseURL") == ['"parseurl"', '"parse"', '"url"']
    assert terms_of("!?") == []


def test_the_rarest_words_are_those_whose_matches_fit_together_and_one_in_any_case() -> None:
    counts = {"often": 60, "rare": 3, "none": 0, "seldom": 37}
    assert rarest(counts, 40) == ["none", "rare", "seldom"]
    assert rarest(counts, 39) == ["none", "rare"]
    assert rarest(counts, 100) == ["none", "rare", "seldom", "often"]
    assert rarest({"often": 60, "always": 90}, 40) == ["often"]
    assert rarest({"often": 60, "always": 90}, 40, least=2) == ["often", "always"]


FAR = meaning("", embedding("other-1", [1.0]))
"""Of another model than the question's, so that nothing is near by meaning."""


@pytest.fixture
def _few_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SCORED_MAX", 12)
    monkeypatch.setattr(reading, "COUNTED_MAX", 60)
    monkeypatch.setattr(reading, "CANDIDATES_MIN", 5)
    monkeypatch.setattr(reading, "CANDIDATES_PER_ANSWER", 1)


async def by_words(view: MemoryView, query: str, **wanted: object) -> dict[str, float]:
    """What a recall finds, and the part that words have in it."""
    found = await view.ask("recall", workspace="shop", query=query, k=20, **wanted)
    for each in found:
        assert each["score"] == pytest.approx(sum(part["value"] * part["weight"] for part in each["parts"].values()), abs=1e-6)
        assert each["parts"]["words"]["value"] > 0, "what is not near was found by its words"
    return {each["memory"]: each["parts"]["words"]["value"] for each in found}


@pytest.mark.usefixtures("_few_are_scored")
async def test_common_words_find_the_newest_and_rare_ones_all(tmp_path: Path) -> None:
    """What a recall scores has a bound, which a word that half of all texts have may not use up alone."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(facts.stored("shop", "the oldest payment is a refund", name="refund", vector=FAR))
        view.apply(*[facts.stored("shop", f"payment {n}", name=f"m{n}", vector=FAR) for n in range(80)])
        view.apply(*[facts.stored("shop", f"nothing {n}", vector=FAR) for n in range(100)])
        assert set(await by_words(view, "payment")) == {f"m{n}" for n in range(68, 80)}
        both = await by_words(view, "payment refund")
        assert max(both, key=both.__getitem__) == "refund"
        assert set(both) == {"refund"} | {f"m{n}" for n in range(69, 80)}
        assert set(await by_words(view, "refund unheard")) == {"refund"}
        assert await by_words(view, "unheard unseen") == {}


@pytest.mark.usefixtures("_few_are_scored")
async def test_a_question_of_common_words_alone_finds_texts_with_all_of_them_first(tmp_path: Path) -> None:
    """Also where they have more matches than count, next to a word that no text has, and with a filter that the newest do not pass."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(facts.stored("shop", "deploy failed", name="both", vector=FAR))
        view.apply(*[facts.stored("shop", f"deploy {n}", name=f"d{n}", type="semantic", vector=FAR) for n in range(70)])
        view.apply(*[facts.stored("shop", f"failed {n}", name=f"f{n}", type="semantic", vector=FAR) for n in range(71)])
        view.apply(*[facts.stored("shop", f"nothing {n}", vector=FAR) for n in range(100)])
        found = await by_words(view, "deploy failed")
        assert max(found, key=found.__getitem__) == "both"
        assert set(found) == {"both"} | {f"d{n}" for n in range(58, 70)}
        assert set(await by_words(view, "deploy unheard")) == {f"d{n}" for n in range(58, 70)}
        assert set(await by_words(view, "failed unheard", types=["episodic"])) == {"both"}


@pytest.mark.usefixtures("_few_are_scored")
@pytest.mark.parametrize("query", ["payment", "payment refund", "late refund of a payment", "payment refund late order unheard"])
async def test_of_few_texts_each_is_scored_by_every_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """However many matches they have together: bounds change no answer where there are no more texts than these."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        texts = [
            " ".join(word for place, word in enumerate(("payment", "refund", "late", "order")) if n >> place & 1) for n in range(1, 13)
        ]
        view.apply(*[facts.stored("shop", f"{text} {n}", name=f"m{n}", vector=FAR) for n, text in enumerate(texts)])
        view.apply(*[facts.stored("shop", f"nothing {n}", vector=FAR) for n in range(30)])
        found = await view.ask("recall", workspace="shop", query=query, k=20)
        monkeypatch.setattr(reading, "SCORED_MAX", 10**6)
        assert await view.ask("recall", workspace="shop", query=query, k=20) == found
        number = reading.workspace_number(view.db, "shop")
        assert number is not None
        table = words_table(number)
        scores = {
            name: max(-score, 1e-9)
            for name, score in view.db.execute(
                f"SELECT m.memory, bm25({table}) FROM {table} JOIN memories m ON m.id = {table}.rowid WHERE {table} MATCH ?",
                (any_of(terms_of(query)),),
            )
        }
        words = {each["memory"]: each["parts"]["words"]["value"] for each in found}
        assert words == {name: round(score / max(scores.values()), 6) for name, score in scores.items()}


async def test_answers_stay_below_the_size_of_a_reply(tmp_path: Path) -> None:
    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(*[facts.stored("shop", "payment " + "\\" * 12_000) for _ in range(50)])
        found = await view.ask("recall", workspace="shop", query="payment", k=50)
    assert 20 < len(found) < 50
    assert reading.ANSWER_BYTES_MAX < 1_048_576


async def test_a_redacted_vector_is_none(tmp_path: Path) -> None:
    """A bug report's log makes a view too: its texts are taken out, and so are its vectors."""
    from actors.memory.facts import Meaning

    facts = Facts()
    with memory_view(tmp_path) as view:
        view.apply(facts.stored("shop", "[redacted]", vector=Meaning(model="hash-512-1", vector="[redacted]")))
        assert shadow_rows(view) == []
        assert len(await view.ask("memories", workspace="shop")) == 1


async def test_what_another_actor_records_is_no_memory(tmp_path: Path) -> None:
    """The id of a stranger is no workspace: its event is parked, not taken in."""
    facts = Facts()
    with memory_view(tmp_path) as view:
        event = facts.event("shop", "memory.forgotten", {"memories": ["a"], "reason": "asked"}, actor="reviewer")
        with pytest.raises(ValueError, match="no memory"):
            view.apply(event)


async def test_a_recall_looks_up_its_candidates_and_does_not_walk_through_the_workspace(tmp_path: Path) -> None:
    """Counted in hundreds of instructions of SQLite, which no other load changes."""
    facts = Facts()
    hundreds: list[int] = []
    with memory_view(tmp_path) as view:
        for count in (1_000, 2_000):
            view.apply(
                *[facts.stored("shop", f"thing {n} of lot {n % 37}x{count}", vector=meaning("", hashed(f"n{n}"))) for n in range(1_000)]
            )
            await view.ask("recall", workspace="shop", query="lot 5x1000", k=10)  # the index has read what is new
            steps = [0]

            def counted(steps: list[int] = steps) -> int:
                steps[0] += 1
                return 0

            view.db.set_progress_handler(counted, 100)
            assert len(await view.ask("recall", workspace="shop", query="lot 5x1000", k=10)) == 10
            view.db.set_progress_handler(None, 0)
            hundreds.append(steps[0])
    assert hundreds[1] < 1_000, "a walk of 2,000 memories for each of 50 candidates is ten times as many"
