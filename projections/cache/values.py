"""What stands in the server: names and values, and how a value that is not ours is told from one that is.

A value is a MAC and a JSON body. The MAC (HMAC-SHA-256 under a secret of the deployment) covers the name as well, so a value that was moved
to another key, or to another workspace's, is no value there. Nothing is decoded before its MAC was checked, and a body names no code: what
is wrong is a miss (facts/durability.md 4.2).
"""

import hashlib
import hmac
from typing import Final

import msgspec

from events.caching import Address, Cached
from events.ids import StreamId
from events.limits import CACHE_VALUE_BYTES_MAX

MAC_BYTES: Final = 32
STORED_BYTES_MAX: Final = CACHE_VALUE_BYTES_MAX + 1_024
"""The result, and around it where it comes from: a stream's name has at most 129 characters."""
_FORMAT: Final = "1"
ROOT: Final = "cuebook"
"""First part of every name: what an access rule of the server is written for."""


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stream: str
    version: int
    expires_us: int
    result: msgspec.Raw


class Counts(msgspec.Struct, kw_only=True):
    """Lookups of steps whose outcome is in the log."""

    hits: int = 0
    misses: int = 0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the server is filled, and what was counted on the way. positions: by shard. Stands in the server beside the values, so that
    who loses these loses it too, and the counts begin anew with the positions that they were counted from."""

    positions: dict[int, int]
    counts: dict[str, Counts]


class Values:
    """Names and values of one log in a server that others may share. incarnation: of the log; a restored one begins with an empty cache."""

    def __init__(self, incarnation: str, secret: bytes) -> None:
        self.prefix = f"{ROOT}:{_FORMAT}:{incarnation}"
        self.checkpoint = f"{self.prefix}:checkpoint"
        self._secret = secret
        self._decoder = msgspec.json.Decoder(_Body)

    def name(self, address: Address) -> str:
        return f"{self.prefix}:{address.namespace}:{address.workspace}:{address.key}"

    def names_of(self, workspace: str) -> str:
        """A pattern for the names of a workspace, as SCAN takes it; its parts hold no character that means something there."""
        return f"{self.prefix}:*:{workspace}:*"

    def encode(self, name: str, cached: Cached) -> bytes:
        return self._sealed(name, msgspec.json.encode(_Body(cached.stream, cached.version, cached.expires_us, msgspec.Raw(cached.result))))

    def decode(self, name: str, value: bytes) -> Cached | None:
        """None for what is not ours, or was ours under another name."""
        body = self._opened(name, value)
        if body is None:
            return None
        try:
            found = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return Cached(bytes(found.result), StreamId(found.stream), found.version, found.expires_us)

    def encode_checkpoint(self, checkpoint: Checkpoint) -> bytes:
        return self._sealed(self.checkpoint, msgspec.json.encode(checkpoint))

    def decode_checkpoint(self, value: bytes | None) -> Checkpoint | None:
        """None for none, and for one that is not ours."""
        body = None if value is None else self._opened(self.checkpoint, value)
        if body is None:
            return None
        try:
            return msgspec.json.decode(body, type=Checkpoint)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _sealed(self, name: str, body: bytes) -> bytes:
        return self._mac(name, body) + body

    def _opened(self, name: str, value: bytes) -> bytes | None:
        body = value[MAC_BYTES:]
        return body if hmac.compare_digest(self._mac(name, body), value[:MAC_BYTES]) else None

    def _mac(self, name: str, body: bytes) -> bytes:
        return hmac.digest(self._secret, hashlib.sha256(name.encode()).digest() + body, "sha256")
