"""Verbs that fold recorded events again: no effect happens, nothing is written."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import is_up, open_client, open_log, registry_of, state_view
from ops.commands.common import DEFAULTS, Common
from ops.commands.final import Provisional, final_part, note_withheld
from ops.commands.look import AppOption, note_view, print_stream
from ops.event_lines import EventPrinter
from ops.exits import CommandError, Exit
from ops.output import print_record, print_rows, progress
from ops.settings import Settings

if TYPE_CHECKING:
    from actors.registry import Registry
    from events.store import LogReader
    from runtime.client import Client
    from runtime.past.inspection import AskLive, StateCheck
    from runtime.past.merging import Positions


def replay(
    stream: Annotated[str | None, Parameter(help="One stream as TYPE/ID (default: all).")] = None,
    /,
    *,
    to: Annotated[int | None, Parameter(help="The last version to fold; with a stream only.")] = None,
    step: Annotated[bool, Parameter(help="Event by event: by hand on a terminal, else each with its patch.")] = False,
    break_on: Annotated[
        str | None,
        Parameter(help="Stop, or print, where 'type=GLOB', '/pointer changed' or an expression like 'state.cents > 9' holds."),
    ] = None,
    verify: Annotated[bool, Parameter(help="Compare with recorded state hashes, snapshots and live states; exits 4.")] = False,
    provisional: Provisional = False,
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> int:
    """Fold recorded events again and show the states, or verify them.

    With --app the code of another version folds the same events. With
    --verify that is the gate of an upgrade: it names the first difference of
    each actor, and each open turn, which the new code will have to finish.
    Example: cuebook replay --verify --app ops.examples.errands:app
    Example: cuebook replay buyer/bob --break-on '/total changed'
    """
    if (step or break_on is not None) and (stream is None or verify):
        raise CommandError(
            "--step and --break-on go through one stream",
            why="none was named" if stream is None else "--verify compares whole streams",
            next_step="cuebook replay TYPE/ID --step",
            code=Exit.USAGE,
        )
    if to is not None and stream is None:
        raise CommandError(
            "--to needs a stream", why="versions count per stream", next_step="cuebook replay TYPE/ID --to V", code=Exit.USAGE
        )
    settings = common.load().settings
    registry = registry_of(settings, app)
    if stream is not None and (step or break_on is not None):
        from ops.commands.stepping import condition_of, run_steps

        return event_loop.run(run_steps(settings, registry, stream, to, condition_of(break_on), step=step, json=common.json))
    if verify:
        return event_loop.run(_verify(settings, registry, stream, to, gate=app is not None, json=common.json))
    event_loop.run(_replay(settings, registry, stream, to, provisional=provisional, json=common.json))
    return int(Exit.OK)


async def _replay(
    settings: Settings, registry: "Registry | None", stream: str | None, to: int | None, *, provisional: bool, json: bool
) -> None:
    from events.ids import StreamId
    from events.selection import EVERYTHING

    async with open_log(settings) as reader:
        if stream is not None:
            view = await state_view(reader, registry, StreamId(stream), to)
            note_view(view)
            if view.note is not None:
                await print_stream(reader, stream, view.version, EventPrinter(json=json))
                return
            print_record({name: value for name, value in msgspec.structs.asdict(view).items() if name != "note"}, json=json)
            return
        end = await final_part(settings, reader, provisional=provisional)
        checks = _checks(reader, registry, None, None, None, upto=None if end is None else end.positions)
        print_rows([_row(check) async for check in checks], json=json)
        await note_withheld(reader, end, EVERYTHING)


async def _verify(settings: Settings, registry: "Registry | None", stream: str | None, to: int | None, *, gate: bool, json: bool) -> int:
    rows: list[dict[str, object]] = []
    differences = unknown = 0
    async with open_log(settings) as reader:
        if is_up(settings):
            async with open_client(settings) as cue:
                checks = [check async for check in _checks(reader, registry, stream, to, live_states(cue), gate=gate)]
        else:
            progress(f"no deployment runs on {settings.data}: there is no live state to compare with")
            checks = [check async for check in _checks(reader, registry, stream, to, None, gate=gate)]
    for check in checks:
        rows.append(_row(check))
        unknown += check.note is not None
        differences += check.difference is not None
    print_rows(rows, json=json)
    for check in checks:
        if (found := check.difference) is not None:
            progress(f"{found.stream} version {found.version}: {found.what} expected {found.expected}, found {found.found}")
        for turn in check.open_turns:
            waits = f", waits for {', '.join(turn.waits)}" if turn.waits else ""
            verdict = "cannot go on" if turn.problem else "its method and arguments are known"
            progress(f"{check.stream} version {turn.version}: the turn {turn.method} ({turn.command_id}) is open{waits}: {verdict}")
    hashes = sum(check.hashes for check in checks)
    live = sum(check.live for check in checks)
    progress(
        f"{len(checks)} streams, {sum(check.events for check in checks):,} events folded; {hashes} state hashes, "
        f"{sum(check.snapshot for check in checks)} snapshots and {live} live states compared, "
        f"{sum(len(check.open_turns) for check in checks)} turns open: {differences} differ"
        + (f"; {unknown} streams have no code here" if unknown else "")
    )
    if unknown and unknown == len(checks) and not differences:
        raise CommandError(
            "nothing could be verified",
            why="no code for these streams",
            next_step="cuebook replay --verify --app MODULE:OBJECT",
            code=Exit.USAGE,
        )
    return int(Exit.VERIFICATION_FAILED if differences else Exit.OK)


async def _checks(
    reader: "LogReader",
    registry: "Registry | None",
    stream: str | None,
    to: int | None,
    live: "AskLive | None",
    *,
    gate: bool = False,
    upto: "Positions | None" = None,
) -> AsyncIterator["StateCheck"]:
    from events.ids import StreamId
    from runtime.past.inspection import verify_state, verify_states

    if stream is not None:
        yield await verify_state(reader, registry, StreamId(stream), live, to=to, gate=gate)
        return
    async for check in verify_states(reader, registry, live, gate=gate, upto=upto):
        yield check


def _row(check: "StateCheck") -> dict[str, object]:
    return msgspec.structs.asdict(check)


def live_states(cue: "Client") -> "AskLive":
    """Asks actors for version and hash of their committed state, over the reserved query ``_state``; a worker without it says nothing."""
    from actors.errors import BadPayload, Unknown
    from events.ids import StreamId
    from runtime.past.inspection import LiveState

    async def live(stream: StreamId) -> LiveState | None:
        try:
            return msgspec.json.decode(await cue.ask(stream, "_state", {}, 30.0, None), type=LiveState)
        except (BadPayload, Unknown):
            return None

    return live
