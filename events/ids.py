"""Names of things in the log, and the checks that keep them safe to put into a subject, a path or a query."""

import re
from typing import NewType

from events.memo import memo

StreamId = NewType("StreamId", str)
"""``type/id`` of one actor: the stream of its events."""
Version = NewType("Version", int)
"""Place of an event in its stream, 1..n; 0 means the stream does not exist."""
Position = NewType("Position", int)
"""Place of an event in one shard of the log, 1..n in commit order."""
EventId = NewType("EventId", str)
CommandId = NewType("CommandId", str)

TOKEN_PATTERN = r"[A-Za-z0-9_-]{1,64}"
_NAMES_CACHED = 16_384
_TOKEN = re.compile(TOKEN_PATTERN)
_TAG = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193


def is_token(text: str) -> bool:
    """True if `text` may stand as one NATS subject token of ours: no dot, wildcard, space or non-ASCII letter."""
    return _TOKEN.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """True if `text` is an event tag such as ``account.deposited``: dotted lower-case words, at least two."""
    return len(text) <= 128 and _TAG.fullmatch(text) is not None


def stream_id(type_name: str, key: str) -> StreamId:
    """The stream of actor `key` of `type_name`.

    Raises:
        ValueError: a part is not a single subject token.
    """
    for part in (type_name, key):
        if not is_token(part):
            raise ValueError(f"{part!r} is not a name of 1 to 64 letters, digits, '_' or '-'")
    return StreamId(f"{type_name}/{key}")


@memo("names of streams", _NAMES_CACHED)
def parse_stream_id(text: str) -> tuple[str, str]:
    """``type/id`` as its two parts.

    Raises:
        ValueError: not of that form.
    """
    type_name, slash, key = text.partition("/")
    if not slash or not is_token(type_name) or not is_token(key):
        raise ValueError(f"{text!r} is not an actor's name; expected TYPE/ID")
    return type_name, key


@memo("shards of actors", _NAMES_CACHED)
def shard_of(type_name: str, key: str, shards: int) -> int:
    """The shard that holds actor `key` of `type_name`: FNV-1a-32 of both joined, modulo `shards`.

    The same function as nats-server's ``partition(n, 1, 2)`` subject mapping (S8), so the server routes to the owner without our help.
    """
    digest = _FNV_OFFSET
    for byte in (type_name + key).encode():
        digest = ((digest ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return digest % shards


@memo("shards of streams", _NAMES_CACHED)
def shard_of_stream(stream: str, shards: int) -> int:
    """`shard_of` the actor called ``type/id``.

    Raises:
        ValueError: not of that form.
    """
    return shard_of(*parse_stream_id(stream), shards)
