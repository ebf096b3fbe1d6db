"""How a fork begins (S33): ``_fork`` makes the stream, ``_rerun`` gives it a command to run. Both are handled by the owner of its shard.

Two steps, because forks that are made together know each other: none may run before all are there.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.errors import ActorError, BadPayload, IdReused, OutcomeUnknown, Rejected, TooLarge
from actors.journal import Forked
from actors.registry import ActorType, field_of
from actors.turn import Command
from events.codec import args_hash, decode_strict, encode
from events.envelope import GENESIS_HASH, Kind, NewEvent
from events.errors import CuebookError
from events.facts import FORKED
from events.ids import CommandId, StreamId, Version, parse_stream_id
from events.limits import EVENT_BYTES_MAX
from events.store import Append, Arrival, Base, Committed, Duplicate, InboxEntry, InboxStatus
from runtime.exchange import Reply, ReplyTo
from runtime.items import LostError, StaleError
from runtime.turns.commits import commit_held

if TYPE_CHECKING:
    from runtime.shard import Shard

FORK: Final = "_fork"
RERUN: Final = "_rerun"
_HASH: Final = re.compile("[0-9a-f]{64}")


class CopiedEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event of the open turn of a parent, taken along so that its effects are answered and not repeated."""

    type: str
    kind: Kind
    schema_version: int = 1
    payload: msgspec.Raw
    summary: str | None = None
    error: str | None = None
    duration_us: int | None = None


class ForkArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of ``_fork``. events: the journal of the turn that is open at the fork, under `command_id`. correlation_id: of the fork's own
    events."""

    fork: Forked
    events: list[CopiedEvent] = []
    command_id: str | None = None
    correlation_id: str | None = None


class RerunArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of ``_rerun``. running: the turn has begun, its journal came with the fork."""

    command_id: str
    method: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    running: bool = False
    sender: str | None = None
    causation_id: str | None = None
    correlation_id: str | None = None


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """Reply of ``_fork``."""

    stream: StreamId
    version: int


@contextmanager
def _failures_told(shard: "Shard", command: Command, reply: ReplyTo) -> Iterator[None]:
    """What goes wrong in the block is told to the caller; if another owner has the shard, it decides."""
    try:
        yield
    except ActorError as error:
        reply(Reply(error=error))
    except CuebookError as error:
        reply(Reply(error=OutcomeUnknown(f"{error.message}; ask again", retry_after_ms=500)))
    except StaleError:
        reply(Reply(error=OutcomeUnknown("the outcome is unknown; ask again", retry_after_ms=500)))
    except LostError:
        shard.superseded()
        shard.exchange.forward(command, reply)


async def begin_fork(shard: "Shard", kind: ActorType[Any], command: Command, reply: ReplyTo) -> None:
    """Make the stream that `command` addresses. A repeat with the same content gets the same answer."""
    with _failures_told(shard, command, reply):
        arguments = _decoded(command.args, ForkArguments)
        reply(Reply(encode(await _begin(shard, kind, command, arguments))))


async def _begin(shard: "Shard", kind: ActorType[Any], command: Command, arguments: ForkArguments) -> Begun:
    fork = arguments.fork
    _check(kind, fork)
    payload = encode(fork)
    if len(payload) > EVENT_BYTES_MAX:
        raise TooLarge(f"the state has {len(payload):,} bytes; a fork carries at most {EVENT_BYTES_MAX:,}")
    first = NewEvent(
        type=FORKED, kind=Kind.CONTROL, payload=payload, summary=f"forked from {fork.parent} after version {fork.version}"[:200]
    )
    copied = [
        NewEvent(
            type=event.type, kind=event.kind, schema_version=event.schema_version, payload=bytes(event.payload), summary=event.summary,
            error=event.error, duration_us=event.duration_us,
        )
        for event in arguments.events
    ]  # fmt: skip
    group = Append(
        stream=command.stream,
        expected_version=Version(fork.version),
        command_id=CommandId(arguments.command_id or command.command_id),
        events=[first, *copied],
        correlation_id=arguments.correlation_id or command.correlation_id or command.command_id,
        branch=fork.branch,
        parent=f"{fork.parent}@{fork.version}",
        base=Base(version=Version(fork.version), hash=bytes.fromhex(fork.hash)),
        code_version=shard.code_version,
        received_time=command.time,
    )
    outcome = await commit_held(shard.commit, group)
    if isinstance(outcome, Committed):
        shard.committed(outcome)
        return Begun(stream=command.stream, version=int(outcome.version))
    _, events = await shard.store.load(command.stream, kind.shape)
    if events and events[0].type == FORKED and bytes(events[0].payload) == payload:
        return Begun(stream=command.stream, version=int(events[0].version) + len(copied))
    raise Rejected(f"{command.stream} exists already; a fork needs an id of its own", stream=command.stream)


def _check(kind: ActorType[Any], fork: Forked) -> None:
    try:
        parent_type = parse_stream_id(fork.parent)[0]
    except ValueError as error:
        raise BadPayload(str(error), field="parent") from error
    if parent_type != kind.name:
        raise BadPayload(f"{fork.parent} is no {kind.name}: a fork has the type of its parent", field="parent")
    if fork.version < 0 or _HASH.fullmatch(fork.hash) is None or (fork.version == 0 and fork.hash != GENESIS_HASH.hex()):
        raise BadPayload("a fork begins after an event of its parent, or with nothing", field="version")
    try:
        kind.decode_state(bytes(fork.state))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadPayload(f"the state does not fit {kind.name}: {error}", field="state") from error


async def begin_rerun(shard: "Shard", kind: ActorType[Any], command: Command, reply: ReplyTo) -> None:
    """Put a command into the inbox of the addressed actor, as if it had been sent, or as the turn that is open there."""
    with _failures_told(shard, command, reply):
        arguments = _decoded(command.args, RerunArguments)
        kind.method(arguments.method).decode(bytes(arguments.arguments))
        await _rerun(shard, command, arguments)
        reply(Reply(encode({"command_id": arguments.command_id})))


async def _rerun(shard: "Shard", command: Command, arguments: RerunArguments) -> None:
    head = await shard.store.head(command.stream)
    if head is None:
        raise BadPayload(f"there is no stream {command.stream}", field="stream")
    body = bytes(arguments.arguments)
    entry = InboxEntry(
        stream=command.stream,
        command_id=CommandId(arguments.command_id),
        method=arguments.method,
        args_hash=args_hash(arguments.method, body),
        status=InboxStatus.RUNNING if arguments.running else InboxStatus.QUEUED,
        args=body,
        sender=arguments.sender,
        causation_id=arguments.causation_id,
        correlation_id=arguments.correlation_id,
        received_at_us=command.received_at_us,
    )
    if not arguments.running:
        await shard.accept([Arrival(entry=entry, sender=None, n=0, incarnation="", time=command.time)])
        return
    group = Append(stream=command.stream, expected_version=head.version, command_id=entry.command_id, inbox=entry)
    outcome = await commit_held(shard.commit, group)
    if isinstance(outcome, Committed):
        shard.deliver(entry)
    elif not isinstance(outcome, Duplicate) or outcome.entry.args_hash != entry.args_hash:
        raise IdReused(f"{command.stream} has gone on meanwhile", command_id=entry.command_id)


def _decoded(body: bytes, type_: Any) -> Any:
    try:
        decode_strict(body or b"{}")
        return msgspec.json.decode(body or b"{}", type=type_)
    except (msgspec.DecodeError, CuebookError) as error:
        raise BadPayload(str(error), field=field_of(error)) from error
