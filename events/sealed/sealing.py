"""Sealed actors (S29): what of a row is encrypted, and to what a ciphertext is bound. The cipher and the keys are a port, `Sealer`.

Everything an actor says or is told is sealed; what the log needs to keep its promises stays readable: names, ids, versions, times, tags,
statuses. A ciphertext is bound to its stream and its place in it, so that no row can be moved to where another one stood. FORMAT.md 9 holds
the exact shapes.
"""

import base64
from typing import Any, Final, Protocol

import msgspec

from events.codec import args_hash, canonical, canonical_hash
from events.envelope import NewEvent, RecordedEvent
from events.errors import CorruptLogError, UnreadablePayloadError
from events.ids import Version
from events.letters import Letter, StoppedActor, Supervision
from events.store import InboxEntry, OutboxEntry, Snapshot, TimerEntry, WaitEntry

_PREFIX: Final = "sealed:"


class Sealer(Protocol):
    """The cipher, and the keys outside the log's folder. Adapter: `runtime.sealer_aesgcm`."""

    async def fresh_key(self) -> str:
        """The id of a key that is durable and was never used (S29).

        Raises:
            TransientError: the keys' folder cannot be written.
        """
        ...

    def has(self, key_id: str) -> bool:
        """Whether the key is here; False after it was destroyed, and on another machine."""
        ...

    def seal(self, key_id: str, plain: bytes, bound: bytes) -> bytes:
        """The ciphertext of `plain`, which can only be opened with the same `bound`. Raises UnreadablePayloadError: no such key."""
        ...

    def unseal(self, key_id: str, sealed: bytes, bound: bytes) -> bytes:
        """What was sealed.

        Raises:
            UnreadablePayloadError: the key is not here. CorruptLogError: the bytes, or what they are bound to, were changed.
        """
        ...

    def mark(self, key_id: str, text: str) -> str:
        """A keyed hash of `text`, as hex: equal texts have equal marks, and nobody without the key can try out texts."""
        ...

    def destroy(self, key_id: str) -> None:
        """Overwrite the key, remove it, and make both durable. Idempotent. Blocks."""
        ...


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one ciphertext of an event holds: its payload, and the columns that say something of it."""

    payload: msgspec.Raw
    summary: str | None = None
    error: str | None = None
    state_hash: str | None = None


_body = msgspec.json.Decoder(_Body)
_text = msgspec.json.Decoder(str)


def _event_bound(stream: str, version: int, type: str, schema_version: int, kind: str) -> bytes:
    return canonical(["event", stream, version, type, schema_version, kind])


def sealed_event(sealer: Sealer, key_id: str, stream: str, version: int, event: NewEvent) -> NewEvent:
    """`event` as it is stored at `version` of a sealed stream."""
    body = _Body(payload=msgspec.Raw(event.payload), summary=event.summary, error=event.error, state_hash=event.state_hash)
    bound = _event_bound(stream, version, event.type, event.schema_version, event.kind.value)
    text = base64.b64encode(sealer.seal(key_id, msgspec.json.encode(body), bound))
    return msgspec.structs.replace(
        event, payload=b'"' + text + b'"', summary=None, error=None, state_hash=None, key_id=key_id
    )  # fmt: skip


def is_sealed(event: RecordedEvent) -> bool:
    """True if the payload is still a ciphertext."""
    return event.key_id is not None and bytes(event.payload)[:1] == b'"'


def unsealed_event(sealer: Sealer, event: RecordedEvent) -> RecordedEvent:
    """`event` with what it says; unchanged if it says it already. Its hash stays that of the stored form (S27).

    Raises:
        UnreadablePayloadError: the key is not here. CorruptLogError: it was changed.
    """
    if event.key_id is None or not is_sealed(event):
        return event
    bound = _event_bound(event.stream, event.version, event.type, event.schema_version, event.kind.value)
    try:
        sealed = base64.b64decode(_text.decode(event.payload), validate=True)
        body = _body.decode(sealer.unseal(event.key_id, sealed, bound))
    except UnreadablePayloadError as error:
        raise UnreadablePayloadError(f"{event.stream} version {event.version}: {error.message}", **_place(event)) from error
    except (ValueError, CorruptLogError) as error:
        raise CorruptLogError(f"the ciphertext of {event.stream} version {event.version} was changed: {error}", **_place(event)) from error
    return msgspec.structs.replace(
        event, payload=msgspec.Raw(bytes(body.payload)), summary=body.summary, error=body.error, state_hash=body.state_hash
    )


def require_readable(event: RecordedEvent) -> None:
    """
    Raises:
        UnreadablePayloadError: the payload is sealed under a key that is not here, or was erased.
    """
    if is_sealed(event):
        raise UnreadablePayloadError(f"{event.stream} version {event.version} is sealed (key not here)", **_place(event))
    if event.salt is None and bytes(event.payload) == b"null":
        raise UnreadablePayloadError(f"{event.stream} version {event.version} was erased", **_place(event))


def _place(event: RecordedEvent) -> dict[str, Any]:
    return {
        "stream": event.stream, "version": event.version, "position": f"{event.shard}:{event.position}", "key_id": event.key_id,
    }  # fmt: skip


# -- bodies of other rows: a JSON string that names its key, so that rows stay what they are in an export ----------------------------------


def _sealed_text(sealer: Sealer, key_id: str, plain: bytes, *bound: Any) -> str:
    return f"{_PREFIX}{key_id}:{base64.b64encode(sealer.seal(key_id, plain, canonical(bound))).decode()}"


def _key_of_text(text: str) -> str | None:
    return text[len(_PREFIX) :].partition(":")[0] if text.startswith(_PREFIX) else None


def _unsealed_text(sealer: Sealer, text: str, *bound: Any) -> bytes:
    """Raises UnreadablePayloadError, CorruptLogError."""
    key_id = _key_of_text(text)
    if key_id is None:
        return text.encode()
    try:
        return sealer.unseal(key_id, base64.b64decode(text[len(_PREFIX) + len(key_id) + 1 :], validate=True), canonical(bound))
    except (UnreadablePayloadError, CorruptLogError) as error:
        error.fields.setdefault("stream", bound[1])
        raise
    except ValueError as error:
        raise CorruptLogError(f"a sealed {bound[0]} of {bound[1]} cannot be read: {error}", stream=bound[1]) from error


def _seal(sealer: Sealer, key_id: str, plain: bytes, *bound: Any) -> bytes:
    return f'"{_sealed_text(sealer, key_id, plain, *bound)}"'.encode()


def key_of_body(body: bytes | None) -> str | None:
    """The key that a stored body is sealed under, None if it is plain."""
    if body is None or not body.startswith(b'"' + _PREFIX.encode()) or not body.endswith(b'"'):
        return None
    return _key_of_text(body[1:-1].decode("ascii", "replace"))


def _unseal(sealer: Sealer, body: bytes, *bound: Any) -> bytes:
    """Raises UnreadablePayloadError, CorruptLogError."""
    return body if key_of_body(body) is None else _unsealed_text(sealer, body[1:-1].decode("ascii", "replace"), *bound)


def _hash_of(method: str, args: bytes) -> str:
    """As `runtime.shard` makes it: of the raw bytes where they are no JSON."""
    try:
        return args_hash(method, args)
    except msgspec.DecodeError:
        return canonical_hash([method, args.hex()])


def sealed_inbox(sealer: Sealer, key_id: str, entry: InboxEntry) -> InboxEntry:
    """The hash of the arguments becomes a keyed mark; the hash itself goes with the reply, for whoever repeats the id (S24)."""
    where = (entry.stream, entry.command_id, entry.method)
    args = None if entry.args is None else _seal(sealer, key_id, entry.args, "args", *where)
    reply = None if entry.reply is None else _seal(sealer, key_id, entry.args_hash.encode() + b"\n" + entry.reply, "reply", *where)
    return msgspec.structs.replace(
        entry, args=args, reply=reply, args_hash=sealer.mark(key_id, entry.args_hash) if entry.args_hash else ""
    )  # fmt: skip


def unsealed_inbox(sealer: Sealer, entry: InboxEntry) -> InboxEntry:
    """Raises UnreadablePayloadError, CorruptLogError."""
    if key_of_body(entry.args) is None and key_of_body(entry.reply) is None:
        return entry
    where = (entry.stream, entry.command_id, entry.method)
    args = None if entry.args is None else _unseal(sealer, entry.args, "args", *where)
    hash_, reply = "", None
    if entry.reply is not None:
        known, _, reply = _unseal(sealer, entry.reply, "reply", *where).partition(b"\n")
        hash_ = known.decode()
    if args is not None and entry.args_hash:
        hash_ = _hash_of(entry.method, args)
    return msgspec.structs.replace(entry, args=args, reply=reply, args_hash=hash_)


def sealed_send(sealer: Sealer, key_id: str, sender: str, entry: OutboxEntry) -> OutboxEntry:
    args = _seal(sealer, key_id, entry.args, "send", sender, entry.receiver, entry.command_id, entry.method)
    return msgspec.structs.replace(entry, args=args)


def delivered_send(sealer: Sealer, key_id: str, entry: OutboxEntry) -> OutboxEntry:
    """A send whose receiver lives in the same shard, so that its inbox row is sealed under the receiver's key."""
    where = (entry.receiver, entry.command_id, entry.method)
    mark = sealer.mark(key_id, args_hash(entry.method, entry.args))
    return msgspec.structs.replace(entry, args=_seal(sealer, key_id, entry.args, "args", *where), args_hash=mark)


def unsealed_send(sealer: Sealer, sender: str, entry: OutboxEntry) -> OutboxEntry:
    """Raises UnreadablePayloadError, CorruptLogError."""
    args = _unseal(sealer, entry.args, "send", sender, entry.receiver, entry.command_id, entry.method)
    return msgspec.structs.replace(entry, args=args)


def sealed_timer(sealer: Sealer, key_id: str, timer: TimerEntry) -> TimerEntry:
    return msgspec.structs.replace(timer, args=_seal(sealer, key_id, timer.args, "timer", timer.stream, timer.timer_id, timer.method))


def unsealed_timer(sealer: Sealer, timer: TimerEntry) -> TimerEntry:
    """Raises UnreadablePayloadError, CorruptLogError."""
    return msgspec.structs.replace(timer, args=_unseal(sealer, timer.args, "timer", timer.stream, timer.timer_id, timer.method))


def sealed_wait(sealer: Sealer, key_id: str, wait: WaitEntry) -> WaitEntry:
    if wait.schema is None:
        return wait
    return msgspec.structs.replace(wait, schema=_seal(sealer, key_id, wait.schema, "wait", wait.stream, wait.wait_id))


def unsealed_wait(sealer: Sealer, wait: WaitEntry) -> WaitEntry:
    """Raises UnreadablePayloadError, CorruptLogError."""
    if wait.schema is None:
        return wait
    return msgspec.structs.replace(wait, schema=_unseal(sealer, wait.schema, "wait", wait.stream, wait.wait_id))


def sealed_snapshot(sealer: Sealer, key_id: str, snapshot: Snapshot) -> Snapshot:
    bound = ("snapshot", snapshot.stream, int(snapshot.version), snapshot.shape)
    return msgspec.structs.replace(snapshot, state=_seal(sealer, key_id, snapshot.state, *bound))


def unsealed_snapshot(sealer: Sealer, snapshot: Snapshot | None) -> Snapshot | None:
    """None if it cannot be opened: a snapshot is never needed (I-8)."""
    if snapshot is None:
        return None
    try:
        bound = ("snapshot", snapshot.stream, int(snapshot.version), snapshot.shape)
        return msgspec.structs.replace(snapshot, state=_unseal(sealer, snapshot.state, *bound), version=Version(snapshot.version))
    except (UnreadablePayloadError, CorruptLogError):
        return None


def sealed_supervision(sealer: Sealer, key_id: str, supervision: Supervision) -> Supervision:
    """Why something failed quotes what it was told."""
    letter, stopped = supervision.letter, supervision.stopped
    if letter is not None:
        where = (letter.stream, letter.command_id, letter.method)
        args = None if letter.args is None else _seal(sealer, key_id, letter.args, "letter", *where)
        reason = _sealed_text(sealer, key_id, f"{letter.args_hash}\n{letter.reason}".encode(), "reason", *where)
        mark = sealer.mark(key_id, letter.args_hash) if letter.args_hash else ""
        letter = msgspec.structs.replace(letter, args=args, reason=reason, args_hash=mark)
    if stopped is not None:
        message = _sealed_text(sealer, key_id, stopped.message.encode(), "stopped", stopped.stream)
        stopped = msgspec.structs.replace(stopped, message=message)
    revived = [sealed_inbox(sealer, key_id, entry) for entry in supervision.revived]
    return msgspec.structs.replace(supervision, letter=letter, stopped=stopped, revived=revived)


def unsealed_letter(sealer: Sealer, letter: Letter) -> Letter:
    """Raises UnreadablePayloadError, CorruptLogError."""
    if _key_of_text(letter.reason) is None:
        return letter
    where = (letter.stream, letter.command_id, letter.method)
    hash_, _, reason = _unsealed_text(sealer, letter.reason, "reason", *where).decode().partition("\n")
    args = None if letter.args is None else _unseal(sealer, letter.args, "letter", *where)
    return msgspec.structs.replace(letter, args=args, reason=reason, args_hash=hash_)


def unsealed_stopped(sealer: Sealer, stopped: StoppedActor) -> StoppedActor:
    """Raises UnreadablePayloadError, CorruptLogError."""
    message = _unsealed_text(sealer, stopped.message, "stopped", stopped.stream).decode()
    return msgspec.structs.replace(stopped, message=message)
