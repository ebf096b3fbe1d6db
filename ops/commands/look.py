"""Verbs that show what is recorded. All but a following `tail` work on the files, with no server running."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import KEYS_HINT, is_up, open_client, open_log, registry_of, state_view
from ops.commands.common import DEFAULTS, Common
from ops.commands.final import Provisional, final_part, note_withheld
from ops.event_lines import KEY_NOT_HERE, EventPrinter, note_sealed
from ops.exits import CommandError, Exit
from ops.output import print_record, print_rows, progress, wants_json
from ops.settings import Settings

if TYPE_CHECKING:
    from events.selection import Selection
    from events.store import LogReader
    from runtime.past.causes import TurnNode
    from runtime.past.history import Blame, Step
    from runtime.past.states import DiffView, StateView

Term = Annotated[
    str,
    Parameter(
        help="Terms such as type:account.* -kind:step actor:account/42 error:true corr:ID after:5m, or words.", allow_leading_hyphen=True
    ),
]
Stream = Annotated[str, Parameter(help="The stream as TYPE/ID.")]
AppOption = Annotated[str | None, Parameter(help="MODULE:OBJECT whose code folds states (default: the deployment's own app).")]


def log(
    *terms: Term,
    n: Annotated[int, Parameter(name=("-n", "--count"), help="How many of the newest; 0 = all, oldest first.")] = 50,
    error: Annotated[bool, Parameter(help="Failures only, each with why it failed and what led to it.")] = False,
    provisional: Provisional = False,
    common: Common = DEFAULTS,
) -> None:
    """Show recorded events, the newest 50 unless told otherwise.

    Of a running deployment those whose order is final: --provisional for all.
    Example: cuebook log actor:buyer/bob -type:step.* after:2000-01-01 -n 0
    """
    from runtime.past.merging import last, merged

    wanted = _filter((*terms, "error:true") if error else terms)
    settings, printer = common.load().settings, EventPrinter(json=common.json)
    if error:
        event_loop.run(_failures(settings, wanted, n, printer, provisional=provisional))
        return

    async def main() -> None:
        async with open_log(settings) as reader:
            end = await final_part(settings, reader, provisional=provisional)
            upto = None if end is None else end.positions
            if n > 0:
                for event in await last(reader, wanted, n, upto=upto):
                    printer.print(event)
            else:
                async with aclosing(merged(reader, wanted, upto=upto)) as events:
                    async for event in events:
                        printer.print(event)
            await note_withheld(reader, end, wanted)

    event_loop.run(main())


async def _failures(settings: Settings, wanted: "Selection", n: int, printer: EventPrinter, *, provisional: bool) -> None:
    from runtime.past.failures import explain
    from runtime.past.merging import last, merged

    async with open_log(settings) as reader:
        end = await final_part(settings, reader, provisional=provisional)
        upto = None if end is None else end.positions
        failed = await last(reader, wanted, n, upto=upto) if n > 0 else [event async for event in merged(reader, wanted, upto=upto)]
        for failure in await explain(reader, failed):
            printer.print_failure(failure)
        await note_withheld(reader, end, wanted)


def tail(
    *terms: Term,
    from_: Annotated[str | None, Parameter(name="--from", help="Begin at 5m (ago), start, or SHARD:POSITION (default: now).")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Follow events as they happen; survives restarts of server and workers.

    Example: cuebook tail type:errand.* --from start
    """
    from runtime.past.filters import filter_text

    settings = common.load().settings
    wanted = _filter(terms)
    printer = EventPrinter(json=common.json)
    if not is_up(settings):
        event_loop.run(_recorded(settings, wanted, from_, printer))
        progress(f"no deployment runs on {settings.data}: this is the end of its log")
        return

    async def main() -> None:
        async with open_client(settings) as cue:
            positions, since_us = await _start(cue.log, from_)
            # As times, not durations: they mean the time of the call, however long this follows.
            shown = filter_text(_since(wanted, since_us))
            async with aclosing(cue.follow(positions, filter=shown, on_gap=progress)) as events:
                async for event in events:
                    printer.print(event)

    event_loop.run(main())


async def _recorded(settings: Settings, wanted: "Selection", from_: str | None, printer: EventPrinter) -> None:
    """What `tail` prints where nothing runs: what is there already, from the place asked for."""
    from runtime.past.merging import last, merged

    async with open_log(settings) as reader:
        if from_ is None:
            for event in await last(reader, wanted):
                printer.print(event)
            return

        async def ask(operation: str, **arguments: Any) -> Any:
            from runtime.past.log_service import LogService

            return msgspec.json.decode(await LogService(reader, None).handle(operation, msgspec.json.encode(arguments)))

        positions, since_us = await _start(ask, from_)
        async with aclosing(merged(reader, _since(wanted, since_us), after=positions)) as events:
            async for event in events:
                printer.print(event)


def _since(wanted: "Selection", since_us: int | None) -> "Selection":
    return wanted if since_us is None else msgspec.structs.replace(wanted, after_us=max(since_us, wanted.after_us or since_us))


async def _start(ask: Any, from_: str | None) -> tuple[dict[int, int], int | None]:
    """Where --from begins: positions, and a time before which nothing is meant.

    A position begins there in its own shard, and at the same time in the others.
    """
    if from_ is None:
        found = await ask("head")
        return {int(shard): position for shard, position in found["positions"].items()}, None
    if from_ == "start":
        return {}, None
    shard, colon, position = from_.partition(":")
    if colon and shard.isdecimal() and position.isdecimal():
        page = await ask("read", shard=int(shard), after=max(0, int(position) - 1), limit=1)
        if not page["events"]:
            raise CommandError(f"there is no event at {from_} yet", next_step="cuebook log -n 5", code=Exit.NOT_FOUND)
        return {int(shard): int(position) - 1}, page["events"][0]["time"]
    return {}, _moment(from_)


def streams(*, common: Common = DEFAULTS) -> None:
    """List the streams: one per actor that has recorded anything.

    Example: cuebook streams
    """
    from runtime.past.inspection import streams as all_streams

    settings = common.load().settings

    async def main() -> list[dict[str, object]]:
        async with open_log(settings) as reader:
            return [msgspec.structs.asdict(info) async for info in all_streams(reader)]

    print_rows(event_loop.run(main()), json=common.json)


def show(
    event: Annotated[str, Parameter(help="An event id, the beginning of one, or SHARD:POSITION.")],
    *,
    state: Annotated[bool, Parameter(help="With the state after it.")] = False,
    patch: Annotated[bool, Parameter(help="With what it changed, as JSON Patch.")] = False,
    causes: Annotated[bool, Parameter(help="With the turns that led to it.")] = False,
    effects: Annotated[bool, Parameter(help="With the turns that its turn caused.")] = False,
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> None:
    """Show one event, with its state, its patch, its causes and effects if asked.

    Example: cuebook show 3:6 --patch --effects
    """
    from runtime.past.causes import relatives
    from runtime.past.inspection import find_event
    from runtime.past.states import difference

    settings = common.load().settings
    registry = registry_of(settings, app) if state or patch else None

    async def main() -> tuple[dict[str, object], bytes]:
        async with open_log(settings) as reader:
            found = await find_event(reader, event)
            note_sealed(found)
            shown: dict[str, object] = msgspec.structs.asdict(found)
            if state or patch:
                view = await state_view(reader, registry, found.stream, found.version)
                note_view(view)
                shown |= {"state": view.state} if state else {}
                if patch:
                    before = await state_view(reader, registry, found.stream, found.version - 1)
                    shown["patch"] = difference(before, view).patch
            if causes or effects:
                above, below = await relatives(reader, found)
                shown |= {"causes": [turn_record(node) for node in above]} if causes else {}
                shown |= {"effects": [turn_record(node) for node in below]} if effects else {}
            return shown, bytes(found.payload)

    record, payload = event_loop.run(main())
    if not wants_json(common.json):
        record["payload"] = msgspec.json.decode(payload)
    print_record(record, json=common.json)


def state(
    stream: Stream,
    *,
    at: Annotated[str | None, Parameter(help="After which VERSION, EVENT, duration ago or time (default: the newest).")] = None,
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> None:
    """Show the state of an actor, now or after any version of its past.

    Without the actor's code it shows the events instead, and says so. Where the code is not the one that recorded the events, it says
    from which version on.
    Example: cuebook state buyer/bob --at 6
    """
    from events.ids import StreamId
    from runtime.past.history import version_at

    settings = common.load().settings
    registry = registry_of(settings, app)
    printer = EventPrinter(json=common.json)

    async def main() -> dict[str, object] | None:
        async with open_log(settings) as reader:
            name = StreamId(stream)
            view = await state_view(reader, registry, name, None if at is None else await version_at(reader, name, at))
            note_view(view)
            if view.note is None:
                return {field: value for field, value in msgspec.structs.asdict(view).items() if field != "note"}
            await print_stream(reader, stream, view.version, printer)
            return None

    record = event_loop.run(main())
    if record is not None:
        print_record(record, json=common.json)


async def print_stream(reader: "LogReader", stream: str, to: int, printer: EventPrinter, *, after: int = 0) -> None:
    """The events of a stream with after < version <= to."""
    from events.ids import StreamId
    from runtime.branches.lineage import read_lineage

    version = after
    name = StreamId(stream)
    while version < to and (page := await read_lineage(reader, name, after=version, limit=min(1_000, to - version))):
        for event in page:
            printer.print(event)
        version = page[-1].version


def turn_record(node: "TurnNode") -> dict[str, object]:
    """A turn without the turns below it."""
    return {name: value for name, value in msgspec.structs.asdict(node).items() if name != "children"}


def note_view(view: "StateView | DiffView | Blame | Step") -> None:
    """Say on stderr why there is no state, or where the code parts from what was recorded (S32, S34)."""
    note: str | None = getattr(view, "note", None)
    if note is not None:
        hint = KEYS_HINT if note.endswith(KEY_NOT_HERE) else "--app MODULE:OBJECT names the code"
        progress(f"note: {note} ({hint})")
    if view.mismatch is not None:
        progress(f"note: {view.mismatch}; `cuebook replay --verify` compares the whole log")


def _text(terms: tuple[str, ...]) -> str:
    """The words of the command line as one filter: a word with blanks came in quotes and gets them back."""
    import shlex

    return " ".join(shlex.quote(term) if " " in term and '"' not in term else term for term in terms)


def _filter(terms: tuple[str, ...]) -> "Selection":
    from actors.errors import BadPayload
    from events.clock import SystemClock
    from runtime.past.filters import parse_filter

    try:
        return parse_filter(_text(terms), now_us=SystemClock().wall_us())
    except BadPayload as error:
        raise CommandError(error.message, next_step="for example: type:account.* -kind:step after:5m", code=Exit.USAGE) from error


def _moment(text: str) -> int:
    from actors.errors import BadPayload
    from events.clock import SystemClock
    from runtime.past.filters import moment_us

    try:
        return moment_us(text, SystemClock().wall_us())
    except BadPayload as error:
        raise CommandError(error.message, next_step="--from 5m, start or SHARD:POSITION", code=Exit.USAGE) from error
