"""What changed, and who changed it: `diff` and `blame`. Both fold recorded events: no effect happens, nothing is written."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_log, registry_of, state_view
from ops.commands.common import DEFAULTS, Common
from ops.commands.look import AppOption, Stream, note_view, print_stream, turn_record
from ops.event_lines import EventPrinter
from ops.exits import CommandError, Exit
from ops.output import print_json, print_record, print_rows, wants_json
from ops.settings import Settings
from ops.state_views import print_sides, print_tree

if TYPE_CHECKING:
    from actors.registry import Registry
    from runtime.past.causes import TurnNode
    from runtime.past.history import Blame, Change
    from runtime.past.states import StateView

Place = Annotated[str, Parameter(help="A VERSION, EVENT, duration ago or time; 0 = before the first event.")]
Form = Annotated[
    Literal["tree", "side", "patch"] | None, Parameter(name="--as", help="tree, side (by side), or patch: the bare JSON Patch.")
]


def diff(stream: Stream, v1: Place, v2: Place, *, as_: Form = None, app: AppOption = None, common: Common = DEFAULTS) -> None:
    """Show what changed in a state between two versions, as JSON Patch (RFC 6902).

    On a terminal a tree, or with --as side both states beside each other. Without the actor's code it shows the events in between.
    Example: cuebook diff buyer/bob 6 14
    """
    settings = common.load().settings
    registry = registry_of(settings, app)
    views = event_loop.run(_views(settings, registry, stream, v1, v2, EventPrinter(json=common.json)))
    if views is None:
        return
    from runtime.past.states import difference

    old, new = views
    found = difference(old, new)
    note_view(found)
    if as_ == "patch":
        print_json(found.patch)
    elif wants_json(common.json) and as_ is None:
        print_json({name: value for name, value in msgspec.structs.asdict(found).items() if name != "note"})
    elif as_ == "side":
        print_sides(old.state, new.state, (f"{stream} version {old.version}", f"version {new.version}"))
    else:
        print_tree(old.state, found.patch or [])


async def _views(
    settings: Settings, registry: "Registry | None", stream: str, v1: str, v2: str, printer: EventPrinter
) -> "tuple[StateView, StateView] | None":
    from events.ids import StreamId
    from runtime.past.history import version_at

    async with open_log(settings) as reader:
        name = StreamId(stream)
        old = await state_view(reader, registry, name, await version_at(reader, name, v1))
        new = await state_view(reader, registry, name, await version_at(reader, name, v2))
        if new.note is None:
            return old, new
        note_view(new)
        low, high = sorted((old.version, new.version))
        await print_stream(reader, stream, high, printer, after=low)
        return None


def blame(
    stream: Stream,
    pointer: Annotated[str, Parameter(help="What to ask about, as JSON pointer (RFC 6901): /findings/3/severity.")],
    *,
    at: Annotated[str | None, Parameter(help="The value as of this VERSION, EVENT, duration ago or time (default: now).")] = None,
    all_: Annotated[bool, Parameter(name="--all", help="Every event that ever changed it, oldest first.")] = False,
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> None:
    """Show which event set a value: the event, its command, its causes, and when.

    Example: cuebook blame buyer/bob /prices/tea
    """
    settings = common.load().settings
    registry = registry_of(settings, app)
    found, causes = event_loop.run(_blamed(settings, registry, stream, pointer, at, EventPrinter(json=common.json)))
    note_view(found)
    if found.note is not None:
        return
    if not found.changes:
        raise CommandError(
            f"no event set {pointer or 'the root'} of {stream}: it stands there from the beginning",
            next_step=f"cuebook state {stream} --at 0", code=Exit.NOT_FOUND,
        )  # fmt: skip
    changes = found.changes if all_ else found.changes[-1:]
    rows = [_record(change, causes[change.event.event_id]) for change in changes]
    if wants_json(common.json):
        for row in rows:
            print_json(row)
        return
    lines = [_line(change, causes[change.event.event_id]) for change in changes]
    if all_:
        print_rows(lines, json=False, columns=("time", "event", "version", "type", "old", "new"), title=f"{stream} {pointer}")
    else:
        print_record(lines[0], json=False)


async def _blamed(
    settings: Settings, registry: "Registry | None", stream: str, pointer: str, at: str | None, printer: EventPrinter
) -> "tuple[Blame, dict[str, list[TurnNode]]]":
    """The changes, and the turn of the last one with those above it, nearest first."""
    from events.ids import StreamId
    from runtime.past import history
    from runtime.past.causes import chain

    async with open_log(settings) as reader:
        name = StreamId(stream)
        version = None if at is None else await history.version_at(reader, name, at)
        found = await history.blame(reader, registry, name, pointer, at=version)
        if found.note is not None:
            await print_stream(reader, stream, found.version, printer)
        # The earlier ones are named without their causes: each is one more look through the log.
        causes: dict[str, list[TurnNode]] = {change.event.event_id: [] for change in found.changes}
        for change in found.changes[-1:]:
            causes[change.event.event_id] = await chain(reader, change.event)
        return found, causes


def _record(change: "Change", causes: "list[TurnNode]") -> dict[str, Any]:
    """The event in the one record shape, with what it did and, for the last one, why."""
    told = {name: value for name, value in msgspec.structs.asdict(change).items() if name != "event"}
    return {**msgspec.structs.asdict(change.event), **told, "turn": turn_record(causes[0]) if causes else None,
            "causes": [turn_record(node) for node in causes[1:]]}  # fmt: skip


def _line(change: "Change", causes: "list[TurnNode]") -> dict[str, Any]:
    from runtime.wire import iso_time

    event = change.event
    command = causes[0].method if causes else None
    return {
        "time": iso_time(event.recorded_at_us), "event": f"{event.shard}:{event.position}", "version": event.version, "type": event.type,
        "old": change.old, "new": "(gone)" if change.went else change.new,
        "command": command, "command_id": event.command_id, "sent by": event.sender or "client",
        "caused by": " < ".join(f"{node.stream} {node.method or node.command_id}" for node in causes[1:]) or None,
    }  # fmt: skip
