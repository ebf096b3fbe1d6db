"""The port between agents and the programs that speak to providers. Adapters: `actors/models/langchain_models.py` and its neighbours, put
together by `ops` from the settings."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from actors.models.limits import ProviderLimits
from actors.models.records import Answer, Failure, Request


class Asking(Protocol):
    """What a call to a model needs of the actor that makes it: the part of `Actor` whose results are recorded, so that a re-run decides
    the same."""

    @property
    def actor_type(self) -> str: ...

    @property
    def home(self) -> int: ...

    @property
    def correlation_id(self) -> str: ...

    def new_id(self) -> str: ...

    def now(self) -> datetime: ...

    def random(self) -> float: ...

    def chunk(self, data: Any) -> None: ...

    def ref(self, actor: str, id: str, *, timeout_s: float | None = None) -> Any: ...

    async def step(
        self, name: str, function: Callable[..., Any], *args: Any, key: str | None = None, timeout_s: float | None = None
    ) -> Any: ...


OnText = Callable[[str], None]
"""Called with each piece of text as it is said, on the event loop."""


class ModelClient(Protocol):
    """One provider's own client."""

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        """Ask once: no retries, no waiting for a better time.

        Args:
            key: the idempotency key. Every attempt of one call carries the same, so that a provider that knows it acts once.

        Returns:
            The answer, without cost; or why there is none, whatever it was. Never raises for what the provider does.

        If cancelled, the request is ended: the connection is closed, a child process is gone.
        """
        ...

    async def close(self) -> None: ...


class Models(Protocol):
    """All providers of a deployment."""

    def limits(self, provider: str) -> ProviderLimits:
        """Raises: BadPayload: there is no such provider; names those there are."""
        ...

    def fallbacks(self, provider: str) -> tuple[str, ...]:
        """Who is asked when `provider` cannot be had, in this order."""
        ...

    async def call(self, provider: str, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        """As `ModelClient.call`, within the provider's timeout, with its cost; identical requests under way share one answer."""
        ...
