"""S7: may this program take a shard? Not where the shard holds an event type, schema version, actor type or format that it lacks.

A shard lists what was ever written to it, whichever app wrote it. So two apps share one data folder only while the registry of every
worker knows the types of both; else each needs a folder of its own.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from actors.journal import RESERVED_TAGS
from actors.registry import Registry
from events.errors import ConfigurationError
from events.store import Format, LogReader, ShardStore

OWN_VERSION: Final = 1
"""Of the shard format, of actor types, and of our own events."""
_NAMED_MAX: Final = 5


class UnknownFormatsError(ConfigurationError):
    """A shard holds what this program's app lacks: another worker, or another app, must take it."""

    code = "unknown_formats"


def lacking(formats: Sequence[Format], registry: Registry) -> list[Format]:
    """Those of `formats` that a program with `registry` cannot read, in their order."""
    return [each for each in formats if not _knows(each, registry)]


def _knows(each: Format, registry: Registry) -> bool:
    if each.kind == "event" and each.name not in RESERVED_TAGS:
        return any(kind.knows(each.name, each.version) for kind in registry.types.values())
    if each.kind == "actor":
        return each.name in registry.types and each.version == OWN_VERSION
    known = each.kind == "event" or (each.kind, each.name) == ("format", "shard")
    return known and each.version == OWN_VERSION


async def lacking_in(reader: LogReader, registry: Registry, shard: int) -> list[Format]:
    """`lacking` for one shard as its files stand. An actor type counts from its first event on: anybody may send a tell to a name that
    nobody has, and the row that refuses it must not close the shard for ever."""
    found = lacking(await reader.formats(shard), registry)
    return [each for each in found if each.kind != "actor" or await _has_events(reader, shard, each.name)]


async def _has_events(reader: LogReader, shard: int, type_name: str) -> bool:
    after = f"{type_name}/"
    while page := await reader.streams(after=after):
        for info in page:
            if not info.stream.startswith(f"{type_name}/"):
                return False
            if info.shard == shard:
                return True
        after = page[-1].stream
    return False


async def check_shard(store: ShardStore, registry: Registry, open_reader: Callable[[], Awaitable[LogReader]]) -> None:
    """Before a worker takes a shard, and again once nobody else can write it.

    Args:
        open_reader: called only where an actor type is unknown, to see whether it ever did anything.

    Raises:
        UnknownFormatsError: names what is lacking.
    """
    found = lacking(await store.formats(), registry)
    if any(each.kind == "actor" for each in found):
        # A tell that still waits for an actor would be refused by a worker that does not know its type.
        waiting = {entry.stream.partition("/")[0] for entry in await store.unfinished()}
        reader = await open_reader()
        try:
            found = [
                each for each in found if each.kind != "actor" or each.name in waiting or await _has_events(reader, store.shard, each.name)
            ]
        finally:
            await reader.close()
    if found:
        raise UnknownFormatsError(
            f"shard {store.shard} holds what this app lacks: {described(found, registry)}. A worker whose app knows all of it takes the "
            "shard; two apps share one data folder only if each knows the types of both",
            shard=store.shard,
            lacking=[f"{each.kind} {each.name} {each.version}" for each in found],
        )


def described(found: Sequence[Format], registry: Registry) -> str:
    """What is lacking, in words; the first few of many."""
    named = [_described(each, registry) for each in found[:_NAMED_MAX]]
    return ", ".join(named) + (f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else "")


def _described(each: Format, registry: Registry) -> str:
    if each.kind == "actor":
        return f"actor type {each.name!r}"
    if each.kind != "event":
        return f"format {each.name!r} version {each.version}"
    known = [f"{entry.chain.first} to {entry.version}" for kind in registry.types.values() if (entry := kind.events.get(each.name))]
    return f"event {each.name} in schema version {each.version} from position {each.first_position}" + (
        f" (this app reads {known[0]})" if known else ""
    )
