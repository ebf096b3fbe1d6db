"""`EventLogStore` (S38): LangGraph's long-term memory, compared with LangGraph's own store in memory."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore, GetOp, Item, Op, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from actors.graph import EventLogSaver, EventLogStore, StaleWriteOwnerError
from events.keeping.verify import verify


class Letters(Embeddings):
    """How often each of eight letters occurs; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [[float(text.count(letter)) + 0.01 for letter in "aeioustr"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def plain(items: Sequence[Item]) -> list[tuple[Any, ...]]:
    return sorted(((item.namespace, item.key, item.value) for item in items), key=repr)


names = st.sampled_from([("a",), ("a", "b"), ("a", "c"), ("d", "b")])
values = st.fixed_dictionaries(
    {"n": st.integers(0, 9), "who": st.sampled_from(["x", "y"]), "in": st.fixed_dictionaries({"deep": st.booleans()})}
)
puts = st.builds(PutOp, names, st.sampled_from("klm"), values | st.none())
filters = st.sampled_from(
    [None, {"who": "x"}, {"n": {"$gt": 4}}, {"n": {"$lte": 4}, "who": {"$ne": "y"}}, {"in": {"deep": True}}, {"n": {"$eq": 3}}]
)


@given(st.lists(st.lists(puts, max_size=4), max_size=8), st.lists(st.tuples(names, filters), max_size=4))
@settings(max_examples=30, deadline=None)
def test_s38_it_answers_as_the_store_in_memory(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[PutOp]], asks: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("store") / "items"
    model = InMemoryStore()
    with EventLogStore.open(folder, durability="process") as store:
        for batch in batches:
            store.batch(batch)
            model.batch(batch)
        _compare(store, model, asks)
    with EventLogStore.open(folder, durability="process") as again:
        _compare(again, model, asks)


def _compare(store: BaseStore, model: BaseStore, asks: list[Any]) -> None:
    for prefix, wanted in asks:
        assert plain(store.search(prefix, filter=wanted, limit=100)) == plain(model.search(prefix, filter=wanted, limit=100))
    for namespace in (("a",), ("a", "b"), ("d", "b")):
        for key in "klm":
            mine, theirs = store.get(namespace, key), model.get(namespace, key)
            assert (mine and mine.value) == (theirs and theirs.value)
    kept = {item.namespace for item in model.search((), limit=1000)}
    assert set(store.list_namespaces(limit=100)) == kept
    assert store.list_namespaces(prefix=("a", "*"), limit=100) == sorted(each for each in kept if each[0] == "a" and len(each) > 1)
    assert store.list_namespaces(suffix=("b",), limit=100) == sorted(each for each in kept if each[-1] == "b")
    assert store.list_namespaces(max_depth=1, limit=100) == sorted({each[:1] for each in kept})


async def test_search_by_meaning_survives_a_restart_without_a_model_call(tmp_path: Path) -> None:
    letters = Letters()
    index: Any = {"dims": 8, "embed": letters, "fields": ["text"]}
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        store = saver.store(index=index)
        for key, text in (("bees", "seeeee"), ("ants", "aaaaat"), ("owls", "ooooos")):
            await store.aput(("animals",), key, {"text": text})
        await store.aput(("animals",), "hidden", {"text": "aaaaaa"}, index=False)
    assert letters.asked == ["seeeee", "aaaaat", "ooooos"]
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        found = await saver.store(index=index).asearch(("animals",), query="aaa", limit=2)
        assert [each.key for each in found] == ["ants", "bees"]
        assert found[0].score is not None
        assert found[0].score > 0.9
        everything = await saver.store(index=index).asearch(("animals",), query="aaa")
        assert (everything[-1].key, everything[-1].score) == ("hidden", None)
    assert letters.asked[3:] == ["aaa", "aaa"]


async def test_an_item_keeps_its_birthday_and_comes_back_as_a_copy(tmp_path: Path) -> None:
    async with EventLogStore.open(tmp_path / "items") as store:
        await store.aput(("a",), "k", {"list": [1]})
        first = await store.aget(("a",), "k")
        await store.aput(("a",), "k", {"list": [1, 2]})
        second = await store.aget(("a",), "k")
        assert first is not None
        assert second is not None
        assert first.created_at == second.created_at <= second.updated_at
        second.value["list"].append(3)
        third = await store.aget(("a",), "k")
        assert third is not None
        assert third.value == {"list": [1, 2]}


async def test_a_batch_reads_what_was_before_it_and_its_last_put_counts(tmp_path: Path) -> None:
    async with EventLogStore.open(tmp_path / "items") as store:
        ops: list[Op] = [PutOp(("a",), "k", {"n": 1}), GetOp(("a",), "k"), PutOp(("a",), "k", {"n": 2}), SearchOp(("a",))]
        assert await store.abatch(ops) == [None, None, None, []]
        found = await store.aget(("a",), "k")
        assert found is not None
        assert found.value == {"n": 2}
        many: list[Op] = [PutOp(("many",), str(number), {"text": "x" * 100, "n": number}) for number in range(1_000)]
        await store.abatch(many)
        assert len(await store.asearch(("many",), limit=2_000)) == 1_000
        assert [each.key for each in await store.asearch(("many",), limit=2, filter={"n": {"$lt": 2}})] == ["0", "1"]
    assert verify(tmp_path / "items" / "log") == []


async def test_s3_a_superseded_store_is_refused(tmp_path: Path) -> None:
    async with EventLogStore.open(tmp_path / "items") as first, EventLogStore.open(tmp_path / "items") as second:
        await second.aput(("a",), "k", {"n": 2})
        with pytest.raises(StaleWriteOwnerError):
            await first.aput(("a",), "k", {"n": 1})
        found = await first.aget(("a",), "k")
        assert found is not None
        assert found.value == {"n": 2}


async def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    async with EventLogStore.open(tmp_path / "items", durability="process") as store:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(store.aput(("a", str(number % 5)), str(number), {"n": number}))
        assert len(await store.asearch(("a",), limit=100)) == 50
        await asyncio.to_thread(store.delete, ("a", "0"), "0")
        assert len(await store.asearch(("a",), limit=100)) == 49


async def test_a_graph_uses_both(tmp_path: Path) -> None:
    async def remember(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        await store.aput(("user", "1"), "said", {"text": str(state["messages"][-1].content)})
        return {}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("remember", remember)
    builder.add_edge(START, "remember")
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        graph = builder.compile(checkpointer=saver, store=saver.store())
        await graph.ainvoke({"messages": [HumanMessage("I like tea")]}, {"configurable": {"thread_id": "t"}})
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        found = await saver.store().aget(("user", "1"), "said")
        assert found is not None
        assert found.value == {"text": "I like tea"}
        assert await saver.athreads() == ["t"]
