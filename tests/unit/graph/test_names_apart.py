"""S38: threads and namespaces whose names are chosen to be taken for each other are not: by the log, by the index, by what is read."""

import hashlib
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.store.base import GetOp, Item, PutOp, SearchOp

from actors.graph import EventLogSaver, EventLogStore
from events.keeping.verify import verify

# fmt: off
THREADS = (
    "t", "T", "t ", " t", "t\n", "", "*", ">", "a", "a.b", "a.*", "a/b", "thread/a", "store/items", "items", "x_", "..", "../a", "%", "_",
    "a%", "x_" + hashlib.sha256(b"a.b").hexdigest()[:40], "caf\u00e9", "cafe\u0301", "NULL", "null", "5", "a" * 64, "a" * 65,
    "a' OR '1'='1", "a\x00", "a\x00b",
)
NAMESPACES = (
    ("shop",), ("shop", "a"), ("shop.a",), ("shop/a",), ("shop1",), ("sho",), ("SHOP",), ("*",), (">",), ("shop", "*"), ("shop\x00a",),
    ("",), ("shop", ""), ("bank", "shop"), ("%",), ("_hop",),
)
# fmt: on


def config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


async def put(saver: EventLogSaver, thread_id: str, text: str) -> None:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"text": text}, {"text": 1}
    await saver.aput(config(thread_id), checkpoint, {"source": "loop", "step": 1}, {"text": 1})


async def said(saver: EventLogSaver, thread_id: str) -> Any:
    found = await saver.aget_tuple(config(thread_id))
    return None if found is None else found.checkpoint["channel_values"]["text"]


async def check(saver: EventLogSaver, expected: dict[str, str]) -> None:
    assert {name: await said(saver, name) for name in THREADS} == {name: expected.get(name) for name in THREADS}
    listed = [(each.config["configurable"]["thread_id"], each.checkpoint["channel_values"]["text"]) async for each in saver.alist(None)]
    assert sorted(listed) == sorted(expected.items())
    assert sorted(await saver.athreads()) == sorted(expected)
    for name in THREADS:
        assert [each.config["configurable"]["thread_id"] async for each in saver.alist(config(name))] == [name] * (name in expected)


async def test_s38_threads_with_names_of_every_kind_never_meet(tmp_path: Path) -> None:
    expected: dict[str, str] = {}
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        for number, name in enumerate(THREADS):
            await put(saver, name, f"secret {number}")
            expected[name] = f"secret {number}"
        await check(saver, expected)
        for name in ("a", "*", "x_", "t"):
            await saver.adelete_thread(name)
            del expected[name]
            await check(saver, expected)
        await saver.acopy_thread("a.b", "*")
        expected["*"] = expected["a.b"]
        await saver.aprune([">", "%", "a.*"])
        await saver.aprune(["a.b"], strategy="delete")
        del expected["a.b"]
    async with EventLogSaver.open(tmp_path, durability="process") as saver:
        await check(saver, expected)
    assert verify(tmp_path / "log") == []


async def test_s38_namespaces_are_tuples_and_no_text_or_pattern_reaches_another(tmp_path: Path) -> None:
    """Also those with a dot, which LangGraph's own methods refuse and a batch does not."""
    async with EventLogStore.open(tmp_path, durability="process") as store:
        await store.abatch([PutOp(namespace, "key", {"secret": number}) for number, namespace in enumerate(NAMESPACES)])
    async with EventLogStore.open(tmp_path, durability="process") as store:
        for number, namespace in enumerate(NAMESPACES):
            found, below = await store.abatch([GetOp(namespace, "key"), SearchOp(namespace_prefix=namespace, limit=100)])
            assert isinstance(found, Item)
            assert found.value == {"secret": number}
            assert isinstance(below, list)
            expected = {each for each in NAMESPACES if each[: len(namespace)] == namespace}
            assert {each.namespace for each in below if isinstance(each, Item)} == expected
        # A pattern is one where LangGraph says so, in the listing of namespaces, and there for a whole label only.
        assert await store.alist_namespaces(prefix=("shop", "*")) == [("shop", ""), ("shop", "*"), ("shop", "a")]
        assert await store.alist_namespaces(prefix=("shop*",)) == []
        await store.adelete(("*",), "key")
        assert await store.aget(("shop",), "key") is not None
