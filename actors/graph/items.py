"""Long-term memory: what the events of a store fold to, and how it is searched. Nothing in here reads or writes anything (S38)."""

import base64
import math
import operator
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from langgraph.store.base import Item, ListNamespacesOp, MatchCondition, SearchItem, SearchOp

from actors.graph import recorded
from actors.graph.folding import Folded
from actors.graph.packing import Packer

Namespace = tuple[str, ...]
Vector = Sequence[float]
STREAM: Final = "store/items"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Stored(msgspec.Struct, frozen=True):
    """One item. value: packed JSON. vectors: one per text of it that was indexed."""

    value: bytes
    created_us: int
    updated_us: int
    vectors: Sequence["array[float]"]


class ItemsState(Folded):
    """All items, as of `version` of their stream. The one that was changed last comes last."""

    def __init__(self, name: str, packer: Packer) -> None:
        super().__init__(name, STREAM, packer)
        self._items: dict[Namespace, dict[str, Stored]] = {}
        self._count = 0

    @property
    def bytes(self) -> int:
        return self.packer.parts.bytes + 500 * self._count

    def apply(self, event: Any, home: int) -> None:
        if not isinstance(event, recorded.ItemsChanged):
            return
        self.add_parts(event)
        for each in event.items:
            namespace = tuple(each.namespace)
            of_namespace = self._items.setdefault(namespace, {})
            before = of_namespace.pop(each.key, None)
            value = bytes(each.value)
            if value != b"null":
                created = before.created_us if before is not None else each.at_us
                vectors = [_floats(text) for text in each.vectors]
                of_namespace[each.key] = Stored(value, created, each.at_us, vectors)
            elif not of_namespace:
                del self._items[namespace]
            self._count += (value != b"null") - (before is not None)

    # What there is

    def get(self, namespace: Namespace, key: str) -> Item | None:
        stored = self._items.get(namespace, {}).get(key)
        return None if stored is None else Item(**self._fields(namespace, key, stored))

    def has(self, namespace: Namespace, key: str) -> bool:
        return key in self._items.get(namespace, {})

    def search(self, wanted: SearchOp, query: Vector | None) -> list[SearchItem]:
        """By nearness to `query`, those without a vector last; without one, the item that was changed last first."""
        found = [
            (namespace, key, stored)
            for namespace, key, stored in self._below(wanted.namespace_prefix)
            if not wanted.filter or _fits(self.packer.value(stored.value), wanted.filter)
        ]
        found.sort(key=lambda each: -each[2].updated_us)
        scores: list[float | None] = [None] * len(found)
        if query is not None:
            near = [_nearness(query, stored.vectors) for _, _, stored in found]
            order = sorted(range(len(found)), key=lambda place: -math.inf if (score := near[place]) is None else score, reverse=True)
            found, scores = [found[place] for place in order], [near[place] for place in order]
        page = slice(wanted.offset, wanted.offset + wanted.limit)
        return [
            SearchItem(**self._fields(namespace, key, stored), score=score)
            for (namespace, key, stored), score in zip(found[page], scores[page], strict=True)
        ]

    def namespaces(self, wanted: ListNamespacesOp) -> list[Namespace]:
        conditions = wanted.match_conditions or ()
        found = {namespace for namespace in self._items if all(_matches(condition, namespace) for condition in conditions)}
        if wanted.max_depth is not None:
            found = {namespace[: wanted.max_depth] for namespace in found}
        return sorted(found)[wanted.offset : wanted.offset + wanted.limit]

    def _below(self, prefix: Namespace) -> Iterator[tuple[Namespace, str, Stored]]:
        for namespace, items in self._items.items():
            if namespace[: len(prefix)] == tuple(prefix):
                for key, stored in items.items():
                    yield namespace, key, stored

    def _fields(self, namespace: Namespace, key: str, stored: Stored) -> dict[str, Any]:
        return {
            "value": self.packer.value(stored.value), "key": key, "namespace": namespace,
            "created_at": _EPOCH + timedelta(microseconds=stored.created_us),
            "updated_at": _EPOCH + timedelta(microseconds=stored.updated_us),
        }  # fmt: skip


def text_of(vector: Vector) -> str:
    """float32, little-endian, as base64."""
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


def _floats(text: str) -> "array[float]":
    floats = array("f")
    floats.frombytes(base64.b64decode(text))
    if sys.byteorder == "big":
        floats.byteswap()
    return floats


def _nearness(query: Vector, vectors: Sequence["array[float]"]) -> float | None:
    """The greatest cosine; None where there is no vector of that size, such as of another model."""
    length = math.sqrt(sum(map(operator.mul, query, query)))
    scores = []
    for vector in vectors:
        if len(vector) == len(query):
            size = math.sqrt(sum(map(operator.mul, vector, vector)))
            scores.append(sum(map(operator.mul, query, vector)) / (length * size) if length and size else 0.0)
    return max(scores, default=None)


def _matches(condition: MatchCondition, namespace: Namespace) -> bool:
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", given) for wanted, given in zip(path, part, strict=True))


def _fits(value: Any, wanted: Any) -> bool:
    """As LangGraph's in-memory store compares: by operators, or part by part."""
    if isinstance(wanted, Mapping):
        if any(str(key).startswith("$") for key in wanted):
            return all(_compare(value, key, bound) for key, bound in wanted.items())
        return isinstance(value, Mapping) and all(_fits(value.get(key), part) for key, part in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(wanted) and all(map(_fits, value, wanted))
    return bool(value == wanted)


_ORDERS: Final = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


def _compare(value: Any, name: str, bound: Any) -> bool:
    if name == "$eq":
        return bool(value == bound)
    if name == "$ne":
        return bool(value != bound)
    order = _ORDERS.get(name)
    if order is None:
        raise ValueError(f"a filter knows $eq, $ne, $gt, $gte, $lt and $lte, not {name}")
    try:
        return bool(order(float(value), float(bound)))
    except (TypeError, ValueError):
        return False  # an item without that field, or with no number in it
