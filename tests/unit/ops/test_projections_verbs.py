"""`cuebook projections`, and what `doctor` says of a parked event and of a view that is behind; no deployment runs."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.envelope import NewEvent
from events.ids import StreamId
from events.sqlite.sqlite_library import library
from ops.__main__ import main
from ops.settings import name_app
from tests.support.views import WrittenLog

APP = "ops.examples.balances:app"
pytestmark = pytest.mark.usefixtures("no_settings")


def moved(kind: str, payload: bytes = b'{"cents":5}') -> NewEvent:
    return NewEvent(type=f"account.{kind}", payload=payload)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    async def fill() -> None:
        log = WrittenLog(tmp_path / "data" / "log")
        await log.start()
        for number in range(10):
            await log.write(StreamId(f"account/a{number}"), moved("deposited"), moved("withdrawn", b'{"cents":2}'))
        await log.write(StreamId("account/bad"), moved("deposited"), moved("deposited", b'{"amount":1}'), moved("deposited"))
        await log.close()

    asyncio.run(fill())
    name_app(tmp_path / "data", APP)
    return tmp_path / "data"


class Verbs:
    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._data = data
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        self._capsys.readouterr()
        code = main([*words, "--data", str(self._data), "--json"])
        out, err = self._capsys.readouterr()
        return code, [msgspec.json.decode(line) for line in out.splitlines() if line.startswith("{")], err


@pytest.fixture
def cuebook(data: Path, capsys: pytest.CaptureFixture[str]) -> Verbs:
    return Verbs(data, capsys)


def test_a_view_is_built_listed_compared_and_what_is_parked_is_named(cuebook: Verbs, data: Path) -> None:
    assert cuebook("projections", "ls")[1] == []
    code, (estimate,), _ = cuebook("projections", "rebuild", "balances", "--dry-run")
    assert (code, estimate["events"]) == (0, 23)
    assert not list((data / "views" / "balances").iterdir())
    assert cuebook("projections", "verify", "balances")[0] == 3
    assert cuebook("projections", "rebuild", "balances")[0] == 0
    _, (row,), _ = cuebook("projections", "ls")
    assert (row["name"], row["version"], row["lag"], row["parked"], row["projector"], row["building"]) == ("balances", 1, 0, 1, None, False)
    _, (parked,), _ = cuebook("projections", "parked")
    assert (parked["stream"], parked["version"], parked["reason"], parked["held"]) == ("account/bad", 2, "KeyError: 'cents'", 1)
    code, (verified,), _ = cuebook("projections", "verify", "balances")
    assert (code, verified["rows"], verified["difference"]) == (0, 11, None)
    code, findings, _ = cuebook("doctor")
    (finding,) = [each for each in findings if each["check"] == "projection balances"]
    assert code == 1
    assert "(account.deposited) of account/bad is parked: KeyError: 'cents'; 1 later ones wait behind it" in finding["found"]
    assert "cuebook projections release balances account/bad" in finding["remedy"]
    code, _, err = cuebook("projections", "release", "balances", "account/bad")
    assert (code, "KeyError" in err) == (1, True)


def test_a_view_that_was_changed_is_told_from_its_rebuild_and_put_right_by_one(cuebook: Verbs, data: Path) -> None:
    assert cuebook("projections", "rebuild", "balances")[0] == 0
    (file,) = data.rglob("view.db")
    db = library.connect(file)
    db.execute("UPDATE balance SET cents = 1000000 WHERE stream = 'account/a3'")
    db.commit()
    db.close()
    code, (verified,), _ = cuebook("projections", "verify", "balances")
    assert code == 4
    assert verified["difference"] == {"view": "('balance', 'account/a3', 1000000)", "rebuilt": "('balance', 'account/a3', 3)"}
    assert not list((data / "views" / "balances").glob("scratch-*"))
    assert cuebook("projections", "rebuild", "balances")[0] == 0
    assert cuebook("projections", "verify", "balances")[0] == 0


def test_verbs_name_what_is_not_there(cuebook: Verbs) -> None:
    assert cuebook("projections", "rebuild", "nothing")[0] == 3
    assert cuebook("projections", "ask", "balances", "richest")[0] == 5


def test_s29_an_erasure_without_a_projector_leaves_nothing_of_the_stream_in_a_view(cuebook: Verbs, data: Path) -> None:
    assert cuebook("projections", "rebuild", "balances")[0] == 0
    assert b"account/a3" in next(data.rglob("view.db")).read_bytes()
    code, _, err = cuebook("erase", "account/a3", "--yes")
    assert code == 0
    assert "the view balances was removed" in err
    assert list(data.rglob("view.db")) == []
    assert cuebook("projections", "rebuild", "balances")[0] == 0
    assert b"account/a3" not in next(data.rglob("view.db")).read_bytes()
    assert cuebook("projections", "verify", "balances")[0] == 0
