"""Clients of providers are opened beside the start of a worker: their libraries take longer to import than all the rest of it."""

import asyncio
import importlib.metadata
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.models import langchain_models
from actors.models.port import OnText
from actors.models.records import Answer, Failure, Message, Request
from ops import models
from ops.exits import StartError
from ops.models import open_models
from ops.settings import ModelSettings, Settings
from ops.versions import distribution_version

pytestmark = pytest.mark.skipif(distribution_version("langchain-perplexity") is None, reason="needs cuebook[models]")
ASKED = Request(messages=(Message(role="user", content="?"),))


class Slow:
    """What stands for the import of a library: it ends when it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.go_on = threading.Event()
        self.threads: list[str] = []
        self._fails = fails

    def open_client(self, provider: str, endpoint: langchain_models.Endpoint, api_key: Callable[[], str], timeout_s: float) -> "Echo":
        self.threads.append(threading.current_thread().name)
        assert self.go_on.wait(20)
        if self._fails:
            raise ImportError(self._fails)
        return Echo(f"{provider} {endpoint.model} {api_key()}")


class Echo:
    def __init__(self, said: str) -> None:
        self.said = said
        self.closed = False

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        return Answer(text=self.said, provider="one", model="m")

    async def close(self) -> None:
        self.closed = True


def settings(folder: Path, **given: float) -> Settings:
    return Settings(data=folder, models={"one": ModelSettings(kind="openai", model="m", api_key="env:ONE_KEY", **given)})  # type: ignore[arg-type]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setenv("ONE_KEY", "k")
    made = Slow()
    monkeypatch.setattr(models, "open_client", made.open_client)
    return made


async def test_a_worker_does_not_wait_for_its_clients_and_a_call_does(slow: Slow, tmp_path: Path) -> None:
    """Not in its own time either: a timeout of a tenth of a second begins when there is a client."""
    async with open_models(settings(tmp_path, timeout_s=0.1)) as registry:
        assert registry is not None
        asking = asyncio.ensure_future(registry.call("one", ASKED, "k", lambda text: None))
        _, waiting = await asyncio.wait([asking], timeout=0.3)
        assert waiting
        slow.go_on.set()
        ended = await asking
        assert isinstance(ended, Answer)
        assert ended.text == "one m k"
        assert threading.current_thread().name not in slow.threads
        assert len(slow.threads) == 1


async def test_a_library_that_does_not_work_fails_the_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONE_KEY", "k")
    broken = Slow(fails="no such symbol")
    broken.go_on.set()
    monkeypatch.setattr(models, "open_client", broken.open_client)
    async with open_models(settings(tmp_path)) as registry:
        assert registry is not None
        for _ in range(2):
            ended = await registry.call("one", ASKED, "k", lambda text: None)
            assert isinstance(ended, Failure)
            assert (ended.kind, ended.code) == ("permanent", "client")
            assert "no such symbol" in ended.message


async def test_who_starts_it_is_told_what_is_missing(slow: Slow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(StartError, match="the model provider one needs langchain-openai"):
        async with open_models(settings(tmp_path)):
            raise AssertionError("it starts")
    monkeypatch.undo()
    monkeypatch.delenv("ONE_KEY", raising=False)
    with pytest.raises(StartError, match="the key of the model provider one is not there"):
        async with open_models(settings(tmp_path)):
            raise AssertionError("it starts")


def test_what_is_looked_for_is_what_is_imported() -> None:
    """Each distribution that is needed provides the module that `open_client` imports; else a missing one would not be seen."""
    packages = importlib.metadata.packages_distributions()
    imported = {
        "openai": ("langchain_openai",),
        "anthropic": ("langchain_anthropic",),
        "perplexity": ("langchain_perplexity", "perplexity"),
    }
    for kind, names in langchain_models.NEEDED.items():
        assert [packages[module][0] for module in imported[kind]] == list(names)
