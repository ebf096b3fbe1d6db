"""Verbs that send something to an actor of a running deployment."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_client, seconds
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import print_json, print_record, wants_json

if TYPE_CHECKING:
    from events.ids import StreamId

Actor = Annotated[str, Parameter(help="The actor as TYPE/ID.")]
Method = Annotated[str, Parameter(help="One of its commands or queries.")]
Arguments = Annotated[str, Parameter(help="A JSON object, @FILE with one, or - for standard input.", allow_leading_hyphen=True)]
Id = Annotated[str | None, Parameter(help="The command id: repeating it is safe and gives the first reply (default: made up).")]


def ask(
    actor: Actor,
    method: Method,
    arguments: Arguments = "{}",
    /,
    *,
    timeout: Annotated[str, Parameter(help="How long to wait for the reply: 500ms, 30s, 5m.")] = "30s",
    id: Id = None,
    common: Common = DEFAULTS,
) -> None:
    """Ask an actor and print its reply.

    Exits 7 if the actor refuses, 6 if it is not known in time whether it was
    done: the same id again is safe. Example: cuebook ask account/42 balance
    """
    settings = common.load().settings
    stream, given, timeout_s = _actor(actor), _arguments(arguments), seconds(timeout)

    async def main() -> Any:
        async with open_client(settings) as cue:
            return msgspec.json.decode(await cue.ask(stream, method, given, timeout_s, id))

    reply = event_loop.run(main())
    if isinstance(reply, dict) and not wants_json(common.json):
        print_record(reply, json=False)
    else:
        print_json(reply)


def tell(actor: Actor, method: Method, arguments: Arguments = "{}", /, *, id: Id = None, common: Common = DEFAULTS) -> None:
    """Send a command and return once it is kept; it is done when its actor can.

    Works while no worker is up. Example: cuebook tell account/42 deposit '{"cents": 5}'
    """
    settings = common.load().settings
    stream, given = _actor(actor), _arguments(arguments)

    async def main() -> str:
        async with open_client(settings) as cue:
            return await cue.tell(stream, method, given, id)

    print_record({"actor": actor, "method": method, "command_id": event_loop.run(main())}, json=common.json)


def cancel(
    actor: Actor,
    command_id: Annotated[str, Parameter(help="The id of the command to cancel, as `cuebook log` shows it.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> None:
    """Cancel a command that waits or runs; says whether it was cancelled or done before.

    Example: cuebook cancel orchestrator/main-1234abcd 0660e77ff85c7f-1
    """
    settings = common.load().settings
    stream = _actor(actor)

    async def main() -> Any:
        async with open_client(settings) as cue:
            return msgspec.json.decode(await cue.ask(stream, "_cancel", {"command_id": command_id}, 30.0, None))

    print_record(event_loop.run(main()), json=common.json)


def _actor(text: str) -> "StreamId":
    from events.ids import parse_stream_id, stream_id

    try:
        return stream_id(*parse_stream_id(text))
    except ValueError as error:
        raise CommandError(str(error), next_step="for example account/42", code=Exit.USAGE) from error


def _arguments(text: str) -> dict[str, Any]:
    """The JSON object that the command line names."""
    source = "the argument"
    try:
        if text == "-":
            source, text = "standard input", sys.stdin.read()
        elif text.startswith("@"):
            source, text = text[1:], Path(text[1:]).read_text(encoding="utf-8")
        given = msgspec.json.decode(text or "{}")
    except OSError as error:
        raise CommandError(f"{source} cannot be read", why=str(error), code=Exit.USAGE) from error
    except ValueError as error:  # msgspec.DecodeError and UnicodeDecodeError are ones
        raise CommandError(
            f"{source} is not JSON", why=str(error), next_step="""for example '{"cents": 500}'""", code=Exit.USAGE
        ) from error
    if not isinstance(given, dict):
        raise CommandError(f"{source} is not a JSON object", why="arguments have names", code=Exit.USAGE)
    return given
