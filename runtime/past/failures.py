"""What failed and why: from a recorded failure down to where it began, and up to who wanted it. Reads recorded edges, guesses nothing."""

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.journal import TURN_ENDS
from events.envelope import RecordedEvent
from events.ids import StreamId
from events.selection import correlated
from events.store import LogReader
from runtime.past.causes import TurnNode, above, cause_tree, flat, payload_of
from runtime.past.merging import merged

_TurnKey = tuple[str, str]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One failed event. because: the failures that led to it, the one where it began last; turns: its own, then those that led to it."""

    event: RecordedEvent
    reason: str
    because: list[RecordedEvent]
    turns: list[TurnNode]


async def explain(reader: LogReader, failed: Sequence[RecordedEvent]) -> list[Failure]:
    """Each of `failed` with its reasons and causes: one look through the log for all their conversations together."""
    ids = sorted({event.correlation_id for event in failed if event.correlation_id is not None})
    events = [event async for event in merged(reader, correlated(*ids))] if ids else []
    known = {event.event_id for event in events}
    events += [event for event in failed if event.event_id not in known]
    nodes: dict[tuple[StreamId, str], TurnNode] = {}
    conversations: dict[str | None, list[RecordedEvent]] = {}
    for event in events:
        conversations.setdefault(event.correlation_id, []).append(event)
    for conversation in conversations.values():
        nodes |= {(node.stream, node.command_id): node for _, node in flat(await cause_tree(reader, conversation))}
    turns: dict[_TurnKey, list[RecordedEvent]] = {}
    for event in events:
        turns.setdefault((event.stream, event.command_id or ""), []).append(event)
    found = []
    for event in failed:
        node = nodes[event.stream, event.command_id or ""]
        found.append(Failure(event=event, reason=reason(event), because=_because(turns, event), turns=[node, *above(nodes, node)]))
    return found


def reason(event: RecordedEvent) -> str:
    """What a failed event says of itself: the class of the error where it is known, and the message."""
    payload = payload_of(event)
    message = str(payload.get("message") or payload.get("reason") or event.error or "")
    kind = payload.get("type") or payload.get("error")
    return f"{kind}: {message}" if isinstance(kind, str) and kind else message


def _because(turns: dict[_TurnKey, list[RecordedEvent]], event: RecordedEvent) -> list[RecordedEvent]:
    path: list[RecordedEvent] = []
    # Each is earlier than the one before it, so this ends.
    while (below := _below(turns, event)) is not None and below.time < event.time:
        path.append(below)
        event = below
    return path


def _below(turns: dict[_TurnKey, list[RecordedEvent]], event: RecordedEvent) -> RecordedEvent | None:
    own = turns.get((event.stream, event.command_id or ""), [])
    if event.type in TURN_ENDS:
        inside = [each for each in own if each.error is not None and each.type not in TURN_ENDS and each.version < event.version]
        # A handler may have caught an earlier failure and ended for another reason: only one that the end speaks of led to it.
        said = event.error or ""
        return next((each for each in reversed(inside) if each.error and (each.error in said or said in each.error)), None)
    if event.type != "ask.failed":
        return None
    asked = next((each for each in reversed(own) if each.type == "ask.started" and _use(each) == _use(event)), None)
    if asked is None:
        return None
    sent = payload_of(asked)
    answered = turns.get((str(sent.get("receiver")), str(sent.get("command_id"))), [])
    return next((each for each in reversed(answered) if each.type in TURN_ENDS and each.error is not None), None)


def _use(event: RecordedEvent) -> tuple[Any, Any, Any]:
    payload = payload_of(event)
    return payload.get("name"), payload.get("key"), payload.get("n")
