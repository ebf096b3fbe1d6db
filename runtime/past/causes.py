"""Who caused what: the turns of one correlation as a tree. Edges are read from the log, never guessed.

A turn is known by (stream, command id). Its parent is the turn whose command id is its causation id; a turn that left no event (a query, or
one that only sent) is not in the log, so its children stand at the top with their cause named.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from actors.journal import TURN_ENDS, TURN_STARTED
from events.envelope import RecordedEvent
from events.ids import CommandId, EventId, StreamId
from events.selection import correlated
from events.store import LogReader
from runtime.past.merging import Positions, merged


class TurnNode(msgspec.Struct, kw_only=True):
    """One turn. method: as its own ``turn.started`` says, or the event of its being sent, or the inbox, which forgets (S24); status: the
    inbox only.

    parent: (stream, command id) of the turn that caused it, None at the top; cause: its causation id as recorded.
    """

    stream: StreamId
    command_id: str
    method: str | None
    status: str | None
    sender: str | None
    cause: str | None
    parent: tuple[StreamId, str] | None
    time: int
    duration_us: int
    error: str | None
    positions: list[str]
    children: list["TurnNode"]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """All events of a correlation in merged order, and the turns at the top of its cause tree."""

    correlation_id: str
    events: list[RecordedEvent]
    roots: list[TurnNode]


async def trace(reader: LogReader, correlation_id: str, *, upto: Positions | None = None) -> Trace:
    """Everything that has `correlation_id`, up to `upto`: one look through the whole log, which has no index by it."""
    events = [event async for event in merged(reader, correlated(correlation_id), upto=upto)]
    return Trace(correlation_id=correlation_id, events=events, roots=await cause_tree(reader, events))


async def relatives(reader: LogReader, event: RecordedEvent) -> tuple[list[TurnNode], list[TurnNode]]:
    """The turns above the turn of `event`, nearest first, and those directly below it."""
    if event.correlation_id is None:
        return [], []
    found = await trace(reader, event.correlation_id)
    nodes = {(node.stream, node.command_id): node for _, node in flat(found.roots)}
    node = nodes[event.stream, event.command_id or ""]
    return above(nodes, node), node.children


async def chain(reader: LogReader, event: RecordedEvent) -> list[TurnNode]:
    """The turn of `event`, then the turns that led to it, nearest first."""
    if event.correlation_id is None:
        return list(turn_nodes([event]).values())
    found = await trace(reader, event.correlation_id)
    nodes = {(node.stream, node.command_id): node for _, node in flat(found.roots)}
    node = nodes[event.stream, event.command_id or ""]
    return [node, *above(nodes, node)]


def above(nodes: Mapping[tuple[StreamId, str], TurnNode], node: TurnNode) -> list[TurnNode]:
    """The turns that led to `node`, nearest first."""
    found: list[TurnNode] = []
    while node.parent is not None:
        node = nodes[node.parent]
        found.append(node)
    return found


async def cause_tree(reader: LogReader, events: Sequence[RecordedEvent]) -> list[TurnNode]:
    """The turns of `events`, given in merged order, linked by their causes; the ones without a known cause are returned."""
    nodes = turn_nodes(events)
    owners = {event.event_id: (event.stream, event.command_id or "") for event in events}
    by_command: dict[str, list[TurnNode]] = {}
    for node in nodes.values():
        by_command.setdefault(node.command_id, []).append(node)
        entry = await reader.inbox(node.stream, CommandId(node.command_id))
        if entry is not None:
            node.method, node.status = entry.method, entry.status.value
    roots: list[TurnNode] = []
    for node in nodes.values():
        causes = by_command.get(node.cause or "", [])
        if (owner := owners.get(EventId(node.cause or ""))) is not None:
            causes = [nodes[owner]]
        # A cause is earlier (S30), so the links never form a ring, whatever ids a client chose.
        earlier = [cause for cause in causes if cause.time < node.time]
        parent = next((cause for cause in earlier if cause.stream == node.sender), earlier[0] if earlier else None)
        if parent is None:
            roots.append(node)
        else:
            node.parent = (parent.stream, parent.command_id)
            parent.children.append(node)
    return roots


def turn_nodes(events: Sequence[RecordedEvent]) -> dict[tuple[StreamId, str], TurnNode]:
    """One node per turn, in order of their first events, not yet linked."""
    nodes: dict[tuple[StreamId, str], TurnNode] = {}
    sent: dict[tuple[str, str], Any] = {}
    for event in events:
        key = (event.stream, event.command_id or "")
        node = nodes.get(key)
        if node is None:
            node = nodes[key] = TurnNode(
                stream=event.stream, command_id=key[1], method=None, status=None, sender=event.sender, cause=event.causation_id,
                parent=None, time=event.time, duration_us=0, error=None, positions=[], children=[],
            )  # fmt: skip
        node.positions.append(f"{event.shard}:{event.position}")
        node.duration_us = max(node.duration_us, event.time - node.time)
        if event.type == TURN_STARTED:
            node.method = payload_of(event).get("command")
        elif event.type in ("ask.started", "message.sent"):
            said = payload_of(event)
            sent[str(said.get("receiver")), str(said.get("command_id"))] = said.get("method")
        if event.type in TURN_ENDS:
            node.error = event.error
    for key, node in nodes.items():
        node.method = node.method or sent.get(key)
    return nodes


def flat(roots: Sequence[TurnNode], depth: int = 0) -> list[tuple[int, TurnNode]]:
    """(depth, node) of every turn, parents before children."""
    found: list[tuple[int, TurnNode]] = []
    stack = [(depth, node) for node in reversed(roots)]
    while stack:
        at, node = stack.pop()
        found.append((at, node))
        stack.extend((at + 1, child) for child in reversed(node.children))
    return found


def payload_of(event: RecordedEvent) -> dict[str, Any]:
    """The payload of an event of ours; empty where it is sealed, erased or damaged."""
    try:
        return msgspec.json.decode(event.payload, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
