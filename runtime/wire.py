"""Subjects, headers and bodies: what travels, apart from any client library (design.md 3).

``<ns>`` is the namespace, "cue" by default. Subjects that start with ``<ns>._`` are ours:

  <ns>._shard.<n>.ask.<type>.<id>.<method>[.<command id>]   a client's ask, mapped by the server to the shard of its actor (S8)
  <ns>._shard.<n>.call                                      a msgpack array of `Envelope`, from another worker
  <ns>._tell.<n>.<type>.<id>.<method>[.<command id>]        a tell, as the JetStream stream stores it (S11)
  <ns>._commit.<n>                                          hint: the position that a commit of the shard reached (S31)
  <ns>._control                                             hint: who owns what may have changed
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from actors.errors import BadPayload
from actors.turn import Call, Command
from events.envelope import RecordedEvent
from events.ids import CommandId, StreamId, is_token, parse_stream_id, stream_id
from events.limits import HEADERS_BYTES_MAX
from events.memo import memo
from events.store import PendingSend

DEADLINE: Final = "Cue-Deadline"
CORRELATION: Final = "Cue-Correlation-Id"
CAUSATION: Final = "Cue-Causation-Id"
TRACEPARENT: Final = "traceparent"
META: Final = "Cue-Meta"
MESSAGE_ID: Final = "Nats-Msg-Id"
ERROR_CODE: Final = "Nats-Service-Error-Code"
ERROR: Final = "Nats-Service-Error"
META_COMMAND: Final = "Cue-Command-Id"
META_SHARD: Final = "Cue-Shard"
META_VERSION: Final = "Cue-Version"
META_POSITION: Final = "Cue-Position"
VIEW_AFTER: Final = "_after"
VIEW_CALLER: Final = "_caller"
"""Members of a view's arguments that are ours: positions it must have reached, and the actor whose turn asks."""


class Address(NamedTuple):
    """The tokens of an ask or tell subject after its prefix."""

    type: str
    id: str
    method: str
    command_id: str | None


class Envelope(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One message between workers; compact, because headers cost nats-py more than half of its throughput (limits.md 3).

    kind: ask = a command with `reply` as its reply subject; send = an outbox row; ack, gap = answers to a send, for the sender's shard;
    in an ack or gap `n` is the number that was committed, or that is missing; probe = along an ask (S23). copied_since_us, client and
    patient: as in `Command`.
    """

    kind: str
    stream: str
    method: str = ""
    args: bytes = b""
    command_id: str = ""
    explicit: bool = True
    reply: str = ""
    sender: str | None = None
    causation_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    deadline_ms: int | None = None
    chain: tuple[str, ...] = ()
    time: int = 0
    n: int = 0
    incarnation: str = ""
    copied_since_us: int = 0
    client: str = ""
    patient: bool = True

    def command(self, now_us: int) -> Command:
        return Command(
            stream=StreamId(self.stream), method=self.method, args=self.args, command_id=CommandId(self.command_id),
            explicit=self.explicit, received_at_us=now_us, sender=self.sender, causation_id=self.causation_id,
            correlation_id=self.correlation_id, traceparent=self.traceparent, deadline_ms=self.deadline_ms, chain=self.chain,
            time=self.time, copied_since_us=self.copied_since_us, client=self.client, patient=self.patient,
        )  # fmt: skip


def ask_envelope(call: Call, command: Command, time: int, deadline_ms: int) -> Envelope:
    """An ask of the turn of `command`, made at the logical `time`."""
    return Envelope(
        kind="ask", stream=call.receiver, method=call.method, args=call.args, command_id=call.command_id, sender=command.stream,
        causation_id=command.command_id, correlation_id=command.correlation_id or command.command_id, traceparent=command.traceparent,
        deadline_ms=deadline_ms, chain=(*command.chain, command.stream), time=time,
    )  # fmt: skip


def send_envelope(row: PendingSend) -> Envelope:
    """An outbox row on its way."""
    entry = row.entry
    return Envelope(
        kind="send", stream=entry.receiver, method=entry.method, args=entry.args, command_id=entry.command_id, sender=row.sender,
        causation_id=entry.causation_id, correlation_id=entry.correlation_id, traceparent=entry.traceparent, deadline_ms=entry.deadline_ms,
        time=row.time, n=row.n, incarnation=row.incarnation,
    )  # fmt: skip


class Answer(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """The reply to an `Envelope` of kind ask. body: JSON of the result, or of the error if `failed`."""

    body: bytes
    failed: bool = False
    version: int = 0
    position: int = 0
    time: int = 0


def client_of(reply_to: str) -> str:
    """What tells one asking connection from another: clients put all their replies under one prefix (``_INBOX.<connection>.<n>``). Empty
    where a subject stands alone: whoever asks so shares one turn with all who do."""
    prefix, _, _ = reply_to.rpartition(".")
    return prefix if "." in prefix else ""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A message on ``<ns>._control``. op: changed | offer | ready | taken. Only hints: losing one costs time, never a promise.

    epoch: of an offer, that of the owner.
    """

    op: str
    worker: str = ""
    shard: int = -1
    to: str = ""
    epoch: int = 0


_packer = msgspec.msgpack.Encoder()
encode_envelopes = _packer.encode
encode_answer = _packer.encode
decode_envelopes = msgspec.msgpack.Decoder(list[Envelope]).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


class Subjects:
    """All subjects of one namespace."""

    def __init__(self, namespace: str, shards: int) -> None:
        self.namespace = namespace
        self.shards = shards
        self.control = f"{namespace}._control"
        self.stream_name = f"{namespace}_tell"

    def ask(self, stream: str, method: str, command_id: str | None = None) -> str:
        return self._command("ask", stream, method, command_id)

    def tell(self, stream: str, method: str, command_id: str | None = None) -> str:
        return self._command("tell", stream, method, command_id)

    def _command(self, verb: str, stream: str, method: str, command_id: str | None) -> str:
        type_name, key = parse_stream_id(stream)
        return f"{self.namespace}.{verb}.{type_name}.{key}.{method}" + (f".{command_id}" if command_id else "")

    def event(self, event: RecordedEvent) -> str:
        type_name, _, key = event.stream.partition("/")
        return f"{self.namespace}.event.{type_name}.{key}.{event.type}"

    def chunk(self, command: Command) -> str:
        type_name, _, key = command.stream.partition("/")
        return f"{self.namespace}.chunk.{type_name}.{key}.{command.method}.{command.command_id}"

    def view(self, projection: str, operation: str) -> str:
        return f"{self.namespace}.view.{projection}.{operation}"

    def log(self, operation: str) -> str:
        return f"{self.namespace}.log.{operation}"

    def shard(self, shard: int) -> str:
        """The prefix of everything that reaches the owner of `shard`."""
        return f"{self.namespace}._shard.{shard}"

    def call(self, shard: int) -> str:
        return f"{self.namespace}._shard.{shard}.call"

    def commit(self, shard: int | str) -> str:
        return f"{self.namespace}._commit.{shard}"

    def tell_shard(self, shard: int | str) -> str:
        return f"{self.namespace}._tell.{shard}"

    def server_mappings(self) -> dict[str, str]:
        """For a server of ours: the mapping that routes an ask to its shard inside the server (S8)."""
        target = f"{self.namespace}._shard.{{{{partition({self.shards},1,2)}}}}.ask.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.>"
        return {f"{self.namespace}.ask.*.*.>": target}

    def tell_transform(self) -> tuple[str, str]:
        """(source, destination) of the JetStream stream's own transform, which needs no server of ours."""
        target = f"{self.namespace}._tell.{{{{partition({self.shards},1,2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.>"
        return f"{self.namespace}.tell.*.*.>", target


def parse_address(tokens: list[str]) -> Address:
    """``type, id, method[, command id]`` as an address.

    Raises:
        BadPayload: too few or many tokens, or one that is no token of ours.
    """
    if len(tokens) not in (3, 4):
        raise BadPayload("the subject must be <namespace>.ask.<type>.<id>.<method>[.<command id>]", field="subject")
    for name, token in zip(("type", "id", "method", "command id"), tokens, strict=False):
        if not is_token(token):
            raise BadPayload(f"the {name} {token!r} is not 1 to 64 letters, digits, '_' or '-'", field="subject")
    return Address(tokens[0], tokens[1], tokens[2], tokens[3] if len(tokens) == 4 else None)


def parse_ask(address: str) -> tuple[StreamId, str, str | None]:
    """Stream, method and command id (None without one) of ``type.id.method[.command id]``. Raises as `parse_address`."""
    command_id: str | None = None
    if address.count(".") == 3:
        address, _, command_id = address.rpartition(".")
        if not is_token(command_id):
            parse_address([*address.split("."), command_id])
    stream, method = _known_address(address)
    return stream, method, command_id


@memo("addresses of asks", 16_384)
def _known_address(address: str) -> tuple[StreamId, str]:
    """Checked once: the same actors are asked for the same things again and again."""
    found = parse_address(address.split("."))
    return stream_id(found.type, found.id), found.method


class Headers(NamedTuple):
    """The optional headers of a command, checked."""

    command_id: str | None = None
    deadline_ms: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    meta: bool = False


NO_HEADERS: Final = Headers()


def parse_headers(headers: dict[str, str] | None, *, tell: bool = False) -> Headers:
    """Raises: BadPayload: a header of ours that cannot be read, or more than 16 KiB of them."""
    if not headers:
        return NO_HEADERS
    if sum(len(name) + len(value) for name, value in headers.items()) > HEADERS_BYTES_MAX:
        raise BadPayload(f"the headers have more than {HEADERS_BYTES_MAX:,} bytes", field="headers")
    deadline: int | None = None
    if (text := headers.get(DEADLINE)) is not None:
        if not (text.isascii() and text.isdecimal()) or len(text) > 18:
            raise BadPayload(f"{DEADLINE} is {text[:32]!r}, expected milliseconds since 1970", field=DEADLINE)
        deadline = int(text)
    # On a tell, Nats-Msg-Id is JetStream's own key across all actors, never our id (S11).
    command_id = None if tell else headers.get(MESSAGE_ID)
    for name, value in ((MESSAGE_ID, command_id), (CORRELATION, headers.get(CORRELATION)), (CAUSATION, headers.get(CAUSATION))):
        if value is not None and not is_token(value):
            raise BadPayload(f"{name} is {value[:80]!r}, expected 1 to 64 letters, digits, '_' or '-'", field=name)
    return Headers(
        command_id, deadline, headers.get(CORRELATION), headers.get(CAUSATION), (headers.get(TRACEPARENT) or None), headers.get(META) == "1"
    )


_encoder = msgspec.json.Encoder()


def iso_time(at_us: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    seconds, us = divmod(at_us, 1_000_000)
    return f"{_iso_second(seconds)}.{us:06d}Z"


@memo("seconds as text", 64)
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


class _CloudEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """Attributes in the order in which they are written; None is left out."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str
    sequence: str
    schemaversion: int
    kind: str
    shard: int
    position: str
    logicaltime: str
    branch: str
    correlationid: str | None = None
    causationid: str | None = None
    commandid: str | None = None
    traceparent: str | None = None
    sender: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw | None = None


def cloud_event(event: RecordedEvent, namespace: str, *, data: bool) -> bytes:
    """`event` as a structured CloudEvents 1.0 body; extension names are lower-case letters and digits, as that specification demands;
    without `data` where it is sealed or too large to publish (S12, S29)."""
    stream = event.stream
    return _encoder.encode(_CloudEvent(
        # Attributes of CloudEvents are 32-bit integers at most: what outgrows them travels as text.
        "1.0", event.event_id, f"/{namespace}/{stream}", event.type, iso_time(event.recorded_at_us), stream, str(event.version),
        event.schema_version, event.kind._value_, event.shard, str(event.position), str(event.time), event.branch,
        event.correlation_id, event.causation_id, event.command_id, event.traceparent, event.sender,
        "application/json" if data else None, event.payload if data else None,
    ))  # fmt: skip
