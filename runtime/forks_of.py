"""The forks of a stream, found in the log (S33)."""

from collections.abc import AsyncGenerator

import msgspec

from actors.journal import Forked
from events.facts import FORKED
from events.ids import StreamId
from events.selection import Selection, Term
from events.store import LogReader
from runtime.merging import merged


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A fork. depth: 1 = of the stream itself, 2 = of one of its forks. version: after which version of `parent`. head: its newest."""

    depth: int
    stream: StreamId
    parent: str
    version: int
    head: int
    branch: str
    live: bool
    edited: bool
    correlation_id: str | None


async def forks_of(reader: LogReader, stream: StreamId) -> AsyncGenerator[Branch, None]:
    """Every fork of `stream`, each followed by its own, in the order in which they were made: one look through the log."""
    children: dict[str, list[tuple[StreamId, Forked]]] = {}
    async for event in merged(reader, Selection(included=((Term(field="type", pattern=FORKED),),))):
        fork = msgspec.json.decode(event.payload, type=Forked)
        children.setdefault(fork.parent, []).append((event.stream, fork))
    stack = [(1, child) for child in reversed(children.get(stream, []))]
    while stack:
        depth, (child, fork) = stack.pop()
        head = await reader.head(child)
        yield Branch(
            depth=depth, stream=child, parent=fork.parent, version=fork.version, head=0 if head is None else int(head.version),
            branch=fork.branch, live=fork.live, edited=bool(fork.edit), correlation_id=fork.correlation_id,
        )  # fmt: skip
        stack.extend((depth + 1, grandchild) for grandchild in reversed(children.get(child, [])))
