"""The providers of this process: clients, limits, and one flight for identical questions."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from actors.errors import BadPayload
from actors.models.limits import ProviderLimits
from actors.models.port import ModelClient, OnText
from actors.models.records import Answer, Failure, Request, Usage
from events.codec import canonical_hash


class Spawn(Protocol):
    def __call__(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]": ...


_UNSEEN: Final = Usage()


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: its client, what it is allowed, and who stands in for it. opened: what is waited for before the time of a call runs."""

    client: ModelClient
    limits: ProviderLimits = ProviderLimits()
    fallbacks: tuple[str, ...] = ()
    opened: Callable[[], Awaitable[object]] | None = None


class _Flight:
    """A question under way, and those who wait for its answer."""

    __slots__ = ("listeners", "paid", "said", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Answer | Failure] | None = None
        self.listeners: list[OnText] = []
        self.said: list[str] = []
        self.paid = False
        """Somebody has taken what it cost upon himself: the first to hear the answer, since who began it may be gone."""

    def hear(self, text: str) -> None:
        self.said.append(text)
        for listener in self.listeners:
            listener(text)


class ProviderRegistry:
    """Adapter of `actors.models.port.Models`."""

    def __init__(self, providers: Mapping[str, Configured], spawn: Spawn) -> None:
        """
        Args:
            spawn: starts a task that belongs to the process: a flight goes on for others when the one who began it is cancelled.

        Raises:
            ValueError: a fallback names nobody, or itself.
        """
        for name, configured in providers.items():
            for other in configured.fallbacks:
                if other not in providers or other == name:
                    raise ValueError(f"the fallback {other!r} of {name!r} is not another provider")
        self._providers = dict(providers)
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._spawn = spawn

    @property
    def names(self) -> Sequence[str]:
        return sorted(self._providers)

    def limits(self, provider: str) -> ProviderLimits:
        return self._of(provider).limits

    def fallbacks(self, provider: str) -> tuple[str, ...]:
        return self._of(provider).fallbacks

    async def call(self, provider: str, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        configured = self._of(provider)
        address = provider, canonical_hash(request)
        flight = self._flights.get(address)
        if flight is None:
            flight = self._flights[address] = _Flight()
            flight.listeners.append(on_text)
            flight.task = self._spawn(self._fly(configured, request, key, flight), name=f"model call to {provider}")
            flight.task.add_done_callback(lambda _: self._landed(address, flight))
        else:
            on_text("".join(flight.said))
            flight.listeners.append(on_text)
        task = flight.task
        if task is None:
            raise RuntimeError("a flight without a task")
        try:
            ended = await asyncio.shield(task)
        finally:
            flight.listeners.remove(on_text)
            if not flight.listeners and not task.done():
                # Nobody waits any more: the request is ended, and this returns when it is.
                self._landed(address, flight)
                task.cancel()
                await asyncio.wait([task])
        if not flight.paid:
            flight.paid = True
            return ended
        return msgspec.structs.replace(ended, usage=_UNSEEN, shared=True)

    async def _fly(self, configured: Configured, request: Request, key: str, flight: _Flight) -> Answer | Failure:
        limits = configured.limits
        if configured.opened is not None:
            await configured.opened()
        try:
            async with asyncio.timeout(limits.timeout_s):
                ended = await configured.client.call(request, key, flight.hear)
        except TimeoutError:
            return Failure(kind="transient", code="timeout", message=f"no answer within {limits.timeout_s:g} s")
        usage = ended.usage
        cost = limits.cost(usage.input_tokens, usage.output_tokens)
        return msgspec.structs.replace(ended, usage=msgspec.structs.replace(usage, cost_micro_usd=cost))

    def _of(self, provider: str) -> Configured:
        try:
            return self._providers[provider]
        except KeyError:
            known = ", ".join(self.names) or "none is configured"
            raise BadPayload(f"there is no model provider {provider!r}: {known}", provider=provider) from None

    def _landed(self, address: tuple[str, str], flight: _Flight) -> None:
        # Another one may have begun meanwhile: one that nobody waits for is given up before it has ended.
        if self._flights.get(address) is flight:
            del self._flights[address]

    async def close(self) -> None:
        """End what is under way, then close the clients."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for configured in self._providers.values():
            await configured.client.close()
