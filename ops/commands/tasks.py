"""Runs from the command line: what a person wants done, from its start to its end. `ls` and `show` work with no server running."""

import secrets
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_client, open_log, seconds
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import cell, print_json, print_record, print_rows, progress, wants_json
from ops.people import KEY_FILE, read_key
from ops.settings import Settings

if TYPE_CHECKING:
    from actors.tasks.records import View
    from events.store import LogReader
    from runtime.client import Client

_NEWS: Final = frozenset({"task.proposed", "task.clarification_asked", "task.question_asked", "task.ended"})
"""Events after which a run may need a person, or has ended."""
_LINE: Final = 100

Run = Annotated[str, Parameter(help="The run's id.")]
Key = Annotated[
    str | None, Parameter(help="Where your key is, env:NAME or file:PATH (default: the key of this deployment's operator).")
]
Wait = Annotated[bool, Parameter(help="Return when the run needs a person or has ended.")]
Words = Annotated[str, Parameter(allow_leading_hyphen=True)]
Version = Annotated[int | None, Parameter(help="The version that is meant (default: the newest).")]


def start(
    goal: Annotated[str, Parameter(help="What you want done, in your own words.", allow_leading_hyphen=True)],
    /,
    *,
    id: Annotated[str | None, Parameter(help="The run's id (default: made up).")] = None,
    workspace: Annotated[Path | None, Parameter(help="The folder to work in; a checkpoint of it is made first.")] = None,
    plan: Annotated[str | None, Parameter(help="The plan as JSON or @FILE (default: the planner makes one).")] = None,
    planner: Annotated[str, Parameter(help="The agent that plans (default: the router, which picks one agent by your words).")] = "",
    decider: Annotated[
        tuple[str, ...], Parameter(help="Who decides: starter, operator, a name or role:NAME of the settings; may be repeated.")
    ] = (),
    within: Annotated[str, Parameter(help="How long a proposal, or a question, can be decided: 30s, 5m, 12h.")] = "5m",
    approved: Annotated[bool, Parameter(help="Carry out the first plan without asking.")] = False,
    wait: Wait = False,
    key: Key = None,
    common: Common = DEFAULTS,
) -> None:
    """Start a run: agents plan it, you decide, they do it.

    The deployment must have agents: cuebook up --app ops.team_app:app.
    Example: cuebook task start "check the code and the tests" --id t1 --workspace .
    """
    settings = common.load().settings
    run = id or f"t-{secrets.token_hex(4)}"
    arguments: dict[str, Any] = {
        "goal": goal, "planner": planner, "root": "" if workspace is None else str(Path.cwd() / workspace), "needs_approval": not approved,
        "approval_s": seconds(within),
    }  # fmt: skip
    if plan is not None:
        arguments["plan"] = _json(plan)
    if decider:
        arguments["deciders"] = list(decider)
    _told(settings, run, "start", arguments, key, common, wait=wait)


def ls(
    *,
    number: Annotated[int, Parameter(name=["--number", "-n"], help="How many, the newest first; 0 = all.")] = 20,
    common: Common = DEFAULTS,
) -> None:
    """List the runs: where each stands, and what it waits for.

    Example: cuebook task ls
    """
    settings = common.load().settings

    async def main() -> list[dict[str, Any]]:
        async with open_log(settings) as reader:
            return await _runs(settings, reader, number)

    rows = event_loop.run(main())
    print_rows(rows, json=common.json, columns=("run", "phase", "paused", "waits_for", "goal", "changed_at"))
    if not rows:
        progress('no run was ever started here; next: cuebook task start "WHAT YOU WANT"')


def show(run: Run, /, *, wait: Wait = False, common: Common = DEFAULTS) -> None:
    """Show a run: its steps, what it asks, and the commands that answer.

    Example: cuebook task show t1
    """
    settings = common.load().settings
    if wait:
        event_loop.run(_until_news(settings, run))
    _show(settings, run, common)


def approve(run: Run, /, *, version: Version = None, key: Key = None, common: Common = DEFAULTS) -> None:
    """Approve what a run proposes; its agents begin.

    Example: cuebook task approve t1
    """
    _decided(run, "approved", "", version, key, common)


def reject(run: Run, /, *, version: Version = None, key: Key = None, common: Common = DEFAULTS) -> None:
    """Reject what a run proposes; it ends, and nothing was done.

    Example: cuebook task reject t1
    """
    _decided(run, "rejected", "", version, key, common)


def modify(run: Run, change: Words, /, *, version: Version = None, key: Key = None, common: Common = DEFAULTS) -> None:
    """Have another version of the proposal made; the former ones are kept.

    Example: cuebook task modify t1 "only the tests, please"
    """
    _decided(run, "modified", change, version, key, common)


def say(run: Run, words: Words, /, *, key: Key = None, common: Common = DEFAULTS) -> None:
    """Decide in your own words, German or English; what is no clear yes asks back.

    Where an agent has asked something, and no proposal waits, it is the answer. Example: cuebook task say t1 "Ja, passt"
    """
    _told(common.load().settings, run, "say", {"text": words}, key, common)


def answer(
    run: Run, words: Words, /, *, number: Annotated[int | None, Parameter(help="Which question (default: the oldest).")] = None,
    key: Key = None, common: Common = DEFAULTS,
) -> None:  # fmt: skip
    """Answer a question of an agent; its step begins anew with the answer.

    Example: cuebook task answer t1 "the login page"
    """
    _told(common.load().settings, run, "answer", {"text": words, "number": number}, key, common)


def pause(run: Run, reason: Words = "", /, *, key: Key = None, common: Common = DEFAULTS) -> None:
    """Let no further step of a run begin; what is under way goes on to its end.

    Example: cuebook task pause t1 "lunch"
    """
    _told(common.load().settings, run, "pause", {"reason": reason}, key, common)


def resume(run: Run, instructions: Words = "", /, *, key: Key = None, common: Common = DEFAULTS) -> None:
    """Let a paused run go on, with further instructions for every step that begins from here on.

    Example: cuebook task resume t1 "write the comments in German"
    """
    _told(common.load().settings, run, "resume", {"instructions": instructions}, key, common)


def stop(
    run: Run, reason: Words = "stopped", /, *,
    rollback: Annotated[bool, Parameter(help="Bring the workspace back to what it was at the start, byte for byte.")] = False,
    wait: Annotated[bool, Parameter(help="Return when it has ended: a rollback first lets every agent come to rest.")] = False,
    key: Key = None, common: Common = DEFAULTS,
) -> None:  # fmt: skip
    """End a run now, with whatever its agents do; with --rollback as if it had never been.

    Example: cuebook task stop t1 --rollback
    """
    _told(common.load().settings, run, "stop", {"reason": reason, "rollback": rollback}, key, common, wait=wait)


# -- to the run ----------------------------------------------------------------------------------------------------------------------


def session_of(settings: Settings, key: str | None) -> str:
    """What proves who speaks: the key that is named, else that of the deployment's operator.

    Raises:
        CommandError: USAGE, there is none.
    """
    if key is not None:
        return read_key(key, whose="whoever runs this command")
    path = Path(settings.data) / KEY_FILE
    if not path.is_file():
        raise CommandError(
            "who are you?", why=f"the operator's key is not in {settings.data}", next_step="name yours: --key env:NAME or --key file:PATH",
            code=Exit.USAGE,
        )  # fmt: skip
    return read_key(f"file:{path}", whose="the operator")


def _decided(run: str, verdict: str, feedback: str, version: int | None, key: str | None, common: Common) -> None:
    """A decision names a version, so that one which comes in between is not decided unseen."""
    settings = common.load().settings
    if version is None:
        version = event_loop.run(_asked(settings, run, "status", {}))["version"]
    _told(settings, run, "decide", {"version": version, "verdict": verdict, "feedback": feedback}, key, common)


def _told(
    settings: Settings, run: str, method: str, arguments: dict[str, Any], key: str | None, common: Common, *, wait: bool = False
) -> None:
    """Tell the run, and show how it stands then; what it asks back goes to the person."""
    session = session_of(settings, key)
    reply = event_loop.run(_asked(settings, run, method, {"session": session, **arguments}))
    if wait:
        event_loop.run(_until_news(settings, run, only="task.ended" if method == "stop" else None))
        _show(settings, run, common)
        return
    if wants_json(common.json):
        print_json({"run": run, **reply})
        return
    known = {name: reply[name] for name in ("verdict", "phase", "paused", "outcome", "reason", "version", "question") if reply.get(name)}
    print_record({"run": run, **known}, json=False)
    if reply["phase"] != "ended":
        progress(f"next: cuebook task show {run}")


async def _asked(settings: Settings, run: str, method: str, arguments: dict[str, Any]) -> Any:
    from actors.errors import Rejected, Unknown

    async with open_client(settings) as cue:
        try:
            return await _ref(cue, run).ask(method, **arguments)
        except Rejected as error:
            if error.fields.get("reason") == "no_run":
                raise _no_run(run) from error
            raise
        except Unknown as error:
            step = "cuebook up --app ops.team_app:app"
            raise CommandError("the deployment that runs has no runs", why=error.message, next_step=step, code=Exit.NOT_FOUND) from error


def _no_run(run: str) -> CommandError:
    return CommandError(f"there is no run {run}", next_step="cuebook task ls", code=Exit.NOT_FOUND)


def _ref(cue: "Client", run: str) -> Any:
    try:
        return cue.ref("task", run)
    except ValueError as error:
        raise CommandError(str(error), next_step="for example t1", code=Exit.USAGE) from error


async def _until_news(settings: Settings, run: str, *, only: str | None = None) -> None:
    """Until the run needs a person or has ended; only: until it has come to this event."""
    if (await _asked(settings, run, "status", {}))["phase"] == "new":
        raise _no_run(run)
    async with open_client(settings) as cue, aclosing(cue.events(f"task/{run}", after=0, on_gap=progress)) as events:
        async for event in events:
            if event.type not in ({only} if only else _NEWS):
                continue
            status = await _ref(cue, run).ask("status")
            if status["phase"] == "ended" or (only is None and (status["phase"] == "awaiting_approval" or status["questions"])):
                return


# -- from the log --------------------------------------------------------------------------------------------------------------------


def _show(settings: Settings, run: str, common: Common) -> None:
    view, waits = event_loop.run(_standing(settings, run))
    shown = msgspec.to_builtins(view)
    if wants_json(common.json):
        print_json({"run": run, **shown, "waits": waits})
        return
    known = ("goal", "phase", "paused", "outcome", "reason", "version", "deciders", "instructions", "files", "issues", "restored")
    print_record({"run": run, **{name: shown[name] for name in known if shown[name] not in (None, "", [], False, 0)}}, json=False)
    if view.steps:
        print_rows(shown["steps"], json=False, columns=("id", "agent", "status", "attempts", "error", "text"))
    for wait in waits:
        print(f"{wait['kind']} {cell(wait['asks'])} asks, until {wait['expires_at']}: {cell(wait['question'])}\nanswer: {wait['answer']}")


async def _standing(settings: Settings, run: str) -> "tuple[View, list[dict[str, Any]]]":
    from actors.tasks.view import view_of
    from events.ids import stream_id
    from ops.waiting import Folder, open_waits, row_of

    async with open_log(settings) as reader:
        try:
            stream = stream_id("task", run)
            state = await Folder(settings, reader).run(stream) if await reader.head(stream) is not None else None
        except ValueError as error:
            raise CommandError(str(error), next_step="for example t1", code=Exit.USAGE) from error
        if state is None:
            raise _no_run(run)
        return view_of(state), [row_of(wait) for wait in await open_waits(settings, reader) if wait.actor == stream]


async def _runs(settings: Settings, reader: "LogReader", number: int) -> list[dict[str, Any]]:
    """The runs that changed last."""
    from events.ids import parse_stream_id
    from ops.waiting import Folder, waiting_of
    from runtime.wire import iso_time

    changed = []
    after = "task/"
    while page := [each for each in await reader.streams(after=after) if each.stream.startswith("task/")]:
        for each in page:
            last = await reader.read_stream(each.stream, after=each.version - 1, limit=1)
            changed += [(last[0].recorded_at_us, each.stream)] if last else []
        after = page[-1].stream
    folder, rows = Folder(settings, reader), []
    for at_us, stream in sorted(changed, reverse=True)[: number or None]:
        state = await folder.run(stream)
        if state is not None:
            key = parse_stream_id(stream)[1]
            waits = [f"{wait.kind} of {wait.asks}" for wait in waiting_of(state, key)] or (["resume"] if state.paused else [])
            rows.append(
                {
                    "run": key, "phase": state.phase, "paused": state.paused, "outcome": state.outcome,
                    "waits_for": ", ".join(waits) or None, "goal": state.goal[:_LINE], "changed_at": iso_time(at_us),
                }
            )  # fmt: skip
    return rows


def _json(text: str) -> Any:
    """JSON that the command line holds or names.

    Raises:
        CommandError: USAGE.
    """
    try:
        return msgspec.json.decode(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise CommandError("the plan cannot be read", why=str(error), next_step="--plan @FILE, or JSON", code=Exit.USAGE) from error
