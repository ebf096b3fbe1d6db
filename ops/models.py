"""The model services of a worker, from its settings; and the actor types that every deployment has because of them."""

import asyncio
import concurrent.futures
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from actors.files import Files
from actors.models.claude_code import ClaudeCodeClient
from actors.models.langchain_models import INSTALL, NEEDED, Endpoint, failure_of, open_client
from actors.models.limits import ProviderLimits
from actors.models.port import ModelClient, OnText
from actors.models.provider import Provider
from actors.models.records import Answer, Failure, Request
from actors.models.registry import Configured, ProviderRegistry
from events.errors import ConfigurationError
from ops.exits import StartError
from ops.settings import ModelSettings, Settings
from ops.versions import distribution_version
from runtime.app import App
from runtime.tasks import Tasks

log = structlog.get_logger("cuebook.models")
_DEFAULT_KEYS: Final = {"openai": "env:OPENAI_API_KEY", "anthropic": "env:ANTHROPIC_API_KEY", "perplexity": "env:PERPLEXITY_API_KEY"}


def with_providers(app: App) -> App:
    """`app` with the actor types ``provider`` and ``files``, unless it has some of its own by these names."""
    for built_in in (Provider, Files):
        if built_in.__actor_name__ not in app.registry.types:
            app = app.adding(built_in, projections=app.projections)
    return app


@asynccontextmanager
async def open_models(settings: Settings) -> AsyncIterator[ProviderRegistry | None]:
    """Clients of all configured providers, closed at the end; None if there are none.

    Raises:
        StartError: a client library is not installed, a key is not where the settings say, or a fallback names nobody.
    """
    if not settings.models:
        yield None
        return
    tasks = Tasks()
    clients = {name: _client(name, model) for name, model in settings.models.items()}
    providers = {
        name: Configured(
            client=clients[name], limits=limits_of(model), fallbacks=model.fallbacks, opened=getattr(clients[name], "opened", None)
        )
        for name, model in settings.models.items()
    }
    try:
        registry = ProviderRegistry(providers, tasks.spawn)
    except ValueError as error:
        step = "correct `fallbacks` in the settings"
        raise StartError("the model providers do not fit together", why=str(error), next_step=step) from error
    later = [client for client in clients.values() if isinstance(client, OpenedLater)]
    if later:
        tasks.spawn(asyncio.to_thread(_open_all, later), name="open model clients")
    try:
        yield registry
    finally:
        await registry.close()
        await tasks.cancel_all()


def limits_of(model: ModelSettings) -> ProviderLimits:
    """What of the settings travels to the provider's actor, and so into the log: bounds and prices only."""
    return ProviderLimits(**{name: getattr(model, name) for name in ProviderLimits.__struct_fields__})


def _client(name: str, model: ModelSettings) -> ModelClient:
    key = model.api_key or _DEFAULT_KEYS.get(model.kind)
    if model.kind == "local":
        return _local(name, model.model)
    if model.kind == "claude_code":
        own_key = None if key is None else _reader(name, key)
        return ClaudeCodeClient(name, model.model, api_key=own_key, base_url=model.base_url)
    missing = [each for each in NEEDED[model.kind] if distribution_version(each) is None]
    if missing:
        step = f"{INSTALL}, or take the provider out of the settings"
        raise StartError(f"the model provider {name} needs {missing[0]}", why="it is not installed", next_step=step)
    endpoint = Endpoint(kind=model.kind, model=model.model, base_url=model.base_url)
    secret = _reader(name, key or "")()  # now: who starts a worker is told that there is none
    return OpenedLater(name, lambda: open_client(name, endpoint, lambda: secret, model.timeout_s))


class OpenedLater:
    """A client whose library is imported beside the start of the worker: it takes longer than all the rest of that, and a shard that has
    no owner waits for none of it. A library that is there and does not work fails the calls, and nothing else."""

    def __init__(self, provider: str, make: Callable[[], ModelClient]) -> None:
        self._provider = provider
        self._make = make
        self._client: concurrent.futures.Future[ModelClient | Failure] = concurrent.futures.Future()

    def open(self) -> None:
        """Blocks; in a thread, once."""
        try:
            self._client.set_result(self._make())
        except Exception as error:
            log.exception("model_client_not_opened", provider=self._provider)
            self._client.set_result(failure_of(error))

    async def opened(self) -> ModelClient | Failure:
        """The client, once it is there; what every call fails with, if it cannot be had."""
        if self._client.done():
            return self._client.result()
        return await asyncio.shield(asyncio.wrap_future(self._client))

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        """As `ModelClient.call`."""
        client = await self.opened()
        return client if isinstance(client, Failure) else await client.call(request, key, on_text)

    async def close(self) -> None:
        """As `ModelClient.close`."""
        if self._client.done() and not isinstance(client := self._client.result(), Failure):
            await client.close()


def _open_all(clients: Sequence[OpenedLater]) -> None:
    # One after another: of two threads that import what imports each other, one might see half of it.
    for client in clients:
        client.open()


def _local(name: str, model: str) -> ModelClient:
    try:
        from actors.models.local_chat import open_local
    except ImportError as error:
        step = "pip install 'cuebook[local]'"
        raise StartError(f"the model provider {name} runs in this process, and {error.name} is not installed", next_step=step) from error
    try:
        return open_local(name, model)
    except ConfigurationError as error:
        raise StartError(f"the model provider {name} has no model", why=error.message, next_step="install it, or name another") from error


def _reader(name: str, reference: str) -> Callable[[], str]:
    """Reads the key where `reference` says it is, each time it is called: it is kept nowhere by us."""

    def read() -> str:
        kind, _, place = reference.partition(":")
        try:
            key = os.environ[place] if kind == "env" else Path(place).expanduser().read_text(encoding="utf-8").strip()
        except (KeyError, OSError) as error:
            why = f"the variable {place} is not set" if kind == "env" else str(error)
            step = f"set it, or name another place: api_key in [models.{name}]"
            raise StartError(f"the key of the model provider {name} is not there", why=why, next_step=step) from error
        if not key:
            raise StartError(f"the key of the model provider {name} is empty", why=reference, next_step="set it")
        return key

    return read
