"""LangGraph's long-term memory in an event log (S38).

    async with EventLogSaver.open("threads") as saver:
        graph = builder.compile(checkpointer=saver, store=saver.store())

Or in a folder of its own with `EventLogStore.open`. A change is an event; what is there now is folded into memory when it is first needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)
from msgspec import Raw

from actors.graph import recorded
from actors.graph.items import ItemsState, Namespace, Vector, text_of
from actors.graph.opening import Opening
from actors.graph.threads import Said, Steps, Threads, run_async, run_sync
from events.sqlite.sqlite_library import Durability

ITEMS_PER_EVENT: Final = 200
_NAME: Final = "items"
_Puts = dict[tuple[Namespace, str], PutOp]


class EventLogStore(BaseStore):
    """A store on an event log. Made by `EventLogSaver.store` or `open`. May be used from any thread and any event loop, async and sync.

    A batch is atomic; its reads see what was before it. What a call returned from is durable, and a superseded writer is refused, as with
    `EventLogSaver`. With an `index`, the embedding of an item is part of its event: opening the folder again calls no model, and an item
    whose vectors have another size is found without a score. A search compares with every item below its namespace.

    Limits: all items are held in memory as JSON; time to live is not supported.
    """

    supports_ttl = False

    def __init__(self, threads: Threads, *, index: IndexConfig | None = None) -> None:
        self._threads = threads
        self._embeddings = None if index is None else ensure_embeddings(index.get("embed"))
        self._fields = [] if index is None else [(path, _path(path)) for path in (index.get("fields") or ["$"])]

    @classmethod
    def open(
        cls,
        path: "str | PathLike[str]",
        *,
        durability: Durability = "disk",
        types: dict[str, type] | None = None,
        index: IndexConfig | None = None,
    ) -> Opening["EventLogStore"]:
        """The store in folder `path`, made if it is missing: for ``async with`` or ``with``. Takes the folder from whoever had it open.

        Args: as `EventLogSaver.open`. index: LangGraph's ``{"dims", "embed", "fields"}``.
        """
        return Opening(lambda threads: cls(threads.beside(ItemsState), index=index), Path(path), durability, types)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Raises as `EventLogSaver.aput`."""
        ops = list(ops)
        texts, queries = self._texts(ops), _queries(ops)
        vectors: Sequence[Vector] = []
        asked: Sequence[Vector] = []
        if self._embeddings is not None:
            vectors = self._embeddings.embed_documents(texts) if texts else []
            asked = [self._embeddings.embed_query(query) for query in queries]
        return run_sync(self._batch(ops, dict(zip(texts, vectors, strict=True)), dict(zip(queries, asked, strict=False))))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Raises as `EventLogSaver.aput`."""
        ops = list(ops)
        texts, queries = self._texts(ops), _queries(ops)
        vectors: Sequence[Vector] = []
        asked: Sequence[Vector] = []
        if self._embeddings is not None:
            vectors = await self._embeddings.aembed_documents(texts) if texts else []
            asked = [await self._embeddings.aembed_query(query) for query in queries]
        return await run_async(self._batch(ops, dict(zip(texts, vectors, strict=True)), dict(zip(queries, asked, strict=False))))

    def _texts(self, ops: Sequence[Op]) -> list[str]:
        """What is to be embedded, each text once."""
        if self._embeddings is None:
            return []
        return list(dict.fromkeys(text for op in ops if isinstance(op, PutOp) for text in self._texts_of(op)))

    def _texts_of(self, op: PutOp) -> list[str]:
        if op.value is None or op.index is False or self._embeddings is None:
            return []
        paths = self._fields if op.index is None else [(path, _path(path)) for path in op.index]
        return [text for _, path in paths for text in get_text_at_path(op.value, path)]

    def _batch(self, ops: Sequence[Op], vectors: Mapping[str, Vector], queries: Mapping[str, Vector]) -> Steps[list[Result]]:
        results: list[Result] = [None] * len(ops)
        reads = [place for place, op in enumerate(ops) if not isinstance(op, PutOp)]
        if reads:
            state = yield from self._threads.settled(_NAME)
            if not isinstance(state, ItemsState):
                raise TypeError(f"{state.stream} is no store")
            with self._threads.guard:
                for place in reads:
                    results[place] = _read(state, ops[place], queries)
        puts: _Puts = {(tuple(op.namespace), op.key): op for op in ops if isinstance(op, PutOp)}
        if puts:
            yield from self._threads.change(_NAME, lambda state: self._said(state, puts, vectors))
        return results

    def _said(self, state: Any, puts: _Puts, vectors: Mapping[str, Vector]) -> Said:
        now_us = self._threads.wall_us()
        changes = [
            self._change(state, place, op, now_us, vectors) for place, op in puts.items() if op.value is not None or state.has(*place)
        ]
        return [
            (recorded.ItemsChanged(items=some), ", ".join("/".join([*each.namespace, each.key]) for each in some))
            for some in (changes[start : start + ITEMS_PER_EVENT] for start in range(0, len(changes), ITEMS_PER_EVENT))
        ]

    def _change(
        self, state: ItemsState, place: tuple[Namespace, str], op: PutOp, now_us: int, vectors: Mapping[str, Vector]
    ) -> recorded.ItemChange:
        value = Raw(b"null" if op.value is None else state.packer.shared(dict(op.value)))
        known = [text_of(vectors[text]) for text in self._texts_of(op) if text in vectors]
        return recorded.ItemChange(namespace=list(place[0]), key=place[1], at_us=now_us, value=value, vectors=known)


def _path(path: str) -> Any:
    return path if path == "$" else tokenize_path(path)


def _queries(ops: Sequence[Op]) -> list[str]:
    return list(dict.fromkeys(op.query for op in ops if isinstance(op, SearchOp) and op.query))


def _read(state: ItemsState, op: Op, queries: Mapping[str, Vector]) -> Item | list[Item] | list[SearchItem] | list[Namespace] | None:
    if isinstance(op, GetOp):
        return state.get(tuple(op.namespace), op.key)
    if isinstance(op, SearchOp):
        return state.search(op, queries.get(op.query) if op.query else None)
    if isinstance(op, ListNamespacesOp):
        return state.namespaces(op)
    raise ValueError(f"{type(op).__name__} is no operation of a store")
