"""Open waits in a person's hands: who waits for what, and the answer. `ls` works on the files, with no server running."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_client, open_log
from ops.commands.common import DEFAULTS, Common
from ops.commands.tasks import Key, session_of
from ops.exits import CommandError, Exit
from ops.output import cell, print_record, print_rows, progress, wants_json
from ops.settings import Settings

if TYPE_CHECKING:
    from ops.waiting import OpenWait
    from runtime.client import Client

Chosen = Annotated[str | None, Parameter(help="Only those of this actor, as TYPE/ID (default: of all).")]
WaitId = Annotated[str, Parameter(help="The wait's id, or the beginning of it.")]
Value = Annotated[str, Parameter(help="The answer as JSON.")]


def ls(actor: Chosen = None, /, *, common: Common = DEFAULTS) -> None:
    """List all that a person can answer: who asks what, until when, and the command that answers.

    Proposals and questions of runs, interrupts of graphs, turns that wait,
    and actors held by a step that nobody knows the outcome of.
    Example: cuebook waits ls
    """
    from ops.waiting import row_of

    rows = [row_of(wait) for wait in event_loop.run(_waits(common.load().settings)) if actor is None or wait.actor == actor]
    print_rows(rows, json=common.json, columns=("kind", "asks", "question", "expires_at"))
    if not wants_json(common.json):
        # Below the table, where a line can be copied as it is.
        for row in rows:
            print(f"{cell(row['asks'])}: {row['answer']}")
    if not rows:
        progress("nothing waits for an answer")


def answer(wait_id: WaitId, value: Value, /, *, key: Key = None, common: Common = DEFAULTS) -> None:
    """Answer an open wait; the first answer counts.

    For a proposal of a run: '{"verdict": "approved"}', "rejected", or "modified" with "feedback"; for a question of one: text.
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
            if wait.kind in ("approval", "clarification"):
                return await _of_run(cue, wait, session_of(settings, key), given)
            return await cue.answer(wait.actor, wait.wait_id, given)

    print_record({"actor": wait.actor, "name": wait.name, "wait_id": wait.wait_id, **event_loop.run(main())}, json=common.json)


async def _of_run(cue: "Client", wait: "OpenWait", session: str, given: Any) -> Any:
    """A run is told by its own methods, which know who may decide."""
    from actors.json_schema import check
    from events.codec import encode
    from events.ids import parse_stream_id

    check(encode(wait.schema), given, wait.name)
    number = int(wait.name.rpartition("-")[2])
    run = cue.ref(*parse_stream_id(wait.actor))
    if wait.kind == "clarification":
        await run.ask("answer", session=session, text=given, number=number)
        return {"status": "answered"}
    told = await run.ask("decide", session=session, version=number, **given)
    return {"status": "answered", "verdict": told["verdict"]}


async def _waits(settings: Settings) -> "list[OpenWait]":
    from ops.waiting import open_waits

    async with open_log(settings) as reader:
        return await open_waits(settings, reader)


def _chosen(wait_id: str, waits: "list[OpenWait]") -> "OpenWait":
    # A whole id first: that of proposal 1 of a run is also the beginning of that of proposal 10.
    found = [wait for wait in waits if wait.wait_id == wait_id] or [wait for wait in waits if wait.wait_id.startswith(wait_id)]
    if not found:
        raise CommandError(f"there is no open wait {wait_id}", next_step="cuebook waits ls", code=Exit.NOT_FOUND)
    if len(found) > 1:
        raise CommandError(f"{len(found)} open waits begin with {wait_id}", next_step="cuebook waits ls", code=Exit.USAGE)
    return found[0]
