"""Open waits in a person's hands: who waits for what, and the answer. `ls` works on the files, with no server running."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_client, open_log
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import print_record, print_rows, progress
from ops.settings import Settings

if TYPE_CHECKING:
    from events.store import WaitEntry

Chosen = Annotated[str | None, Parameter(help="Only those of this actor, as TYPE/ID (default: of all).")]
WaitId = Annotated[str, Parameter(help="The wait's id, or the beginning of it.")]
Value = Annotated[str, Parameter(help="The answer as JSON.")]


def ls(actor: Chosen = None, /, *, common: Common = DEFAULTS) -> None:
    """List the open waits: turns that wait for an answer, and actors held by a step that nobody knows the outcome of.

    Example: cuebook waits ls
    """
    rows = [_row(wait) for wait in event_loop.run(_waits(common.load().settings)) if actor is None or wait.stream == actor]
    print_rows(rows, json=common.json, columns=("actor", "name", "wait_id", "opened_at", "expires_at", "kind"))
    if not rows:
        progress("nothing waits for an answer")


def answer(wait_id: WaitId, value: Value, /, *, common: Common = DEFAULTS) -> None:
    """Answer an open wait; the first answer counts.

    For a held step: '{"result": ...}' if it happened, '{"error": "..."}' if it failed, '{"repeat": true}' to run it again.
    Example: cuebook waits answer 4jx7 '{"approved": true}'
    """
    settings = common.load().settings
    try:
        given = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise CommandError(f"{value!r} is not JSON", why=str(error), next_step="quote text: '\"yes\"'", code=Exit.USAGE) from error
    wait = _chosen(wait_id, event_loop.run(_waits(settings)))

    async def main() -> Any:
        async with open_client(settings) as cue:
            return await cue.answer(wait.stream, wait.wait_id, given)

    print_record({"actor": wait.stream, "name": wait.name, "wait_id": wait.wait_id, **event_loop.run(main())}, json=common.json)


async def _waits(settings: Settings) -> "list[WaitEntry]":
    async with open_log(settings) as reader:
        return [wait for shard in range(reader.shards) for wait in await reader.waits(shard)]


def _chosen(wait_id: str, waits: "list[WaitEntry]") -> "WaitEntry":
    found = [wait for wait in waits if wait.wait_id.startswith(wait_id)]
    if not found:
        raise CommandError(f"there is no open wait {wait_id}", next_step="cuebook waits ls", code=Exit.NOT_FOUND)
    if len(found) > 1:
        raise CommandError(f"{len(found)} open waits begin with {wait_id}", next_step="cuebook waits ls", code=Exit.USAGE)
    return found[0]


def _row(wait: "WaitEntry") -> dict[str, Any]:
    from actors.journal import PARKED_STEP
    from runtime.wire import iso_time

    return {
        "actor": wait.stream,
        "name": wait.name.removeprefix(PARKED_STEP),
        "wait_id": wait.wait_id,
        "command_id": wait.command_id,
        "opened_at": iso_time(wait.opened_at_us),
        "expires_at": None if wait.expires_at_us is None else iso_time(wait.expires_at_us),
        "kind": "once" if wait.name.startswith(PARKED_STEP) else "wait",
        "schema": None if wait.schema is None else msgspec.json.decode(wait.schema),
    }
