"""Results of steps that somebody has had before (S37): the port of the cache, and what a result is found by.

A hit is journaled as the result of the step, so a re-run and a replay never ask the cache. Without a cache every lookup is a miss; so is
whatever is wrong with one.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from actors.effects import duration_us
from actors.errors import BadPayload
from events.caching import NAMESPACE_DEFAULT, NAMESPACES, Address, Cached, Caching
from events.codec import canonical_hash, encode_checked
from events.errors import EncodingError
from events.ids import StreamId
from events.limits import CACHE_TTL_MAX_S

if TYPE_CHECKING:
    from actors.driver import Driver
    from actors.turn import Turn

_KEY_FORMAT: Final = "step-cache-1"


class StepCache(Protocol):
    """What a turn needs of a cache. Adapters: `projections/cache`, handed in by `ops`."""

    async def get(self, address: Address, stream: StreamId) -> Cached | None:
        """The newest known result under `address` that came from `stream` and is still good, else None.

        After None the caller is the one of this process that runs the step: others that ask for the same address wait until it calls
        `keep` or `give_up`. Never raises for what is wrong with the cache; if cancelled, nobody waits for this caller.
        """
        ...

    def keep(self, address: Address, cached: Cached) -> None:
        """A result that is committed: whoever asks from here gets it at once."""
        ...

    def give_up(self, address: Address) -> None:
        """There is no result: the next who waits runs the step."""
        ...

    def forget(self, stream: StreamId) -> None:
        """Drop what came from `stream`: it was erased (S29)."""
        ...


class CacheWish(NamedTuple):
    """What the author of a step said of the cache.

    ttl: seconds or a timedelta, None = what `NAMESPACES` says. content: what the result depends on, any JSON value; None = the arguments.
    Refused with BadPayload: an unknown namespace, no time between 0 and a day, or nothing that says what the result depends on.
    """

    ttl: float | timedelta | None = None
    namespace: str | None = None
    content: Any = None


StepCall = tuple[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
"""Name of a step, its function, and what that is called with."""


class CachedStep:
    """One use of the cache by one step. `end` must be called, whatever became of it."""

    __slots__ = ("_accepts", "_address", "_cache", "_caching", "_open", "_stream")

    def __init__(
        self, cache: StepCache | None, caching: Caching, workspace: str, stream: StreamId, accepts: Callable[[bytes], object]
    ) -> None:
        """
        Args:
            accepts: decodes a result as the step's return type; raises `msgspec.DecodeError` for another.
        """
        self._cache = cache
        self._caching = caching
        self._address = Address(workspace, caching.namespace, caching.key)
        self._stream = stream
        self._accepts = accepts
        self._open = False

    async def look_up(self) -> Cached | None:
        """A result to use in place of running the step."""
        if self._cache is None:
            return None
        found = await self._cache.get(self._address, self._stream)
        if found is not None:
            try:
                self._accepts(found.result)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # Of a former shape of the type. Nobody waits for us: whoever asks next finds the same.
                return None
        self._open = found is None
        return found

    def mark(self) -> dict[str, Any]:
        """What the journal says of a miss."""
        return {"cache": self._caching}

    def fields(self, hit: Cached) -> dict[str, Any]:
        """... and of a hit."""
        return {"result": msgspec.Raw(hit.result), "cache": msgspec.structs.replace(self._caching, hit=hit.version)}

    def keep(self, result: bytes, version: int, at_us: int) -> None:
        """The step ran and its result is committed as `version`."""
        if self._cache is not None:
            self._open = False
            self._cache.keep(self._address, Cached(result, self._stream, version, at_us + self._caching.ttl_us))

    def end(self) -> None:
        if self._open and self._cache is not None:
            self._open = False
            self._cache.give_up(self._address)


def cached_step(
    turn: "Turn", driver: "Driver", wish: CacheWish, call: StepCall, accepts: Callable[[bytes], object]
) -> CachedStep | None:
    """The use of the cache that a step asks for. None: its actor is sealed, and what that hears is nowhere in clear text (S29).

    Raises:
        BadPayload: see `CacheWish`.
    """
    # A step's name means something in its method only; other code may give other results.
    caching = _caching((turn.kind.name, turn.method.name, driver.code_version), wish, call)
    if turn.kind.sealed:
        return None
    return CachedStep(driver.step_cache, caching, turn.key, turn.command.stream, accepts)


def _caching(place: tuple[str, str, str | None], wish: CacheWish, call: StepCall) -> Caching:
    namespace = NAMESPACE_DEFAULT if wish.namespace is None else wish.namespace
    if namespace not in NAMESPACES:
        raise BadPayload(f"{namespace!r} is no namespace of the cache (there are: {', '.join(NAMESPACES)})")
    ttl_us = duration_us(NAMESPACES[namespace] if wish.ttl is None else wish.ttl)
    if not 0 < ttl_us <= CACHE_TTL_MAX_S * 1_000_000:
        raise BadPayload(f"step {call[0]}: cache_ttl is more than 0 and at most {CACHE_TTL_MAX_S:,.0f} s")
    depends = _content(*call) if wish.content is None else {"given": wish.content}
    try:
        encode_checked(depends, f"what step {call[0]} depends on")
    except EncodingError as error:
        raise BadPayload(f"{error.message}: say it with cache_key=") from error
    return Caching(namespace=namespace, key=canonical_hash([_KEY_FORMAT, *place, call[0], depends]), ttl_us=ttl_us)


def _content(step: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, those of a `partial` included. What a method or a closure holds besides is not to be seen here."""
    bound: list[Any] = []
    while isinstance(function, functools.partial):
        bound.append([list(function.args), function.keywords])
        function = function.func
    if not inspect.isfunction(function) or function.__closure__:
        raise BadPayload(f"step {step}: its function may depend on more than its arguments: say on what with cache_key=")
    # Bytes and text, or a tuple and a list, may look the same in JSON.
    types = [type(value).__qualname__ for value in (*args, *kwargs.values())]
    return {"args": [list(args), dict(kwargs)], "types": types, "bound": bound}
