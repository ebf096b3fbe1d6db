"""The one shape of a recorded event, on every surface: log, tail, show, export, ``cue.log``, REST. Written down in FORMAT.md.

The fields cannot be added later without a migration of every stored log, so they are complete here; what a field means is in FORMAT.md.
"""

import hashlib
import zlib
from enum import StrEnum
from typing import Any, Final

import msgspec

from events.ids import EventId, Position, StreamId, Version

MAIN_BRANCH: Final = "main"
GENESIS_HASH: Final = bytes(32)
"""Previous hash of the first event of a stream, and the rolling hash of an empty shard."""


class Kind(StrEnum):
    """What sort of fact an event is. Only `STATE` events are folded into state."""

    STATE = "state"
    STEP = "step"
    MESSAGE = "message"
    TIMER = "timer"
    CONTROL = "control"


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event before it has a place. Times, ids, salt and hash are given by the writer of its shard.

    payload: JSON text of an object; for sealed actors the ciphertext as a JSON string, with `key_id` set.
    """

    type: str
    schema_version: int = 1
    kind: Kind = Kind.STATE
    payload: bytes
    summary: str | None = None
    error: str | None = None
    duration_us: int | None = None
    state_hash: str | None = None
    key_id: str | None = None


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with its place. Field order is the column order of the log and the key order of every surface.

    payload is raw JSON, never decoded on the way through; salt and hashes are lower-case hex.
    """

    shard: int
    position: Position
    time: int
    stream: StreamId
    version: Version
    event_id: EventId
    type: str
    schema_version: int
    recorded_at_us: int
    command_id: str | None
    causation_id: str | None
    correlation_id: str | None
    traceparent: str | None
    sender: str | None
    branch: str
    parent: str | None
    kind: Kind
    owner_epoch: int
    code_version: str | None
    duration_us: int | None
    summary: str | None
    error: str | None
    payload: msgspec.Raw
    salt: str | None
    key_id: str | None
    state_hash: str | None
    hash: str


ENVELOPE_FIELDS: Final[tuple[str, ...]] = RecordedEvent.__struct_fields__

_encode = msgspec.json.Encoder().encode
_sha256 = hashlib.sha256
HashFields = tuple[
    str, int, str, str, int, str, int, int, str | None, str | None, str | None, str | None, str, str
]  # fmt: skip
"""stream, version, event_id, type, schema_version, kind, recorded_at_us, time, command_id, causation_id, correlation_id, sender, branch,
payload's digest in hex: what the hash of an event covers, in this order (S27)."""


def payload_hash(salt: bytes, payload: bytes) -> bytes:
    """H(salt, stored payload) of S27: lets `erase` remove payload and salt while the chain still verifies."""
    return _sha256(salt + payload).digest()


def chained(previous: bytes, fields: HashFields) -> bytes:
    """`chain_hash` of fields in their order: for those that hash many events."""
    return _sha256(previous + _encode(fields)).digest()


def chain_hash(
    previous: bytes,
    *,
    stream: str,
    version: int,
    event_id: str,
    type: str,
    schema_version: int,
    kind: str,
    recorded_at_us: int,
    time: int,
    command_id: str | None,
    causation_id: str | None,
    correlation_id: str | None,
    sender: str | None,
    branch: str,
    payload_digest: bytes,
) -> bytes:
    """The hash of an event (S27): SHA-256 over the previous hash and the canonical JSON array of what never changes about it.

    Shard, position, epoch, duration and summary stay outside, so that import, other shard counts and forks keep it.
    """
    return chained(previous, (
        stream, version, event_id, type, schema_version, kind, recorded_at_us, time,
        command_id, causation_id, correlation_id, sender, branch, payload_digest.hex(),
    ))  # fmt: skip


def rolling_hash(previous: bytes, event_hash: bytes) -> bytes:
    """The hash of a shard up to a position: over all event hashes in position order (S27)."""
    return _sha256(previous + event_hash).digest()


def row_check(*fields: Any) -> int:
    """CRC-32 over fields that no hash covers, stored beside them, so that a flipped bit in any of them is named (S27)."""
    return zlib.crc32(_encode(fields))


def checksum(fields: tuple[Any, ...]) -> int:
    """`row_check` of fields that are in a tuple already."""
    return zlib.crc32(_encode(fields))
