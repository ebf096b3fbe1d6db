"""Dead letters and stopped actors in a person's hands. What only looks works on the files, with no server running."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_client, open_log
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import print_record, print_rows, progress
from ops.settings import Settings

if TYPE_CHECKING:
    from events.ids import StreamId
    from events.letters import Letter

Actor = Annotated[str, Parameter(help="The actor as TYPE/ID.")]
Chosen = Annotated[str | None, Parameter(help="Only those of this actor, as TYPE/ID (default: of all).")]
CommandIds = Annotated[str, Parameter(help="Only these commands of that actor.")]
Count = Annotated[int | None, Parameter(help="How many you expect: goes ahead only if there are exactly so many.")]
Yes = Annotated[bool, Parameter(help="Go ahead, however many there are.")]
Reason = Annotated[str | None, Parameter(help="Only those whose reason contains this text.")]


def ls(
    actor: Chosen = None,
    /,
    *,
    reason: Reason = None,
    retrying: Annotated[bool, Parameter(help="Also those that are still tried again by themselves.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """List the dead letters: stored commands that were given up after their retries.

    Example: cuebook dead ls account/42
    """
    letters = event_loop.run(_letters(common.load().settings, actor, (), reason, retrying=retrying))
    rows = [_row(letter) for letter in letters]
    print_rows(rows, json=common.json, columns=("actor", "command_id", "method", "attempts", "failed_at", "reason"))
    if not rows:
        progress("no dead letters")


def show(actor: Actor, command_id: Annotated[str, Parameter(help="Its command id.")], /, *, common: Common = DEFAULTS) -> None:
    """Show one dead letter: reason, arguments, attempts and events of its failures."""
    letters = event_loop.run(_letters(common.load().settings, actor, (command_id,), None, retrying=True))
    if not letters:
        raise CommandError(f"{actor} has no dead letter {command_id}", next_step=f"cuebook dead ls {actor}", code=Exit.NOT_FOUND)
    letter = letters[0]
    row = _row(letter) | {
        "arguments": None if letter.args is None else _arguments(letter.args), "event_ids": list(letter.event_ids), "sender": letter.sender,
        "source": letter.source, "correlation_id": letter.correlation_id, "causation_id": letter.causation_id,
    }  # fmt: skip
    print_record(row, json=common.json)


def retry(
    actor: Chosen = None,
    /,
    *command_ids: CommandIds,
    reason: Reason = None,
    count: Count = None,
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> int:
    """Try dead letters again, each under its own id, in chunks.

    More than one needs --count with their number, or --yes. Example: cuebook dead retry --reason timeout --count 12
    """
    return _act("_retry", "tried again", actor, command_ids, reason, count, yes, common)


def drop(
    actor: Chosen = None,
    /,
    *command_ids: CommandIds,
    reason: Reason = None,
    count: Count = None,
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> int:
    """Drop dead letters for good; that they were dropped stays in the log.

    More than one needs --count with their number, or --yes. Example: cuebook dead drop account/42 c-17
    """
    return _act("_drop", "dropped", actor, command_ids, reason, count, yes, common)


def restart(actor: Actor, /, *, common: Common = DEFAULTS) -> None:
    """Start an actor again that was stopped because it failed too often; what waits for it is done.

    Example: cuebook restart account/42
    """
    settings, stream = common.load().settings, _stream(actor)

    async def main() -> Any:
        async with open_client(settings) as cue:
            return msgspec.json.decode(await cue.ask(stream, "_restart", {}, settings.ask_timeout_s, None))

    print_record({"actor": actor, **event_loop.run(main())}, json=common.json)


def _act(
    method: Literal["_retry", "_drop"],
    done: str,
    actor: str | None,
    command_ids: tuple[str, ...],
    reason: str | None,
    count: int | None,
    yes: bool,
    common: Common,
) -> int:
    settings = common.load().settings
    letters = event_loop.run(_letters(settings, actor, command_ids, reason, retrying=False))
    if not letters:
        raise CommandError("no such dead letters", next_step="cuebook dead ls", code=Exit.NOT_FOUND)
    _confirm(len(letters), done, count, yes)
    rows = event_loop.run(_in_chunks(settings, method, done, letters))
    print_rows(rows, json=common.json)
    return int(Exit.OK if all(row["result"] == done for row in rows) else Exit.FAILURE)


def _confirm(found: int, done: str, count: int | None, yes: bool) -> None:
    """A slip must not send thousands of commands again: whoever means many says how many."""
    if count is not None and count != found:
        raise CommandError(
            f"there are {found:,} dead letters, not {count:,}; none was {done}", next_step=f"--count {found}", code=Exit.CONFLICT
        )
    if found > 1 and count is None and not yes:
        raise CommandError(
            f"{found:,} dead letters would be {done}; none was",
            next_step=f"the same command with --count {found}, or --yes",
            code=Exit.USAGE,
        )


async def _in_chunks(settings: Settings, method: str, done: str, letters: "list[Letter]") -> list[dict[str, object]]:
    from events.limits import LETTERS_PER_CALL_MAX

    by_actor: dict[StreamId, list[str]] = {}
    for letter in letters:
        by_actor.setdefault(letter.stream, []).append(letter.command_id)
    rows: list[dict[str, object]] = []
    async with open_client(settings) as cue:
        for stream, ids in by_actor.items():
            for start in range(0, len(ids), LETTERS_PER_CALL_MAX):
                chunk = {"command_ids": ids[start : start + LETTERS_PER_CALL_MAX]}
                reply = msgspec.json.decode(await cue.ask(stream, method, chunk, settings.ask_timeout_s, None))
                rows += [{"actor": stream, "command_id": each, "result": done} for each in reply["done"]]
                rows += [{"actor": stream, "command_id": each, "result": "is no dead letter any more"} for each in reply["unknown"]]
                progress(f"{len(rows):,} of {len(letters):,}")
    return rows


async def _letters(
    settings: Settings, actor: str | None, command_ids: tuple[str, ...], reason: str | None, *, retrying: bool
) -> "list[Letter]":
    from events.ids import parse_stream_id, shard_of
    from events.letters import LetterState

    async with open_log(settings) as reader:
        stream = None if actor is None else _stream(actor)
        shards = range(reader.shards) if stream is None else [shard_of(*parse_stream_id(stream), reader.shards)]
        found = [letter for shard in shards for letter in await reader.letters(shard, stream)]
    return sorted(
        (
            letter
            for letter in found
            if (retrying or letter.state is LetterState.DEAD)
            and (not command_ids or letter.command_id in command_ids)
            and (reason is None or reason in letter.reason)
        ),
        key=lambda letter: letter.failed_at_us,
    )


def _row(letter: "Letter") -> dict[str, object]:
    from runtime.wire import iso_time

    return {
        "actor": letter.stream, "command_id": letter.command_id, "state": letter.state.value, "method": letter.method,
        "attempts": letter.attempts, "reason": letter.reason, "failed_at": iso_time(letter.failed_at_us),
        "next_try": None if letter.next_try_us is None else iso_time(letter.next_try_us), "received_at": iso_time(letter.received_at_us),
    }  # fmt: skip


def _arguments(body: bytes) -> object:
    """As JSON; what never was JSON, which may be why it is here, as text."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode(errors="replace")


def _stream(text: str) -> "StreamId":
    from events.ids import parse_stream_id, stream_id

    try:
        return stream_id(*parse_stream_id(text))
    except ValueError as error:
        raise CommandError(str(error), next_step="for example account/42", code=Exit.USAGE) from error
