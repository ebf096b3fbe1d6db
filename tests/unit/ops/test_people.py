"""Whom a deployment knows: people of the settings by their keys, and its operator by a file of its own."""

import threading
from pathlib import Path

import pytest

from actors.people.known import Person, digest_of
from ops.commands.tasks import session_of
from ops.exits import CommandError, StartError
from ops.people import operator_key, people_of
from ops.settings import PersonSettings, Settings


def settings(data: Path, **people: PersonSettings) -> Settings:
    return Settings(data=data, people=people)


def test_keys_are_found_where_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNA_KEY", "a")
    (tmp_path / "ben.key").write_text("b\n")
    people = people_of(
        settings(
            tmp_path / "data",
            anna=PersonSettings(key="env:ANNA_KEY", roles=("lead",)), ben=PersonSettings(key=f"file:{tmp_path}/ben.key"),
            cleo=PersonSettings(key=f"sha256:{digest_of('c')}"),
        )
    )  # fmt: skip
    assert [people.who(key) for key in "abcd"] == [Person(name="anna", roles=("lead",)), Person(name="ben"), Person(name="cleo"), None]
    assert people.titles == {"anna", "role:lead", "ben", "cleo", "operator"}
    operator = people.who(operator_key(tmp_path / "data"))
    assert operator == Person(name="operator")
    assert not any(key in repr(vars(people)) for key in ("'a'", "'b'", operator_key(tmp_path / "data")))


def test_settings_that_leave_it_open_who_is_who_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    (tmp_path / "empty").write_text("\n")
    for people, why in (
        ({"anna": PersonSettings(key="env:NO_SUCH_KEY")}, "the key of anna is not there"),
        ({"anna": PersonSettings(key=f"file:{tmp_path}/empty")}, "the key of anna has 0 characters"),
        ({"operator": PersonSettings(key=f"sha256:{digest_of('x')}")}, "nobody can be called operator"),
        ({"starter": PersonSettings(key=f"sha256:{digest_of('x')}")}, "nobody can be called starter"),
        ({name: PersonSettings(key=f"sha256:{digest_of('x')}") for name in ("anna", "ben")}, "ben has the key of anna"),
    ):
        with pytest.raises(StartError, match=why):
            people_of(settings(tmp_path / "data", **people))


def test_workers_that_start_at_once_make_one_key_of_the_operator(tmp_path: Path) -> None:
    """Whichever was first: all read the same, and nothing else is left behind."""
    data, found = tmp_path / "data", []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        found.append(operator_key(data))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in data.iterdir()] == ["operator.key"]
    assert (data / "operator.key").stat().st_mode & 0o777 == 0o600
    assert session_of(settings(data), None) == found[0]


def test_whoever_has_no_key_of_the_operator_names_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "m")
    assert session_of(settings(tmp_path / "elsewhere"), "env:MY_KEY") == "m"
    with pytest.raises(CommandError, match="who are you"):
        session_of(settings(tmp_path / "elsewhere"), None)
    with pytest.raises(StartError, match="is no place of a key"):
        session_of(settings(tmp_path / "elsewhere"), "m")
