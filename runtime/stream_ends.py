"""Streams that are archived or erased while they are owned: ``_archive``, ``_erase``, and what whoever comes later is told (S24, S29)."""

from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from actors.errors import ActorError, BadPayload, Gone, HandlerFailed, LogFull, Unavailable, Unknown, error_body
from actors.registry import field_of
from actors.turn import Command
from events.closing import Closed
from events.codec import canonical, decode_strict, encode
from events.errors import (
    CuebookError,
    LogFullError,
    StreamBusyError,
    StreamClosedError,
    SupersededError,
    TransientError,
    UnknownStreamError,
)
from events.limits import RESTART_FIRST_S
from events.sealed.erasure import finish_erasures
from events.store import Committed, Duplicate, InboxStatus
from runtime.exchange import Reply, ReplyTo
from runtime.items import Item, LostError, StaleError
from runtime.turns.commits import commit_held

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.closing")
ARCHIVE: Final = "_archive"
ERASE: Final = "_erase"
METHODS: Final = frozenset({ARCHIVE, ERASE})


class EraseArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """confirm: the name of the stream once more, so that no mistyped subject erases anything. by: who asked, for the log."""

    confirm: str
    by: str = "client"


def close(shard: "Shard", command: Command, reply: ReplyTo) -> None:
    """Archive or erase the stream of `command`, ahead of its mailbox, and reply with what `Closed` says. Raises: BadPayload."""
    arguments = _arguments(command)

    async def act() -> None:
        try:
            reply(Reply(encode(await _close(shard, command, arguments))))
        except ActorError as error:
            reply(Reply(error=error))
        except SupersededError:
            shard.superseded()
            shard.exchange.forward(command, reply)
        except LogFullError as error:
            reply(Reply(error=LogFull(error.message, retry_after_ms=1_000)))
        except CuebookError as error:
            retry = isinstance(error, TransientError)
            reply(Reply(error=Unavailable(error.message, retry_after_ms=1_000) if retry else HandlerFailed(error.message, **error.fields)))

    shard.spawn(act(), name=f"{command.method} {command.stream}")


def _arguments(command: Command) -> EraseArguments | None:
    try:
        decode_strict(command.args or b"{}")
        if command.method == ARCHIVE:
            msgspec.json.decode(command.args or b"{}", type=_Nothing)
            return None
        arguments = msgspec.json.decode(command.args or b"{}", type=EraseArguments)
    except (msgspec.DecodeError, CuebookError) as error:
        raise BadPayload(f"{command.method}: {error}", field=field_of(error)) from error
    if arguments.confirm != command.stream:
        raise BadPayload(f"{ERASE} of {command.stream} is confirmed by its name, not by {arguments.confirm!r}", field="confirm")
    return arguments


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


async def _close(shard: "Shard", command: Command, arguments: EraseArguments | None) -> dict[str, Any]:
    stream = command.stream
    try:
        if arguments is None:
            cell = shard.cells.get(stream)
            if cell is not None and not cell.idle:
                raise StreamBusyError(f"{stream} has commands under way", stream=stream)
            closed = await shard.store.archive(stream)
        else:
            closed = await shard.store.erase(stream, arguments.by)
    except StreamBusyError as error:
        raise Unavailable(error.message, reason=error.code, retry_after_ms=500) from error
    except UnknownStreamError as error:
        raise Unknown(error.message, stream=stream) from error
    except StreamClosedError as error:
        raise Gone(error.message, stream=stream) from error
    _ended(shard, closed)
    if arguments is not None:
        await finish(shard)
    return {name: value for name, value in msgspec.structs.asdict(closed).items() if name != "events"}


def _ended(shard: "Shard", closed: Closed) -> None:
    """Nothing of the stream is under way any more; a live actor finds that out before its next command, and its last events leave."""
    shard.timers.forget(closed.stream)
    if closed.status == "erased":
        shard.waits.forget(closed.stream)
        shard.drop_sends(closed.stream)
        if shard.exchange.step_cache is not None:
            shard.exchange.step_cache.forget(closed.stream)
    if (cell := shard.cells.get(closed.stream)) is not None:
        cell.state = None
        cell.wake()
    if closed.events:
        shard.exchange.committed(shard.number, closed.events[-1].position, closed.events)


async def finish(shard: "Shard") -> None:
    """Complete the erasures of this shard: at `_erase`, and those that a former owner left. Raises as `finish_erasures`."""
    async with shard.erasing:
        for stream in await finish_erasures(shard.store, shard.sealer):
            log.info("stream_erased", stream=stream, shard=shard.number)


async def finish_left(shard: "Shard") -> None:
    """`finish` for a shard that was just taken: what fails is said and tried again by the next owner, or by erasing again."""
    try:
        await finish(shard)
    except CuebookError as error:
        log.warning("erasure_unfinished", shard=shard.number, error=error.message)


async def refuse_closed(cell: "Cell", item: Item, status: str) -> None:
    """What a closed stream says: the reply that it remembers, else 410. Nobody hears it of a stored command: its row is finished (S24)."""
    error = Gone(f"{cell.stream} is {status}", stream=cell.stream)
    if item.stored is None:
        reply = Reply(error=error)
        if item.command.explicit and not item.method.query:
            try:
                entry = await cell.shard.store.inbox(cell.stream, item.command.command_id)
            except CuebookError as failure:
                reply = Reply(error=Unavailable(failure.message, retry_after_ms=500))
            else:
                reply = reply if entry is None else cell.remembered(item, entry)
        cell.finish(item, reply)
        return
    item.letter = None  # it went with the stream, and only a refusal is taken there
    refused = cell.entry(item, InboxStatus.REFUSED, canonical(error_body(error)), error.number)
    if status == "erased":
        refused = msgspec.structs.replace(refused, args_hash="")  # its row is gone, and a hash can be guessed at
    group = cell.group(item, [], refused)
    try:
        outcome = await commit_held(cell.shard.commit, group)
    except LostError:
        cell.shard.superseded()
        return
    except StaleError:
        outcome = None
    if isinstance(outcome, Committed | Duplicate):
        cell.finish(item, Reply(error=error))
    else:
        cell.state = None  # folded again, and tried again
        cell.paused = RESTART_FIRST_S
        cell.mailbox.appendleft(item)
