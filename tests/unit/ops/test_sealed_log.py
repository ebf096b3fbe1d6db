"""The reading verbs on a log of sealed actors: clear where the keys are, and said to be sealed where they are not (S29)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from events.envelope import RecordedEvent
from events.ids import StreamId
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.__main__ import main
from ops.event_lines import line
from runtime.local import local_runtime
from tests.support.sealed_app import app

APP = "tests.support.sealed_app:app"
CANARY = "canary-77aa"
SEALED = "sealed (key not here)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` and `keys` of a deployment that is down."""
    made = tmp_path_factory.mktemp("sealed")

    async def make() -> None:
        async with local_runtime(app, made / "data" / "log", shards=2, keys=made / "keys") as cue:
            await cue.ask("patient/p1", "note", text=CANARY, command_id="c1")
            await cue.ask("board/b1", "note", text="in the open", command_id="c2")

    asyncio.run(make())
    return made


@pytest.fixture
def cuebook(folder: Path, no_settings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a verb with the keys, or without; returns (exit code, stdout, stderr)."""

    def run(*arguments: str, keys: bool) -> tuple[int, str, str]:
        monkeypatch.setenv("CUEBOOK_KEYS", str(folder / ("keys" if keys else "no-keys")))
        code = main([*arguments, "--data", str(folder / "data")])
        out, err = capsys.readouterr()
        return code, out, err

    return run


VERBS = (
    ("log", "-n", "0"), ("log", "actor:patient/p1"), ("tail", "--from", "start"), ("show", "{place}"),
    ("show", "{place}", "--state", "--patch", "--app", APP), ("state", "patient/p1", "--app", APP),
    ("diff", "patient/p1", "0", "1", "--app", APP), ("replay", "patient/p1", "--app", APP),
    ("replay", "patient/p1", "--step", "--app", APP), ("blame", "patient/p1", "/texts", "--app", APP),
)  # fmt: skip


def place_of(cuebook: Any) -> str:
    code, out, _ = cuebook("log", "actor:patient/p1", keys=False)
    assert code == 0
    row = json.loads(out.splitlines()[-1])
    return f"{row['shard']}:{row['position']}"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_s29_what_a_sealed_actor_said_is_shown_where_its_key_is_and_nowhere_else(verb: tuple[str, ...], cuebook: Any) -> None:
    arguments = [place_of(cuebook) if part == "{place}" else part for part in verb]
    code, out, err = cuebook(*arguments, keys=True)
    assert code == 0
    assert CANARY in out
    assert SEALED not in err
    code, out, err = cuebook(*arguments, keys=False)
    assert code == (1 if verb[0] == "blame" or "--step" in verb else 0)
    assert CANARY not in out + err
    assert SEALED in err
    assert "unexpected" not in err


def test_s29_without_the_key_the_hint_is_where_keys_are_named_and_not_the_code(cuebook: Any) -> None:
    for verb in (("state", "patient/p1", "--app", APP), ("blame", "patient/p1", "/texts", "--app", APP)):
        err = cuebook(*verb, keys=False)[2]
        assert "CUEBOOK_KEYS" in err
        assert "names the code" not in err


def test_s29_a_plain_actor_beside_sealed_ones_is_shown_as_ever(cuebook: Any) -> None:
    code, out, err = cuebook("log", "actor:board/b1", keys=False)
    assert (code, err) == (0, "")
    assert [json.loads(line)["payload"] for line in out.splitlines()] == [{"text": "in the open"}]


def test_s29_a_line_on_a_terminal_says_that_it_is_sealed(folder: Path) -> None:
    async def events() -> list[RecordedEvent]:
        reader = await SqliteLogReader.open(folder / "data" / "log")
        try:
            return list(await reader.read_stream(StreamId("patient/p1")))
        finally:
            await reader.close()

    (event,) = asyncio.run(events())
    assert line(event).endswith(SEALED)
