"""The lines of an export (FORMAT.md 8): events in the one record shape, and tagged lines for what else decides an answer."""

from typing import Any, Final

import msgspec

from events.envelope import RecordedEvent
from events.errors import CorruptLogError
from events.ids import CommandId, StreamId
from events.sqlite.rows import InboxRow
from events.store import InboxEntry, InboxStatus, OutboxEntry, PendingSend, TimerEntry, WaitEntry

EXPORT_FORMAT: Final = 1
CHECKED_LINES: Final = 1_000
"""After so many lines comes one with their checksums, so that a damaged line is named whatever stands in it."""
TAG: Final = b'{"record":'
"""How every line begins that is no event."""
NO_BODY: Final = msgspec.Raw()


class Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", omit_defaults=True, forbid_unknown_fields=True):
    """A line that is no event. A body (`msgspec.Raw`) that is absent is left out: `null` is a body too."""


class HeaderLine(Line, frozen=True, kw_only=True, tag="header"):
    """The first line. streams: those asked for, None = all. conversation: the correlation id of the only one that is in here."""

    format: int
    incarnation: str
    shards: int
    created: int
    streams: list[str] | None
    conversation: str | None = None


class StreamLine(Line, frozen=True, kw_only=True, tag="stream"):
    """A stream that is not live, or a fork; before all events."""

    stream: str
    status: str
    base_version: int
    base_hash: str | None


class ExactLine(Line, frozen=True, kw_only=True, tag="exact"):
    """What the shape of the next event cannot carry. payload_digest: of an erased event, hex. payload: base64 of a payload that does
    not fit into one line as it stands."""

    payload_digest: str | None
    payload: bytes | None


class InboxLine(Line, frozen=True, kw_only=True, tag="inbox"):
    stream: str
    command_id: str
    method: str
    args_hash: str
    status: InboxStatus
    code: int | None
    sender: str | None
    causation_id: str | None
    correlation_id: str | None
    traceparent: str | None
    deadline_ms: int | None
    source: str | None
    explicit: bool
    received_at_us: int
    received_time: int
    completed_at_us: int | None
    args: msgspec.Raw = NO_BODY
    reply: msgspec.Raw = NO_BODY


class OutboxLine(Line, frozen=True, kw_only=True, tag="outbox"):
    sender: str
    receiver: str
    incarnation: str
    n: int
    method: str
    command_id: str
    causation_id: str | None
    correlation_id: str | None
    traceparent: str | None
    deadline_ms: int | None
    time: int
    args: msgspec.Raw


class SentLine(Line, frozen=True, kw_only=True, tag="sent"):
    sender: str
    receiver: str
    incarnation: str
    n: int


class ReceivedLine(Line, frozen=True, kw_only=True, tag="received"):
    sender: str
    receiver: str
    incarnation: str
    n: int


class TimerLine(Line, frozen=True, kw_only=True, tag="timer"):
    stream: str
    timer_id: str
    due_us: int
    wall: bool
    every_us: int | None
    method: str
    set_at_us: int
    correlation_id: str | None
    args: msgspec.Raw


class WaitLine(Line, frozen=True, kw_only=True, tag="wait"):
    stream: str
    wait_id: str
    name: str
    command_id: str
    opened_at_us: int
    expires_at_us: int | None
    schema: msgspec.Raw = NO_BODY


class KeyLine(Line, frozen=True, kw_only=True, tag="key"):
    stream: str
    key_id: str


class ChecksLine(Line, frozen=True, kw_only=True, tag="checks"):
    """CRC-32 of each line since the last such line, without its newline."""

    crc: list[int]


class EndLine(Line, frozen=True, kw_only=True, tag="end"):
    """The last line. lines: all before it. sha256: of all bytes before it, hex."""

    events: int
    lines: int
    sha256: str


Row = InboxLine | OutboxLine | SentLine | ReceivedLine | TimerLine | WaitLine | KeyLine
AnyLine = HeaderLine | StreamLine | ExactLine | Row | ChecksLine | EndLine

decode_line: Final[msgspec.json.Decoder[AnyLine]] = msgspec.json.Decoder(AnyLine)
decode_event: Final = msgspec.json.Decoder(RecordedEvent)
encode: Final = msgspec.json.Encoder().encode
_decode_any: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


def fits_a_line(body: bytes) -> bool:
    """Whether `body` can stand in a line as it is."""
    return b"\n" not in body and b"\r" not in body


def one_line(body: bytes | None, what: str) -> msgspec.Raw:
    """`body` as part of a line; line breaks between its tokens are left out.

    Raises:
        CorruptLogError: it is not JSON.
    """
    if body is None:
        return NO_BODY
    try:
        _decode_any.decode(body)
        return msgspec.Raw(body if fits_a_line(body) else msgspec.json.format(body, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptLogError(f"a body of {what} is not JSON: {error}. Run: cuebook verify") from error


def body_of(raw: msgspec.Raw) -> bytes | None:
    """What `one_line` was given."""
    return bytes(raw) or None


def inbox_line(row: InboxRow) -> InboxLine:
    entry, what = row.entry, f"command {row.entry.command_id} of {row.entry.stream}"
    return InboxLine(
        stream=entry.stream, command_id=entry.command_id, method=entry.method, args_hash=entry.args_hash, status=entry.status,
        code=entry.code, sender=entry.sender, causation_id=entry.causation_id, correlation_id=entry.correlation_id,
        traceparent=entry.traceparent, deadline_ms=entry.deadline_ms, source=entry.source, explicit=entry.explicit,
        received_at_us=entry.received_at_us, received_time=row.received_time, completed_at_us=entry.completed_at_us,
        args=one_line(entry.args, what), reply=one_line(entry.reply, what),
    )  # fmt: skip


def inbox_entry(line: InboxLine) -> InboxEntry:
    return InboxEntry(
        stream=StreamId(line.stream), command_id=CommandId(line.command_id), method=line.method, args_hash=line.args_hash,
        status=line.status, code=line.code, sender=line.sender, causation_id=line.causation_id,
        correlation_id=line.correlation_id, traceparent=line.traceparent, deadline_ms=line.deadline_ms, source=line.source,
        explicit=line.explicit, received_at_us=line.received_at_us, completed_at_us=line.completed_at_us,
        args=body_of(line.args), reply=body_of(line.reply),
    )  # fmt: skip


def outbox_line(send: PendingSend) -> OutboxLine:
    entry = send.entry
    return OutboxLine(
        sender=send.sender, receiver=entry.receiver, incarnation=send.incarnation, n=send.n, method=entry.method,
        command_id=entry.command_id, causation_id=entry.causation_id, correlation_id=entry.correlation_id,
        traceparent=entry.traceparent, deadline_ms=entry.deadline_ms, time=send.time,
        args=one_line(entry.args, f"send {entry.command_id} of {send.sender}"),
    )  # fmt: skip


def pending_send(line: OutboxLine) -> PendingSend:
    entry = OutboxEntry(
        receiver=StreamId(line.receiver), method=line.method, args=bytes(line.args), command_id=CommandId(line.command_id),
        causation_id=line.causation_id, correlation_id=line.correlation_id, traceparent=line.traceparent, deadline_ms=line.deadline_ms,
    )  # fmt: skip
    return PendingSend(sender=StreamId(line.sender), n=line.n, incarnation=line.incarnation, time=line.time, entry=entry)


def timer_line(timer: TimerEntry) -> TimerLine:
    return TimerLine(
        stream=timer.stream, timer_id=timer.timer_id, due_us=timer.due_us, wall=timer.wall, every_us=timer.every_us,
        method=timer.method, set_at_us=timer.set_at_us, correlation_id=timer.correlation_id,
        args=one_line(timer.args, f"timer {timer.timer_id} of {timer.stream}"),
    )  # fmt: skip


def timer_entry(line: TimerLine) -> TimerEntry:
    return TimerEntry(
        stream=StreamId(line.stream), timer_id=line.timer_id, due_us=line.due_us, wall=line.wall, every_us=line.every_us,
        method=line.method, set_at_us=line.set_at_us, correlation_id=line.correlation_id, args=bytes(line.args),
    )  # fmt: skip


def wait_line(wait: WaitEntry) -> WaitLine:
    return WaitLine(
        stream=wait.stream, wait_id=wait.wait_id, name=wait.name, command_id=wait.command_id, opened_at_us=wait.opened_at_us,
        expires_at_us=wait.expires_at_us, schema=one_line(wait.schema, f"wait {wait.wait_id} of {wait.stream}"),
    )  # fmt: skip


def wait_entry(line: WaitLine) -> WaitEntry:
    return WaitEntry(
        stream=StreamId(line.stream), wait_id=line.wait_id, name=line.name, command_id=CommandId(line.command_id),
        opened_at_us=line.opened_at_us, expires_at_us=line.expires_at_us, schema=body_of(line.schema),
    )  # fmt: skip
