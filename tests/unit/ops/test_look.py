"""The reading verbs on the files of a log, with no server: what they print, and what they exit with."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from events.envelope import ENVELOPE_FIELDS
from ops.__main__ import main
from ops.examples.bank import app
from ops.settings import name_app
from runtime.local import local_runtime
from tests.support.verbs import Verb

APP = "ops.examples.bank:app"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a deployment that ran the bank and is down."""
    data = tmp_path_factory.mktemp("deployment")

    async def make() -> None:
        async with local_runtime(app, data / "log") as cue:
            for n in range(103):
                await cue.ask("account/ada", "deposit", cents=n + 1)
            await cue.ask("account/ada", "transfer", cents=7, to="bob", command_id="move-1")
            while await cue.ask("account/bob", "balance") != 7:
                pass

    asyncio.run(make())
    name_app(data, APP)
    return data


def test_log_shows_the_newest_in_the_one_record_shape(cuebook: Verb) -> None:
    code, rows, _ = cuebook("log", "-n", "5")
    assert (code, len(rows)) == (0, 5)
    assert all(tuple(row) == ENVELOPE_FIELDS for row in rows)
    assert rows == sorted(rows, key=lambda row: row["time"])
    assert rows[-1]["stream"] == "account/bob"


def test_log_filters_and_0_means_all(cuebook: Verb) -> None:
    _, rows, _ = cuebook("log", "actor:account/ada", "type:account.deposited", "-n", "0")
    assert [row["version"] for row in rows] == list(range(1, 104))
    _, rows, _ = cuebook("log", "-type:account.deposited", "-kind:message", "-n", "0")
    assert [row["type"] for row in rows] == ["account.withdrawn"]
    assert cuebook("log", "before:1h")[1] == []


def test_a_filter_that_is_none_is_a_usage_error(cuebook: Verb) -> None:
    code, rows, err = cuebook("log", "frob:1")
    assert (code, rows) == (2, [])
    assert "frob" in err


def test_tail_without_a_deployment_prints_what_is_there_and_says_so(cuebook: Verb) -> None:
    code, rows, err = cuebook("tail", "actor:account/bob", "--from", "start")
    assert (code, [row["stream"] for row in rows]) == (0, ["account/bob"])
    assert "no deployment runs" in err
    place = f"{rows[0]['shard']}:{rows[0]['position']}"
    assert cuebook("tail", "--from", place)[1] == rows
    assert cuebook("tail", "--from", "5y")[0] == 2


def test_streams_lists_every_actor(cuebook: Verb) -> None:
    code, rows, _ = cuebook("streams")
    assert code == 0
    assert [row["stream"] for row in rows] == ["account/ada", "account/bob"]


def test_state_of_now_and_of_the_past(cuebook: Verb) -> None:
    total = sum(range(1, 104))
    assert cuebook("state", "account/ada")[1][0]["state"] == {"cents": total - 7, "transfers": 1}
    assert cuebook("state", "account/ada", "--at", "2")[1][0]["state"] == {"cents": 3, "transfers": 0}
    assert cuebook("state", "account/ada", "--at", "999")[0] == 3
    assert cuebook("state", "account/nobody")[0] == 3
    assert cuebook("state", "nobody")[0] == 2


def test_state_without_code_shows_the_events_and_says_so(cuebook: Verb, deployment: Path, tmp_path: Path) -> None:
    """The app's name may lead nowhere on the machine where somebody looks at a log (S32)."""
    (tmp_path / "log").symlink_to(deployment / "log")
    name_app(tmp_path, "no_such_module:app")
    code, rows, err = cuebook("state", "account/ada", "--at", "2", data=tmp_path)
    assert (code, [row["version"] for row in rows]) == (0, [1, 2])
    assert "events only" in err
    assert cuebook("state", "account/ada", "--at", "2", "--app", APP, data=tmp_path)[1][0]["state"]["cents"] == 3
    assert cuebook("state", "account/ada", "--app", "no_such_module:app", data=tmp_path)[0] == 2


def test_show_finds_an_event_and_adds_what_is_asked_for(cuebook: Verb) -> None:
    _, (sent,), _ = cuebook("log", "type:account.withdrawn")
    place = f"{sent['shard']}:{sent['position']}"
    code, (shown,), _ = cuebook("show", place)
    assert (code, shown) == (0, sent)
    assert cuebook("show", sent["event_id"][:17])[1] == [sent]
    _, (more,), _ = cuebook("show", place, "--state", "--patch", "--causes", "--effects")
    assert more["state"]["transfers"] == 1
    assert {"op": "replace", "path": "/transfers", "value": 1} in more["patch"]
    assert (more["causes"], [turn["stream"] for turn in more["effects"]]) == ([], ["account/bob"])
    assert cuebook("show", "9:9")[0] == 3
    assert cuebook("show", "zz")[0] == 2


def test_trace_gives_a_row_per_turn_or_a_diagram(cuebook: Verb, capsys: pytest.CaptureFixture[str], deployment: Path) -> None:
    _, rows, _ = cuebook("trace", "move-1")
    assert [(row["depth"], row["stream"], row["method"]) for row in rows] == [(0, "account/ada", "transfer"), (1, "account/bob", "deposit")]
    assert main(["trace", "move-1", "--mermaid", "--data", str(deployment)]) == 0
    assert capsys.readouterr().out.startswith("sequenceDiagram\n")
    assert cuebook("trace", "nothing")[0] == 3


def test_replay_gives_the_state_and_verify_compares_it(cuebook: Verb) -> None:
    assert cuebook("replay", "account/ada", "--to", "2")[1][0]["state"]["cents"] == 3
    assert len(cuebook("replay")[1]) == 2
    code, rows, err = cuebook("replay", "--verify")
    assert (code, [row["hashes"] for row in rows]) == (0, [1, 0])
    assert "0 differ" in err
    assert cuebook("replay", "--to", "2")[0] == 2


def test_replay_verify_with_other_code_exits_with_4_and_names_the_version(
    cuebook: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(sys.modules["ops.examples.bank"].__file__ or "").read_text()
    (tmp_path / "other_bank_for_this_test.py").write_text(source.replace("state.cents += self.cents", "state.cents += 2 * self.cents"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, rows, err = cuebook("replay", "--verify", "--app", "other_bank_for_this_test:app")
    assert code == 4
    assert rows[0]["difference"]["version"] == 100
    assert "account/ada version 100: state_hash expected" in err


def test_verify_is_silent_about_a_sound_log(cuebook: Verb) -> None:
    assert cuebook("verify")[:2] == (0, [])


def test_verify_names_a_row_with_one_flipped_byte_and_exits_with_4(cuebook: Verb, deployment: Path, tmp_path: Path) -> None:
    _, (event,), _ = cuebook("log", "type:account.withdrawn")
    log = tmp_path / "log"
    log.mkdir()
    for file in (deployment / "log").iterdir():
        (log / file.name).write_bytes(file.read_bytes())
    path = log / f"shard-{event['shard']}.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE switches SET is_open = 1")
        connection.execute("UPDATE events SET payload = replace(payload, '7', '8') WHERE position = ?", (event["position"],))
        connection.execute("UPDATE switches SET is_open = 0")
        connection.commit()
    code, rows, _ = cuebook("verify", data=tmp_path)
    assert code == 4
    assert any((row["shard"], row["position"], row["stream"]) == (event["shard"], event["position"], "account/ada") for row in rows)
    assert cuebook("state", "account/ada", data=tmp_path)[0] == 4


def test_status_of_what_does_not_run_has_every_field_and_exits_with_3(cuebook: Verb, deployment: Path) -> None:
    code, (row,), _ = cuebook("status")
    assert code == 3
    assert list(row) == [
        "ready", "nats_url", "gateway_url", "data", "log_file", "loop", "codec", "sqlite", "cache", "vectors", "versions", "processes",
        "shards",
    ]  # fmt: skip
    assert (row["ready"], row["nats_url"], row["data"], row["processes"]) == (False, None, str(deployment), [])
    assert row["vectors"].split(",")[0] in ("hnswlib", "numpy", "exact")
    assert [set(shard) for shard in row["shards"]] == [{"shard", "position", "owner_epoch"}] * 4


def test_doctor_finds_nothing_wrong_here_and_gives_each_problem_a_remedy(cuebook: Verb, tmp_path: Path) -> None:
    code, rows, _ = cuebook("doctor")
    assert [row for row in rows if not row["ok"]] == []
    assert code == 0
    assert {"sqlite", "vectors", "nats-server", "free space", "file system", "clock", "shard 0", "app"} <= {row["check"] for row in rows}
    name_app(tmp_path, "no_such_module:app")
    code, rows, err = cuebook("doctor", data=tmp_path)
    assert code == 1
    assert all(row["remedy"] for row in rows if not row["ok"])
    assert "app: " in err


@pytest.mark.parametrize("arguments", [("log",), ("streams",), ("state", "a/b"), ("verify",), ("replay",), ("trace", "x"), ("show", "0:1")])
def test_where_there_is_no_log_the_reading_verbs_exit_with_3(cuebook: Verb, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, rows, err = cuebook(*arguments, data=tmp_path)
    assert (code, rows) == (3, [])
    assert "there is no log" in err


@pytest.mark.parametrize("arguments", [("ask", "account/ada", "balance"), ("tell", "account/ada", "deposit")])
def test_talking_to_what_does_not_run_exits_with_5(cuebook: Verb, arguments: tuple[str, ...]) -> None:
    code, rows, err = cuebook(*arguments)
    assert (code, rows) == (5, [])
    assert "next: " in err


@pytest.mark.parametrize(
    "arguments",
    [("ada", "balance"), ("account/ada", "deposit", "{"), ("account/ada", "deposit", "[1]"), ("account/ada", "deposit", "@/no/such/file")],
)
def test_an_ask_that_cannot_be_read_exits_with_2(cuebook: Verb, arguments: tuple[str, ...]) -> None:
    assert cuebook("ask", *arguments)[0] == 2


def test_a_pipe_that_closes_early_is_no_error(deployment: Path) -> None:
    command = f"{sys.executable} -P -m ops log -n 0 --data {deployment} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=False, cwd=Path(__file__).parents[3])
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)
