"""The forks of a stream, found in the log (S33)."""

from collections.abc import AsyncGenerator

import msgspec

from actors.journal import Forked
from events.envelope import RecordedEvent
from events.facts import FORKED
from events.ids import StreamId
from events.selection import Selection, Term
from events.store import LogReader
from runtime.past.merging import merged


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A fork. depth: 1 = of the stream itself, 2 = of one of its forks. version: after which version of `parent`. head: its newest.
    status: "live", "archived" or "erased". live, edited, correlation_id: None also where that is sealed and the key is not here, or gone.
    """

    depth: int
    stream: StreamId
    parent: str
    version: int
    head: int
    status: str
    branch: str | None
    live: bool | None
    edited: bool | None
    correlation_id: str | None


async def forks_of(reader: LogReader, stream: StreamId) -> AsyncGenerator[Branch, None]:
    """Every fork of `stream`, each followed by its own, in the order in which they were made: one look through the log."""
    children: dict[str, list[RecordedEvent]] = {}
    async for event in merged(reader, Selection(included=((Term(field="type", pattern=FORKED),),))):
        # From the envelope, which stays readable where the payload is sealed or erased.
        children.setdefault((event.parent or "").rpartition("@")[0], []).append(event)
    stack = [(1, child) for child in reversed(children.get(stream, []))]
    while stack:
        depth, child = stack.pop()
        fork, head = _said(child), await reader.head(child.stream)
        yield Branch(
            depth=depth, stream=child.stream, parent=(child.parent or "").rpartition("@")[0], version=int(child.version) - 1,
            head=int(child.version if head is None else head.version), status="live" if head is None else head.status,
            branch=child.branch, live=None if fork is None else fork.live, edited=None if fork is None else bool(fork.edit),
            correlation_id=None if fork is None else fork.correlation_id,
        )  # fmt: skip
        stack.extend((depth + 1, grandchild) for grandchild in reversed(children.get(child.stream, [])))


def _said(event: RecordedEvent) -> Forked | None:
    try:
        return msgspec.json.decode(event.payload, type=Forked)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
