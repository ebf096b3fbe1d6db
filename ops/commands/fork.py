"""`cuebook fork` and `cuebook rerun`: what if. The parent is only read; what runs, runs in streams of its own, and effects happen there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import as_command_error, is_up, log_folder, open_client, open_log, registry_of, seconds
from ops.commands.common import DEFAULTS, Common
from ops.commands.look import AppOption
from ops.exits import CommandError, Exit
from ops.output import print_rows, progress
from ops.settings import Settings

if TYPE_CHECKING:
    from actors.registry import Registry
    from events.store import LogReader
    from runtime.branches.fork_plan import ForkPlan, Rerun, StreamFork

_LOOK_EVERY_S: Final = 0.05
Edit = Annotated[str | None, Parameter(help="A JSON Patch (RFC 6902) as text, or @FILE.")]
Live = Annotated[bool, Parameter(help="Let what the fork sends and asks leave it, to actors that are real.")]


def fork(
    stream: Annotated[str | None, Parameter(help="The stream as TYPE/ID; not with --correlation.")] = None,
    /,
    *,
    at: Annotated[str, Parameter(help="The version after which it branches off; with --correlation the event (id or SHARD:POSITION).")],
    as_: Annotated[str, Parameter(name="--as", help="The id of the fork; with --correlation what is added to each id, as ID-NAME.")],
    correlation: Annotated[str | None, Parameter(help="Fork every stream of this conversation, and run it on.")] = None,
    edit: Edit = None,
    including: Annotated[list[str] | None, Parameter(name="--with", help="With --correlation: fork this stream too.", negative="")] = None,
    live: Live = False,
    timeout: Annotated[str, Parameter(help="With --correlation: how long to wait for what runs on.")] = "10m",
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> int:
    """Branch a stream off at a version, or a whole conversation at an event, edited if you like, and run it on.

    The parents stay as they are. With --correlation, effects recorded before
    the event are answered from the log, what comes after it runs (with --app:
    in other code), and is told only to the forks. --edit changes the state,
    or with --correlation the payload of the event if it is one of the turn
    that goes on: its arguments, or the result of an effect.
    Example: cuebook fork buyer/bob --at 8 --as bob-rich --edit '[{"op": "replace", "path": "/total", "value": 900}]'
    """
    if (stream is None) == (correlation is None):
        raise CommandError("name either a stream or a conversation", next_step="cuebook fork --help", code=Exit.USAGE)
    settings = common.load().settings
    registry = _code(settings, app)
    patch = read_patch(edit)
    if correlation is not None:
        return event_loop.run(
            _conversation(
                settings, registry, app, correlation, at, as_, patch, tuple(including or ()), live=live, timeout_s=seconds(timeout),
                json=common.json,
            )
        )  # fmt: skip
    if not at.isdecimal():
        raise CommandError(f"--at {at} is no version", why="a stream is forked after a version", code=Exit.USAGE)
    return event_loop.run(_stream(settings, registry, str(stream), int(at), as_, patch, live=live, json=common.json))


def rerun(
    stream: Annotated[str, Parameter(help="The stream as TYPE/ID.")],
    method: Annotated[str | None, Parameter(help="The command, where the log does not hold it.")] = None,
    arguments: Annotated[str | None, Parameter(help="Its arguments as a JSON object, or @FILE (default: those recorded).")] = None,
    /,
    *,
    at: Annotated[int, Parameter(help="Any version of the turn to run again.")],
    as_: Annotated[str, Parameter(name="--as", help="The id of the fork in which it runs.")],
    live: Live = False,
    timeout: Annotated[str, Parameter(help="How long to wait for the reply.")] = "10m",
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> int:
    """Run a recorded turn again, effects included, in a fork that begins before it.

    Steps run again; what it sends and asks stays in the fork unless --live.
    A short turn of a client leaves no arguments in the log: give METHOD and
    ARGUMENTS then.
    Example: cuebook rerun buyer/bob forget '{"item": "tea"}' --at 25 --as bob-again
    """
    settings = common.load().settings
    registry = _code(settings, app)
    given = None if arguments is None else _json(arguments, "the arguments")
    return event_loop.run(
        _rerun(settings, registry, stream, at, as_, method, given, live=live, timeout_s=seconds(timeout), json=common.json)
    )


def branches(stream: Annotated[str, Parameter(help="The stream as TYPE/ID.")], *, common: Common = DEFAULTS) -> int:
    """List the forks of a stream, and theirs, and where each branched off.

    Example: cuebook branches buyer/bob
    """
    from events.ids import StreamId
    from runtime.branches.forks_of import forks_of

    settings = common.load().settings

    async def main() -> list[dict[str, object]]:
        async with open_log(settings) as reader:
            return [msgspec.structs.asdict(found) async for found in forks_of(reader, StreamId(stream))]

    rows = event_loop.run(main())
    print_rows(rows, json=common.json)
    if not rows:
        progress(f"{stream} has no forks")
    return int(Exit.OK)


# -- what is read from the command line ---------------------------------------------------------------------------------------------------


def _code(settings: Settings, app: str | None) -> "Registry":
    if app is not None and is_up(settings):
        raise CommandError(
            "--app cannot be given while a deployment runs on this folder",
            why="its workers run the code that they were started with",
            next_step="cuebook stop, or fork in a copy: cuebook backup DIR, then --data DIR",
            code=Exit.CONFLICT,
        )
    registry = registry_of(settings, app)
    if registry is None:
        raise CommandError("a fork needs the code of its actors", next_step="add --app MODULE:OBJECT", code=Exit.USAGE)
    return registry


def read_patch(text: str | None) -> list[dict[str, Any]] | None:
    """The JSON Patch that `text` holds or names as @FILE.

    Raises:
        CommandError: USAGE, it is none.
    """
    if text is None:
        return None
    value = _json(text, "the edit")
    if not isinstance(value, list) or not all(isinstance(change, dict) and "op" in change and "path" in change for change in value):
        raise CommandError(
            "the edit is no JSON Patch", why="a list of changes is needed", next_step='[{"op": "replace", "path": "/cents", "value": 5}]',
            code=Exit.USAGE,
        )  # fmt: skip
    return value


def _json(text: str, what: str) -> Any:
    from events.codec import decode_strict
    from events.errors import EncodingError

    try:
        return decode_strict(Path(text[1:]).read_bytes() if text.startswith("@") else text.encode())
    except OSError as error:
        raise CommandError(f"{text[1:]} cannot be read", why=str(error.strerror), code=Exit.USAGE) from error
    except EncodingError as error:
        raise CommandError(f"{what} cannot be read", why=error.message, code=Exit.USAGE) from error


# -- where it runs ------------------------------------------------------------------------------------------------------------------------


class _Actors(Protocol):
    """The owner of the streams: a running deployment, or this process."""

    async def ask(self, stream: str, method: str, body: bytes, timeout_s: float, command_id: str | None) -> bytes: ...


class _Deployment:
    def __init__(self, client: Any) -> None:
        self._client = client

    async def ask(self, stream: str, method: str, body: bytes, timeout_s: float, command_id: str | None) -> bytes:
        arguments = msgspec.json.decode(body)
        reply: bytes = await self._client.ask(stream, method, arguments, timeout_s, command_id)
        return reply


class _Here:
    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    async def ask(self, stream: str, method: str, body: bytes, timeout_s: float, command_id: str | None) -> bytes:
        reply = await self._runtime.send(stream, method, body, command_id=command_id, timeout_s=timeout_s)
        if reply.error is not None:
            raise reply.error
        return bytes(reply.body)


@asynccontextmanager
async def _actors(settings: Settings, app: str | None) -> AsyncIterator[_Actors]:
    from actors.errors import ActorError
    from events.log_directory import read_identity
    from ops.commands.keep import nothing_runs
    from ops.worker import load_app
    from runtime.local import local_runtime

    if is_up(settings):
        async with open_client(settings) as client:
            yield _Deployment(client)
        return
    folder = log_folder(settings)
    with nothing_runs(Path(settings.data), range(read_identity(folder).shards)):
        try:
            async with local_runtime(load_app(app or settings.app), folder) as runtime:
                yield _Here(runtime)
        except ActorError as error:
            raise as_command_error(error) from error


async def _make(actors: _Actors, found: "StreamFork") -> None:
    from events.codec import encode
    from runtime.branches.forking import FORK

    await actors.ask(found.stream, FORK, encode(found.arguments), 30.0, None)


async def _begin(actors: _Actors, found: "Rerun") -> None:
    from events.codec import encode
    from runtime.branches.forking import RERUN

    await actors.ask(found.stream, RERUN, encode(found.arguments), 30.0, None)


async def _result(actors: _Actors, found: "Rerun", timeout_s: float) -> tuple[str, Any]:
    """How a command ended: asked again under its id, it attaches, or hears what is remembered (S24)."""
    from actors.errors import ActorError, error_body

    arguments = found.arguments
    try:
        reply = await actors.ask(found.stream, arguments.method, bytes(arguments.arguments), timeout_s, arguments.command_id)
    except ActorError as error:
        return error.error, error_body(error)
    return "done", msgspec.json.decode(reply)


# -- one stream ---------------------------------------------------------------------------------------------------------------------------


async def _stream(settings: Settings, registry: "Registry", stream: str, at: int, name: str, edit: Any, *, live: bool, json: bool) -> int:
    from events.ids import StreamId
    from runtime.branches.fork_plan import plan_stream

    async with open_log(settings) as reader:
        child = _child(stream, name)
        found = await plan_stream(reader, registry, StreamId(stream), at, child, edit=edit, live=live)
    async with _actors(settings, None) as actors:
        await _make(actors, found)
    print_rows([{"stream": found.stream, "parent": found.parent, "version": found.version, "live": live}], json=json)
    progress(f"{found.stream} goes on from version {found.version} of {found.parent}: cuebook state {found.stream}")
    return int(Exit.OK)


def _child(stream: str, name: str) -> Any:
    from events.ids import parse_stream_id, stream_id

    try:
        type_name = parse_stream_id(stream)[0]
        return stream_id(*parse_stream_id(name)) if "/" in name else stream_id(type_name, name)
    except ValueError as error:
        raise CommandError(f"{name} is no id for a fork", why=str(error), code=Exit.USAGE) from error


async def _rerun(
    settings: Settings, registry: "Registry", stream: str, at: int, name: str, method: str | None, given: Any, *, live: bool,
    timeout_s: float, json: bool,
) -> int:  # fmt: skip
    from events.ids import StreamId
    from runtime.branches.reruns import plan_rerun

    async with open_log(settings) as reader:
        child = _child(stream, name)
        found, command = await plan_rerun(reader, registry, StreamId(stream), at, child, method, given, live=live)
    async with _actors(settings, None) as actors:
        await _make(actors, found)
        await _begin(actors, command)
        status, reply = await _result(actors, command, timeout_s)
    asked = command.arguments
    row = {"stream": found.stream, "method": asked.method, "status": status, "reply": reply, "command_id": asked.command_id}
    print_rows([row], json=json)
    progress(f"beside what was recorded: cuebook compare {stream} {found.stream}")
    return int(Exit.OK if status == "done" else Exit.FAILURE)


# -- a conversation -----------------------------------------------------------------------------------------------------------------------


async def _conversation(
    settings: Settings, registry: "Registry", app: str | None, correlation: str, at: str, name: str, edit: Any, including: Any, *,
    live: bool, timeout_s: float, json: bool,
) -> int:  # fmt: skip
    from runtime.branches.fork_plan import plan_conversation

    async with open_log(settings) as reader:
        plan = await plan_conversation(reader, registry, correlation, at, name, edit=edit, live=live, including=including)
    for note in plan.notes:
        progress(f"note: {note}")
    async with _actors(settings, app) as actors:
        ended = await _run_on(actors, plan, timeout_s, progress)
        await _settled(settings, plan, timeout_s)
    async with open_log(settings) as reader:
        rows = [await _summary(reader, found, ended) for found in plan.forks]
    print_rows(rows, json=json)
    executed, answered = sum(row["executed"] for row in rows), sum(row["answered"] for row in rows)
    progress(
        f"{len(rows)} forks under the conversation {name}: {executed} effects executed, {answered} answered from the log. "
        f"Beside the original: cuebook compare {correlation} {name}"
    )
    return int(Exit.OK if all(status == "done" for status in ended.values()) else Exit.FAILURE)


async def _run_on(actors: _Actors, plan: "ForkPlan", timeout_s: float, say: Callable[[str], None]) -> dict[str, str]:
    """Make all forks, start what is under way, then what came from outside, one after another. Returns how each command ended."""
    for found in plan.forks:
        await _make(actors, found)
    say(f"{len(plan.forks)} forks made; {len(plan.reruns)} commands go on")
    for command in plan.reruns:
        await _begin(actors, command)
    ended: dict[str, str] = {}
    for command in (*plan.reruns, *plan.later):
        if command in plan.later:
            await _begin(actors, command)
        status, _ = await _result(actors, command, timeout_s)
        ended[f"{command.stream} {command.arguments.method}"] = status
        say(f"{command.stream} {command.arguments.method}: {status}")
    return ended


async def _settled(settings: Settings, plan: "ForkPlan", timeout_s: float) -> None:
    """Wait until no fork has a command or a send under way: what they told each other has no reply to wait for."""
    forks = {found.stream for found in plan.forks}
    try:
        async with asyncio.timeout(timeout_s), open_log(settings) as reader:
            while True:
                pages = [await reader.under_way(shard) for shard in range(reader.shards)]
                commands = [entry for page in pages for entry in page.commands if entry.stream in forks]
                sends = [send for page in pages for send in page.sends if send.sender in forks]
                if not commands and not sends:
                    return
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        progress("note: some forks still have commands under way: cuebook log, cuebook trace")


async def _summary(reader: "LogReader", found: "StreamFork", ended: dict[str, str]) -> dict[str, Any]:
    first = found.version + 1 + len(found.arguments.events)
    executed = events = 0
    after = first
    while page := await reader.read_stream(found.stream, after=after, limit=1_000):
        events += len(page)
        executed += sum(event.type in ("step.completed", "step.failed") for event in page)
        after = int(page[-1].version)
    status = next((status for command, status in ended.items() if command.startswith(f"{found.stream} ")), None)
    return {
        "stream": found.stream, "parent": found.parent, "version": found.version, "answered": found.answered, "executed": executed,
        "events": events, "status": status,
    }  # fmt: skip
