"""What agents remember, looked at and added to: on a running deployment, or on its files where none runs."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import is_up, log_folder, open_client
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import cell, print_json, print_record, print_rows, progress, wants_json
from ops.settings import Settings

if TYPE_CHECKING:
    from projections.runner import Runner

Workspace = Annotated[str | None, Parameter(name=("--workspace", "-w"), help="Its id, or a folder (default: the current folder's).")]
Type = Annotated[list[str] | None, Parameter(name="--type", help="episodic, semantic, procedural or entity; may be repeated.", negative="")]
Session = Annotated[str | None, Parameter(help="Only memories of this session.")]
Agent = Annotated[str | None, Parameter(help="Only what this agent remembers.")]
_TEXT_CHARACTERS = 100
_BUILD_S = 600.0
_SAY_EVERY_S = 1.0


def search(
    *words: Annotated[str, Parameter(help="The question, in words.")],
    workspace: Workspace = None,
    k: Annotated[int, Parameter(name="-k", help="How many answers at most.")] = 5,
    type: Type = None,
    min_importance: Annotated[float, Parameter(help="From 0 to 1.")] = 0.0,
    session: Session = None,
    agent: Agent = None,
    explain: Annotated[bool, Parameter(help="With what each part adds to the score.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Find memories that answer a question, the best first.

    Example: cuebook memory search payment timeouts --explain
    """
    found = _ask(
        common.load().settings, "recall", workspace, query=" ".join(words), k=k, types=type, min_importance=min_importance, session=session,
        agent=agent,
    )  # fmt: skip
    if wants_json(common.json):
        for each in found:
            print_json(each)
        return
    print_rows([_recalled(each, explain=explain) for each in found], json=False)


def _recalled(found: dict[str, Any], *, explain: bool) -> dict[str, object]:
    row: dict[str, object] = {"score": f"{found['score']:.3f}"}
    if explain:
        # What each adds: value times weight, so that a row can be added up.
        row |= {name: f"{part['value']:.2f} x {part['weight']:.2f}" for name, part in found["parts"].items()}
    return row | {"type": found["type"], "memory": found["memory"], "content": _shortened(found["content"])}


def ls(
    *,
    workspace: Workspace = None,
    n: Annotated[int, Parameter(name=("-n", "--count"), help="How many of the newest.")] = 20,
    type: Type = None,
    session: Session = None,
    agent: Agent = None,
    common: Common = DEFAULTS,
) -> None:
    """List the newest memories of a workspace.

    Example: cuebook memory ls --session reviews
    """
    found = _ask(common.load().settings, "memories", workspace, limit=n, types=type, session=session, agent=agent)
    if wants_json(common.json):
        for each in found:
            print_json(each)
        return
    shown = ("type", "importance", "accesses", "agent", "memory")
    print_rows([{name: each[name] for name in shown} | {"content": _shortened(each["content"])} for each in found], json=False)


def patterns(*, workspace: Workspace = None, agent: Agent = None, common: Common = DEFAULTS) -> None:
    """List learned patterns with their success rates, per agent.

    Example: cuebook memory patterns --agent fixer
    """
    print_rows(_ask(common.load().settings, "patterns", workspace, agent=agent, limit=1_000), json=common.json)


def stats(*, workspace: Workspace = None, common: Common = DEFAULTS) -> None:
    """Show what the memory of a workspace holds.

    Example: cuebook memory stats
    """
    found = _ask(common.load().settings, "stats", workspace)
    if found is None:
        raise CommandError(f"nothing was ever remembered in {_workspace(workspace)}", code=Exit.NOT_FOUND)
    print_record(found, json=common.json)


def remember(
    *words: Annotated[str, Parameter(help="What to remember.")],
    workspace: Workspace = None,
    type: Annotated[str, Parameter(help="episodic, semantic, procedural or entity.")] = "semantic",
    importance: Annotated[float, Parameter(help="From 0 to 1; below 0.3 it may be consolidated away.")] = 0.5,
    session: Annotated[str | None, Parameter(help="Groups memories of one conversation or run.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Remember something, on a running deployment; prints the name of the memory.

    Example: cuebook memory remember we deploy on fridays --importance 0.8
    """
    arguments = {"content": " ".join(words), "type": type, "importance": importance, "session": session}
    print_record({"memory": _tell_actor(common, workspace, "remember", arguments)}, json=common.json)


def forget(*memories: Annotated[str, Parameter(help="Names of memories.")], workspace: Workspace = None, common: Common = DEFAULTS) -> None:
    """Forget memories by name: text, words and vector, on a running deployment.

    Example: cuebook memory forget 0123456789abcdef01234567
    """
    _tell_actor(common, workspace, "forget", {"memories": list(memories)})


def consolidate(
    *,
    workspace: Workspace = None,
    max_age_days: Annotated[float, Parameter(help="Only what is older.")] = 30.0,
    common: Common = DEFAULTS,
) -> None:
    """Forget what is old, unimportant and was hardly ever found, on a running deployment.

    Example: cuebook memory consolidate --max-age-days 60
    """
    forgotten, more = 0, True
    while more:
        done = _tell_actor(common, workspace, "consolidate", {"max_age_days": max_age_days})
        forgotten, more = forgotten + done["forgotten"], done["more"]
    print_record({"forgotten": forgotten}, json=common.json)


def renew(*, workspace: Workspace = None, common: Common = DEFAULTS) -> None:
    """Give every memory a vector of the model that the deployment runs now; recalls go on meanwhile.

    Example: cuebook memory renew
    """
    renewed, left = 0, 1
    while left:
        done = _tell_actor(common, workspace, "renew_meanings", {})
        renewed, left = renewed + done["renewed"], done["left"]
        progress(f"{renewed:,} of {renewed + left:,} have vectors of {done['model']}")
        if not done["renewed"]:
            break
    print_record({"renewed": renewed, "left": left}, json=common.json)


def _workspace(given: str | None) -> str:
    """An id as it is; a folder, or none for the current one, as the id that `cuebook review` gives it."""
    from actors.team import workspace_id
    from events.ids import is_token

    if given is not None and is_token(given) and not Path(given).is_dir():
        return given
    folder = Path(given or ".").resolve()
    if not folder.is_dir():
        raise CommandError(f"{given!r} is neither a folder nor the id of a workspace", next_step="cuebook streams", code=Exit.USAGE)
    return workspace_id(folder)


def _tell_actor(common: Common, workspace: str | None, method: str, arguments: dict[str, Any]) -> Any:
    """Ask the memory of the workspace, and wait for the end."""
    from events.ids import stream_id

    settings, stream = common.load().settings, stream_id("memory", _workspace(workspace))

    async def main() -> Any:
        async with open_client(settings) as cue:
            return msgspec.json.decode(await cue.ask(stream, method, arguments, 60.0, None))

    return event_loop.run(main())


def _ask(settings: Settings, operation: str, workspace: str | None, **arguments: Any) -> Any:
    """What the view answers: of the deployment that runs, else made from the files, up to the end of the log."""
    given = {name: value for name, value in arguments.items() if value is not None} | {"workspace": _workspace(workspace)}

    async def main() -> Any:
        if is_up(settings):
            async with open_client(settings) as cue:
                return await getattr(cue.view("memory"), operation)(**given)
        return await _from_files(settings, operation, given)

    return event_loop.run(main())


async def _from_files(settings: Settings, operation: str, given: dict[str, Any]) -> Any:
    from actors.errors import ActorError
    from events.codec import encode
    from ops.commands.access import as_command_error
    from ops.embedders import embedder_of
    from ops.memory import with_memory
    from ops.view_service import answer
    from ops.views import open_views
    from projections.operations import AFTER
    from runtime.app import App

    log_folder(settings)
    async with open_views(settings, with_memory(App([]), embedder_of(settings.embedder)), only=("memory",)) as views:
        runner = views.runners["memory"]
        heads = {str(shard): (await views.reader.info(shard)).position for shard in range(views.reader.shards)}
        async with asyncio.TaskGroup() as group:
            running = group.create_task(runner.run())
            try:
                # A view that is behind, or not there, is brought up first: these are its files, as a projector would leave them.
                await _made(runner)
                reply = (await answer(runner, operation, encode(given | {AFTER: heads}), _BUILD_S))[0]
            except ActorError as error:
                raise as_command_error(error) from error
            finally:
                running.cancel()
    return msgspec.json.decode(reply)


async def _made(runner: "Runner[Any]") -> None:
    """Wait until the view answers; says once a second how far it is. Raises: Unavailable: it takes too long."""
    from ops.view_service import on_the_wire

    began = time.monotonic()
    while not await runner.wait_answering(_SAY_EVERY_S):
        progress(runner.not_ready().message)
        if time.monotonic() - began > _BUILD_S:
            raise on_the_wire(runner.not_ready())


def _shortened(text: str) -> str:
    line = cell(" ".join(text.split()))
    return line if len(line) <= _TEXT_CHARACTERS else f"{line[: _TEXT_CHARACTERS - 1]}…"
