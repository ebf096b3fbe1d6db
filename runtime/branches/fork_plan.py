"""What a fork takes along, worked out from the log alone (S33): of one stream, or of every stream of a conversation at one event.

A conversation is cut at the logical time of an event, which stands after all its causes (S30), so the cut holds no effect without its
cause. Every stream is forked at the last boundary before. A turn that is under way at the cut takes its journal along and goes on from
there, a reply that is on its way stands in that journal, and a tell that is on its way is delivered to the fork of its receiver.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from actors.errors import BadPayload, Unknown
from actors.journal import TURN_STARTED, Forked, Started
from actors.registry import Registry
from events.codec import encode
from events.envelope import GENESIS_HASH, Kind, RecordedEvent
from events.facts import FORKED
from events.ids import StreamId, is_token, parse_stream_id, stream_id
from events.selection import correlated
from events.store import LogReader
from runtime.branches.boundaries import boundary_after, boundary_before, require_boundary, version_at, window
from runtime.branches.forking import CopiedEvent, ForkArguments, RerunArguments
from runtime.past.inspection import find_event
from runtime.past.merging import merged
from runtime.past.states import state_at

_SHORT: Final = "short turns leave no arguments in the log"


class StreamFork(msgspec.Struct, frozen=True, kw_only=True):
    """One stream to make. answered: how many finished effects of the open turn it takes along."""

    stream: StreamId
    parent: StreamId
    version: int
    arguments: ForkArguments
    answered: int = 0


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """One command to run in a fork."""

    stream: StreamId
    arguments: RerunArguments


class ForkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """forks: all are made before anything runs. reruns: what is under way at the cut. later: commands from outside that came after it, each
    to be sent when the one before has ended. notes: what could not be taken along."""

    name: str
    forks: list[StreamFork]
    reruns: list[Rerun] = []
    later: list[Rerun] = []
    notes: list[str] = []


def child_of(parent: StreamId, name: str) -> StreamId:
    """The stream ``type/id-name``. Raises: BadPayload: that is no id."""
    type_name, key = parse_stream_id(parent)
    if not is_token(f"{key}-{name}"):
        raise BadPayload(f"{key}-{name} is no id: letters, digits, '-' and '_', at most 64", field="as")
    return stream_id(type_name, f"{key}-{name}")


async def plan_stream(
    reader: LogReader,
    registry: Registry | None,
    parent: StreamId,
    version: int,
    child: StreamId,
    *,
    edit: list[dict[str, Any]] | None = None,
    live: bool = False,
) -> StreamFork:
    """A fork of one stream after `version`.

    Raises:
        Unknown: there is no such version. BadPayload: no boundary, another type, the edit does not fit, or there is no code to fold with.
    """
    await require_boundary(reader, parent, version)
    return await plan_before(reader, registry, parent, version, child, branch=parse_stream_id(child)[1], edit=edit, live=live)


async def plan_before(
    reader: LogReader,
    registry: Registry | None,
    parent: StreamId,
    version: int,
    child: StreamId,
    *,
    branch: str,
    edit: list[dict[str, Any]] | None = None,
    live: bool = False,
    siblings: dict[str, str] | None = None,
    correlation: tuple[str, str] | None = None,
    journal: Sequence[CopiedEvent] = (),
    command_id: str | None = None,
) -> StreamFork:
    """A fork of `parent` after `version`, which is a boundary, or 0. Raises as `plan_stream`.

    Args:
        siblings: the forks that are made together. correlation: of the conversation that is forked, and of the fork's own events.
        journal: of the turn `command_id` that goes on.
    """
    if await reader.head(child) is not None:
        raise BadPayload(f"{child} exists already; choose another name", field="as")
    if version == 0:
        kind = None if registry is None else registry.types.get(parse_stream_id(parent)[0])
        state, hash_ = ({} if kind is None else msgspec.json.decode(kind.encode_state(kind.initial()))), GENESIS_HASH.hex()
    else:
        view = await state_at(reader, registry, parent, version)
        if view.note is not None:
            raise BadPayload(f"a fork needs the state of {parent}, and {view.note}", field="app")
        (last,) = await window(reader, parent, version, version)
        state, hash_ = view.state, last.hash
    first = await reader.read_stream(parent, after=0, limit=1)
    own = parse_stream_id(parent)[1]
    if first and first[0].type == FORKED:
        own = msgspec.json.decode(first[0].payload, type=Forked).id or own
    return StreamFork(
        stream=child,
        parent=parent,
        version=version,
        answered=sum(event.type.endswith((".completed", ".failed")) for event in journal),
        arguments=ForkArguments(
            fork=Forked(
                parent=parent, version=version, hash=hash_, state=msgspec.Raw(encode(patched(state, edit))), edit=edit, branch=branch,
                live=live, siblings=siblings or {}, correlation_id=None if correlation is None else correlation[0], id=own,
            ),
            events=list(journal),
            command_id=command_id,
            correlation_id=None if correlation is None else correlation[1],
        ),
    )  # fmt: skip


def patched(value: Any, patch: list[dict[str, Any]] | None) -> Any:
    """`value` after a JSON Patch (RFC 6902). Raises: BadPayload: the patch does not fit."""
    if not patch:
        return value
    import jsonpatch

    try:
        return jsonpatch.apply_patch(value, patch)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
        raise BadPayload(f"the edit does not fit: {error}", field="edit") from error


# -- a conversation -----------------------------------------------------------------------------------------------------------------------


class _Cut(msgspec.Struct, kw_only=True):
    """One stream at the cut: the boundary, and the journal of the turn that is under way there."""

    stream: StreamId
    child: StreamId
    version: int
    journal: list[RecordedEvent]
    started: Started | None = None


async def plan_conversation(
    reader: LogReader,
    registry: Registry | None,
    correlation_id: str,
    at: str,
    name: str,
    *,
    edit: list[dict[str, Any]] | None = None,
    live: bool = False,
    including: Sequence[StreamId] = (),
) -> ForkPlan:
    """A fork of every stream of `correlation_id`, and of those in `including`, at the event that `at` names.

    edit: a JSON Patch of the payload of that event if it stands in the journal of the turn that goes on (its beginning, with the arguments,
    or the result of an effect), else of the state of its stream.

    Raises:
        Unknown: there is no such conversation or event. BadPayload: as `plan_stream`, or the event is not of the conversation.
    """
    events = [event async for event in merged(reader, correlated(correlation_id))]
    if not events:
        raise Unknown(f"there is no conversation {correlation_id}", correlation_id=correlation_id)
    event = await find_event(reader, at)
    if event.correlation_id != correlation_id:
        raise BadPayload(f"event {event.event_id} belongs to another conversation ({event.correlation_id})", field="at")
    names = list(dict.fromkeys([*(found.stream for found in events), *including]))
    siblings = {str(stream): str(child_of(stream, name)) for stream in names}
    cuts = [await _cut(reader, correlation_id, StreamId(stream), StreamId(siblings[stream]), event) for stream in siblings]
    _take_replies(events, cuts)
    edited = edit is not None and any(event.event_id == copied.event_id for cut in cuts for copied in cut.journal)
    forks, reruns = [], []
    for cut in cuts:
        journal = [_copied(copied, edit if copied.event_id == event.event_id else None) for copied in cut.journal]
        forks.append(
            await plan_before(
                reader, registry, cut.stream, cut.version, cut.child, branch=name, live=live, siblings=siblings,
                edit=edit if cut.stream == event.stream and not edited else None, correlation=(correlation_id, name),
                journal=journal, command_id=None if cut.started is None else cut.started.command_id,
            )
        )  # fmt: skip
        if cut.started is not None:
            reruns.append(_open(cut, journal, siblings, name))
    reruns.sort(key=_asked_first(cuts))
    reruns.extend(_on_their_way(events, cuts, siblings, name))
    later, notes = _later(events, cuts, siblings, name)
    return ForkPlan(name=name, forks=forks, reruns=reruns, later=later, notes=notes)


async def _cut(reader: LogReader, correlation_id: str, stream: StreamId, child: StreamId, event: RecordedEvent) -> _Cut:
    newest = await version_at(reader, stream, event.time)
    version = await boundary_before(reader, stream, newest)
    under_way = await window(reader, stream, version + 1, newest)
    if not under_way:
        return _Cut(stream=stream, child=child, version=version, journal=[])
    first = next((entry for entry in under_way if entry.type == TURN_STARTED), None)
    if any(entry.kind is not Kind.STEP and entry.type not in (TURN_STARTED, "timer.fired") for entry in under_way):
        # In the middle of what one commit wrote: all of it, or none.
        after = await boundary_after(reader, stream, newest)
        if after is None or under_way[0].type.startswith("wait."):
            raise BadPayload(f"at that event {stream} is in a turn that has waited before; choose an event before or after it", field="at")
        return _Cut(stream=stream, child=child, version=after, journal=[])
    if first is None or first.correlation_id != correlation_id:
        return _Cut(stream=stream, child=child, version=version, journal=[])  # another conversation's turn: it is not carried over
    started = msgspec.json.decode(first.payload, type=Started)
    return _Cut(stream=stream, child=child, version=version, journal=under_way, started=started)


def _take_replies(events: Sequence[RecordedEvent], cuts: Sequence[_Cut]) -> None:
    """The replies that had left their actor at the cut and not yet reached the asker: asked again, the fork would do it twice."""
    versions = {cut.stream: cut.version for cut in cuts}
    ended = {event.command_id for event in events if event.version <= versions.get(event.stream, 0)}
    for cut in cuts:
        if cut.started is None:
            continue
        asked = {_use(entry): msgspec.json.decode(entry.payload)["command_id"] for entry in cut.journal if entry.type == "ask.started"}
        for entry in cut.journal:
            if entry.type.startswith("ask.") and entry.type != "ask.started":
                asked.pop(_use(entry), None)
        last = cut.journal[-1].version
        cut.journal += [
            event
            for event in events
            if event.stream == cut.stream and event.version > last and event.command_id == cut.started.command_id
            and event.type in ("ask.completed", "ask.failed") and asked.get(_use(event)) in ended
        ]  # fmt: skip


def _use(event: RecordedEvent) -> tuple[str, str | None, int]:
    payload = msgspec.json.decode(event.payload)
    return payload["name"], payload["key"], payload["n"]


def _copied(event: RecordedEvent, edit: list[dict[str, Any]] | None) -> CopiedEvent:
    payload = event.payload if edit is None else msgspec.Raw(encode(patched(msgspec.json.decode(event.payload), edit)))
    return CopiedEvent(
        type=event.type, kind=event.kind, schema_version=event.schema_version, payload=payload, summary=event.summary, error=event.error,
        duration_us=event.duration_us,
    )  # fmt: skip


def _open(cut: _Cut, journal: Sequence[CopiedEvent], siblings: dict[str, str], name: str) -> Rerun:
    """The turn that goes on, with its arguments as edited."""
    payload = next(event.payload for event in journal if event.type == TURN_STARTED)
    started = msgspec.json.decode(payload, type=Started)
    return Rerun(
        stream=cut.child,
        arguments=RerunArguments(
            command_id=started.command_id, method=started.command, arguments=started.arguments, running=True,
            sender=siblings.get(started.sender or "", started.sender), causation_id=cut.journal[0].causation_id, correlation_id=name,
        ),
    )  # fmt: skip


def _asked_first(cuts: Sequence[_Cut]) -> Callable[[Rerun], int]:
    """The order in which open turns go on: each before the one that waits for its reply. An ask that came first would begin it anew, and
    repeat what its journal holds."""
    askers = {
        msgspec.json.decode(entry.payload)["command_id"]: cut.started.command_id
        for cut in cuts
        if cut.started is not None
        for entry in cut.journal
        if entry.type == "ask.started"
    }

    def depth(rerun: Rerun) -> int:
        asked, command_id = 0, rerun.arguments.command_id
        while asked <= len(askers) and (asker := askers.get(command_id)) is not None:
            asked, command_id = asked + 1, asker
        return -asked

    return depth


def _inside(events: Sequence[RecordedEvent], cuts: Sequence[_Cut]) -> list[RecordedEvent]:
    """What of the conversation the forks have: before their boundaries, and in the journals that they take along."""
    versions = {cut.stream: cut.journal[-1].version if cut.journal else cut.version for cut in cuts}
    return [event for event in events if event.version <= versions.get(event.stream, 0)]


def _on_their_way(events: Sequence[RecordedEvent], cuts: Sequence[_Cut], siblings: dict[str, str], name: str) -> list[Rerun]:
    """Tells that were sent before the cut and whose turns began behind it."""
    inside = _inside(events, cuts)
    taken = {(event.stream, event.command_id) for event in inside}
    found = []
    for event in inside:
        if event.type != "message.sent":
            continue
        sent = msgspec.json.decode(event.payload)
        receiver = str(sent["receiver"])
        if receiver not in siblings or (receiver, sent["command_id"]) in taken or sent.get("held"):
            continue
        arguments = RerunArguments(
            command_id=sent["command_id"], method=sent["method"], arguments=msgspec.Raw(encode(sent["arguments"])),
            sender=siblings[event.stream], causation_id=event.event_id, correlation_id=name,
        )  # fmt: skip
        found.append(Rerun(stream=StreamId(siblings[receiver]), arguments=arguments))
    return found


def _later(events: Sequence[RecordedEvent], cuts: Sequence[_Cut], siblings: dict[str, str], name: str) -> tuple[list[Rerun], list[str]]:
    """Commands from outside that came after the cut, as far as the log holds their arguments."""
    before = {(event.stream, event.command_id) for event in _inside(events, cuts)}
    found: dict[tuple[str, str | None], Rerun | None] = {}
    for event in events:
        key = (event.stream, event.command_id)
        if key in before or event.sender is not None:
            continue
        found.setdefault(key, None)
        if event.type == TURN_STARTED:
            started = msgspec.json.decode(event.payload, type=Started)
            arguments = RerunArguments(
                command_id=started.command_id, method=started.command, arguments=started.arguments, correlation_id=name
            )
            found[key] = Rerun(stream=StreamId(siblings[event.stream]), arguments=arguments)
    lost = [f"{stream} command {command_id}" for (stream, command_id), rerun in found.items() if rerun is None]
    notes = [f"not sent again, since {_SHORT}: {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}"] if lost else []
    return [rerun for rerun in found.values() if rerun is not None], notes
