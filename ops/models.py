"""The model services of a worker, from its settings; and the actor types that every deployment has because of them."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from actors.files import Files
from actors.models.claude_code import ClaudeCodeClient
from actors.models.langchain_models import Endpoint, open_client
from actors.models.limits import ProviderLimits
from actors.models.port import ModelClient
from actors.models.provider import Provider
from actors.models.registry import Configured, ProviderRegistry
from events.errors import ConfigurationError
from ops.exits import StartError
from ops.settings import ModelSettings, Settings
from runtime.app import App
from runtime.tasks import Tasks

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
    providers = {
        name: Configured(client=_client(name, model), limits=limits_of(model), fallbacks=model.fallbacks)
        for name, model in settings.models.items()
    }
    try:
        registry = ProviderRegistry(providers, tasks.spawn)
    except ValueError as error:
        step = "correct `fallbacks` in the settings"
        raise StartError("the model providers do not fit together", why=str(error), next_step=step) from error
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
    endpoint = Endpoint(kind=model.kind, model=model.model, base_url=model.base_url)
    try:
        return open_client(name, endpoint, _reader(name, key or ""), model.timeout_s)
    except ConfigurationError as error:
        raise StartError(error.message, next_step="install it, or take the provider out of the settings") from error


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
