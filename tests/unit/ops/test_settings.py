"""Settings: which place wins, where a value came from, and what a mistake is told."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.exits import Exit, StartError
from ops.settings import LoadedSettings, default_data, load_settings, name_app


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    return tmp_path


def load(home: Path, variables: Mapping[str, str] | None = None, **overrides: object) -> LoadedSettings:
    return load_settings({"data": home / "data", **overrides}, environment=variables or {}, folder=home / "here", config=None)


def test_defaults_name_themselves_as_origin(home: Path) -> None:
    loaded = load_settings(environment={"HOME": str(home)}, folder=home / "here")
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.settings.namespace == "cue"
    assert loaded.settings.shard_count >= 4


def test_each_place_beats_the_weaker_ones(home: Path) -> None:
    """Folder < deployment < --config < environment < command line, field by field."""
    (home / "here" / "cuebook.toml").write_text("workers = 3\ndrain_s = 3\nask_timeout_s = 3\nshards = 3\napp = 'a:b'\n")
    (home / "data" / "cuebook.toml").write_text("workers = 4\ndrain_s = 4\nask_timeout_s = 4\nshards = 4\n")
    (home / "named.toml").write_text("workers = 5\ndrain_s = 5\nask_timeout_s = 5\n")
    loaded = load_settings(
        {"data": home / "data", "workers": 7},
        environment={"CUEBOOK_WORKERS": "6", "CUEBOOK_DRAIN_S": "6", "CUEBOOK_CONFIG": str(home / "named.toml")},
        folder=home / "here",
    )
    found = loaded.settings
    assert (found.workers, found.drain_s, found.ask_timeout_s, found.shards, found.app) == (7, 6, 5, 4, "a:b")
    assert [loaded.origins[name] for name in ("workers", "drain_s", "ask_timeout_s", "shards", "app")] == [
        "command line",
        "environment CUEBOOK_DRAIN_S",
        str(home / "named.toml"),
        str(home / "data" / "cuebook.toml"),
        str(home / "here" / "cuebook.toml"),
    ]


def test_an_option_that_was_not_given_and_an_empty_variable_count_for_nothing(home: Path) -> None:
    loaded = load(home, {"CUEBOOK_NATS_URL": ""}, nats_url=None, workers=None)
    assert loaded.origins["nats_url"] == loaded.origins["workers"] == "default"


def test_relative_paths_count_from_the_file_that_names_them(home: Path) -> None:
    (home / "data" / "cuebook.toml").write_text("nats_credentials = 'keys/worker.creds'\n")
    assert load(home).settings.nats_credentials == home / "data" / "keys" / "worker.creds"
    assert load(home, {"CUEBOOK_NATS_CREDENTIALS": "x.creds"}).settings.nats_credentials == home / "here" / "x.creds"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "lots"),
        ("workers", "0"),
        ("shards", "-1"),
        ("drain_s", "0"),
        ("drain_s", "nan"),
        ("namespace", "a.b"),
        ("durability", "always"),
        ("log_level", "loud"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_name_and_origin(home: Path, name: str, value: str) -> None:
    variable = f"CUEBOOK_{name.upper()}"
    with pytest.raises(StartError) as refused:
        load(home, {variable: value})
    assert refused.value.code is Exit.USAGE
    assert name in refused.value.what
    assert variable in refused.value.why


@pytest.mark.parametrize("text", ["worker = 2\n", "workers = \n", "\xff"])
def test_a_file_that_does_not_fit_is_refused_by_its_path(home: Path, text: str) -> None:
    path = home / "here" / "cuebook.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StartError, match=r"cuebook\.toml"):
        load(home)


def test_a_config_file_that_was_asked_for_must_exist(home: Path) -> None:
    with pytest.raises(StartError):
        load_settings(config=home / "none.toml", environment={}, folder=home)


def test_a_variable_that_names_no_setting_is_reported(home: Path) -> None:
    assert load(home, {"CUEBOOK_WRKERS": "2", "CUEBOOK_CONFIG": ""}).unknown_variables == ("CUEBOOK_WRKERS",)


@pytest.mark.skipif("sys.platform == 'darwin'", reason="XDG is not used there")
def test_the_data_folder_follows_xdg(tmp_path: Path) -> None:
    assert default_data({"HOME": "/h"}) == Path("/h/.local/share/cuebook")
    assert default_data({"HOME": "/h", "XDG_DATA_HOME": "/d"}) == Path("/d/cuebook")
    assert default_data({"HOME": "/h", "XDG_DATA_HOME": "relative"}) == Path("/h/.local/share/cuebook")


def test_the_app_is_written_into_the_deployments_file_and_nothing_else_changes(home: Path) -> None:
    path = home / "data" / "cuebook.toml"
    name_app(home / "data", "bank:app")
    assert load(home).settings.app == "bank:app"
    path.write_text("# ours\nworkers = 3\napp = 'old:app'\n")
    name_app(home / "data", "bank:app")
    assert path.read_text() == '# ours\nworkers = 3\napp = "bank:app"\n'
    inode = path.stat().st_ino
    name_app(home / "data", "bank:app")
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    ("line", "known"), [('[models.m]\nkind = "antropic"\nmodel = "x"', "anthropic"), ('durability = "never"', "process, disk")]
)  # fmt: skip
def test_a_wrong_word_is_told_what_is_known(tmp_path: Path, line: str, known: str) -> None:
    (tmp_path / "cuebook.toml").write_text(line + "\n")
    with pytest.raises(StartError) as refused:
        load_settings({}, environment={"HOME": str(tmp_path)}, folder=tmp_path)
    assert known in refused.value.why.partition("known: ")[2]
