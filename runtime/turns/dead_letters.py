"""Dead letters in a person's hands: ``_retry {command_ids}`` and ``_drop {command_ids}``, addressed to their actor (design.md 6, 9).

Both go through the mailbox, before people and agents, and are recorded in the actor's stream. An id that is no dead letter is named as
unknown and does no harm; a repeat under the same command id hears what the first one did (S24).
"""

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import structlog

from actors.errors import ActorError, Gone, error_body
from actors.journal import DEAD_DROPPED, DEAD_RETRIED, end_event
from actors.registry import Method
from events.codec import canonical, encode
from events.errors import AppendOutcomeUnknownError
from events.ids import Version
from events.letters import Letter, LetterState, Supervision
from events.limits import LETTERS_PER_CALL_MAX
from events.store import Append, Committed, Conflict, InboxEntry, InboxStatus
from runtime.items import Item, LostError, StaleError
from runtime.saying import said
from runtime.turns.commits import commit_held
from runtime.turns.records import conflict_error

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.dead_letters")
RETRY: Final = "_retry"
DROP: Final = "_drop"


class CommandIds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters of the addressed actor."""

    command_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=LETTERS_PER_CALL_MAX)]


def _decided_here() -> None:
    """Stands where a handler would: these methods belong to no actor class."""


METHODS: Final = {
    name: Method(
        name=name, function=_decided_here, query=False, asynchronous=False, arguments=CommandIds, decoder=msgspec.json.Decoder(CommandIds),
        returns=dict[str, Any], summary=summary,
    )
    for name, summary in ((RETRY, "Try dead letters again."), (DROP, "Drop dead letters."))
}  # fmt: skip


async def decide(cell: "Cell", item: Item) -> None:
    """Do what `item` asks for, in the actor's own task."""
    await cell.settle()
    if cell.state is None and not await cell.recover():
        cell.mailbox.appendleft(item)
        return
    if item.command.explicit and (known := await cell.shard.store.inbox(cell.stream, item.command.command_id)) is not None:
        cell.finish(item, cell.remembered(item, known))
        return
    wanted = list(dict.fromkeys(item.arguments["command_ids"]))
    dead = {each.command_id: each for each in await cell.shard.store.letters(cell.stream) if each.state is LetterState.DEAD}
    found = [dead[command_id] for command_id in wanted if command_id in dead]
    done = [letter.command_id for letter in found]
    item.reply = encode({"done": done, "unknown": [command_id for command_id in wanted if command_id not in dead]})
    if found:
        try:
            outcome = await cell.commit_held(_group(cell, item, found))
        except LostError:
            cell.shard.superseded()
            cell.shard.forward(item)
            return
        except StaleError:
            outcome = None
        if isinstance(outcome, Conflict) and isinstance(gone := conflict_error(cell.stream, outcome), Gone):
            cell.finish(item, cell.stand(error=gone))
            return
        if not isinstance(outcome, Committed):
            cell.state = None
            cell.mailbox.appendleft(item)
            return
        cell.recorded(outcome)
    cell.finish(item, cell.stand(item.reply))


def _group(cell: "Cell", item: Item, letters: list[Letter]) -> Append:
    again = item.method.name == RETRY
    ids = [letter.command_id for letter in letters]
    event = end_event(DEAD_RETRIED if again else DEAD_DROPPED, {"command_ids": ids})
    supervision = Supervision(letters_gone=ids, revived=[_queued(letter) for letter in letters] if again else ())
    inbox = cell.entry(item, InboxStatus.DONE, item.reply, None) if item.command.explicit else None
    return msgspec.structs.replace(cell.group(item, [event], inbox), supervision=supervision)


def _queued(letter: Letter) -> InboxEntry:
    return InboxEntry(
        stream=letter.stream, command_id=letter.command_id, method=letter.method, args_hash=letter.args_hash, status=InboxStatus.QUEUED,
        args=letter.args, sender=letter.sender, causation_id=letter.causation_id, correlation_id=letter.correlation_id,
        traceparent=letter.traceparent, source=letter.source, received_at_us=letter.received_at_us,
    )  # fmt: skip


async def undeliverable(shard: "Shard", entry: InboxEntry, error: ActorError) -> None:
    """A stored command that no handler can take: unknown type or method, bad arguments. A dead letter at once, since only other code, or a
    person, can do something about it. No event: its type may be one that this app does not have, and nobody could take the shard (S7)."""
    now_us = shard.clock.wall_us()
    letter = Letter(
        stream=entry.stream, command_id=entry.command_id, state=LetterState.DEAD, method=entry.method, args_hash=entry.args_hash,
        attempts=0, reason=f"{type(error).__name__}: {error.message}"[:2_000], failed_at_us=now_us, args=entry.args or b"{}",
        sender=entry.sender, causation_id=entry.causation_id, correlation_id=entry.correlation_id, traceparent=entry.traceparent,
        source=entry.source, received_at_us=entry.received_at_us,
    )  # fmt: skip
    reply = canonical(error_body(error))
    finished = msgspec.structs.replace(entry, status=InboxStatus.REFUSED, args=None, reply=reply, code=error.number, completed_at_us=now_us)
    try:
        while True:
            head = await shard.store.head(entry.stream)
            group = Append(
                stream=entry.stream, expected_version=head.version if head else Version(0), command_id=entry.command_id, inbox=finished,
                supervision=Supervision(letter=letter),
            )  # fmt: skip
            outcome = await commit_held(shard.commit, group)
            # A conflict: its actor, if there is one, has committed meanwhile. Each try costs a commit, so it cannot go on for long.
            if not isinstance(outcome, Conflict) or outcome.actual == group.expected_version:
                break
    except LostError:
        shard.superseded()
    except (StaleError, AppendOutcomeUnknownError):
        shard.reconcile()
    finally:
        shard.stored_done(entry.stream)
    kind = shard.app.registry.types.get(entry.stream.partition("/")[0])
    sealed = kind is not None and kind.sealed
    log.warning("tell_refused", stream=entry.stream, method=entry.method, **said(sealed, error.message, None, error.error))
