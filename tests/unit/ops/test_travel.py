"""The verbs that go back in time, on the files of a log with no server: what they print, and what they exit with."""

import os
import pty
import sys
from pathlib import Path

import pytest

from events.envelope import ENVELOPE_FIELDS
from ops.__main__ import main
from tests.support.errands import APP, CONVERSATION, make_errands
from tests.support.verbs import Verb

BOB = "buyer/bob"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("errands")
    make_errands(data)
    return data


def test_diff_is_the_json_patch_between_two_versions(cuebook: Verb) -> None:
    code, (row,), _ = cuebook("diff", BOB, "0", "6")
    assert (code, row["from_version"], row["to_version"], row["mismatch"]) == (0, 0, 6, None)
    assert {"op": "replace", "path": "/total", "value": 10} in row["patch"]
    _, (patch,), _ = cuebook("diff", BOB, "6", "0", "--as", "patch")
    assert {"op": "replace", "path": "/total", "value": 0} in patch
    assert cuebook("diff", BOB, "1", "999")[0] == 3
    assert cuebook("diff", BOB, "1", "rubbish")[0] == 2


def test_diff_without_code_shows_the_events_in_between(cuebook: Verb, deployment: Path, tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(deployment / "log")
    code, rows, err = cuebook("diff", BOB, "2", "5", data=tmp_path)
    assert (code, [row["version"] for row in rows]) == (0, [3, 4, 5])
    assert "events only" in err


def test_diff_as_tree_and_side_by_side(deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", BOB, "0", "6", "--as", "tree", "--data", str(deployment)]) == 0
    tree = capsys.readouterr().out
    assert "~ total: 0 -> 10" in tree
    assert "+ tea: 10" in tree
    assert main(["diff", BOB, "0", "6", "--as", "side", "--data", str(deployment)]) == 0
    assert '"total": 10' in capsys.readouterr().out


def test_state_at_an_event_or_a_moment(cuebook: Verb) -> None:
    _, events, _ = cuebook("log", f"actor:{BOB}", "type:errand.ordered", "-n", "0")
    at_event = cuebook("state", BOB, "--at", events[0]["event_id"])[1][0]
    assert (at_event["version"], at_event["state"]["total"]) == (6, 10)
    assert cuebook("state", BOB, "--at", f"{events[1]['shard']}:{events[1]['position']}")[1][0]["state"]["total"] == 22
    assert cuebook("state", BOB, "--at", "2000-01-01")[1][0]["version"] == 0


def test_blame_gives_the_event_its_command_and_its_causes(cuebook: Verb) -> None:
    code, (row,), _ = cuebook("blame", BOB, "/prices/bread")
    assert code == 0
    assert tuple(row)[: len(ENVELOPE_FIELDS)] == ENVELOPE_FIELDS
    assert (row["type"], row["new"], row["came"]) == ("errand.ordered", 12, True)
    assert (row["turn"]["method"], row["turn"]["command_id"]) == ("buy", "errand-2")
    _, (taken,), _ = cuebook("blame", "shop/corner", "/taken", "--at", "1")
    assert [(cause["stream"], cause["method"]) for cause in taken["causes"]] == [(BOB, "buy")]
    assert taken["turn"]["method"] == "price"
    assert [found["new"] for found in cuebook("blame", BOB, "/total", "--all")[1]] == [10, 22, 12]
    assert cuebook("blame", BOB, "/prices/salt")[0] == 3
    assert cuebook("blame", BOB, "prices")[0] == 2
    assert cuebook("blame", BOB, "/total", "--at", "1")[0] == 3


def test_replay_step_prints_each_event_with_its_patch(cuebook: Verb) -> None:
    code, rows, _ = cuebook("replay", BOB, "--step", "--to", "6")
    assert (code, [row["version"] for row in rows]) == (0, [1, 2, 3, 4, 5, 6])
    assert [bool(row["patch"]) for row in rows] == [False] * 5 + [True]


def test_replay_break_on_prints_where_the_condition_holds(cuebook: Verb) -> None:
    assert [row["type"] for row in cuebook("replay", BOB, "--break-on", "type=errand.*")[1]] == ["errand.ordered"] * 2 + ["errand.forgot"]
    assert [row["type"] for row in cuebook("replay", BOB, "--break-on", "/prices/tea changed")[1]] == ["errand.ordered", "errand.forgot"]
    _, rows, err = cuebook("replay", BOB, "--break-on", "state.total > 20 and type == 'errand.ordered'")
    assert [row["payload"]["item"] for row in rows] == ["bread"]
    assert "held at 1 of 25" in err
    assert cuebook("replay", BOB, "--break-on", "state.total > 1000")[0] == 3
    assert cuebook("replay", BOB, "--break-on", "import os")[0] == 2
    assert cuebook("replay", "--step")[0] == 2


def typed(*arguments: str, keys: str) -> tuple[int, str]:
    """Exit code and what a terminal shows, with `keys` typed into it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="dumb", COLUMNS="140", CUEBOOK_APP="")
        os.execv(sys.executable, [sys.executable, "-P", "-m", "ops", *arguments])
    os.write(terminal, keys.encode())
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")


def test_replay_step_on_a_terminal_goes_on_and_back(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    keys = "c\np\nb\ns\ng 14\np\nz\nb 2\ng 99\nq\n"
    code, shown = typed("replay", BOB, "--step", "--break-on", "type=errand.*", "--data", str(deployment), keys=keys)
    assert code == 0, shown
    for part in ("~ total: 10 -> 22", '"total": 10', "n(ext)  b(ack)", "there is no version 99", "14> "):
        assert part in shown, shown


def test_trace_writes_a_picture_or_prints_what_was_said(cuebook: Verb, tmp_path: Path) -> None:
    picture = tmp_path / "errand.svg"
    code, rows, err = cuebook("trace", CONVERSATION, "--svg", str(picture))
    assert (code, rows) == (0, [])
    assert picture.read_text().startswith("<svg ")
    assert "errand.svg" in err
    assert [(row["sender"], row["receiver"]) for row in cuebook("trace", CONVERSATION, "--messages")[1]] == [
        ("client", BOB), (BOB, "shop/corner"), (BOB, "clerk/anna"),
    ]  # fmt: skip
    assert cuebook("trace", CONVERSATION, "--svg", str(tmp_path / "no" / "folder.svg"))[0] == 1
    assert cuebook("trace", CONVERSATION, "--mermaid", "--messages")[0] == 2


def test_log_error_says_why_it_failed_and_what_led_to_it(cuebook: Verb, deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, rows, _ = cuebook("log", "--error", "corr:errand-4")
    assert [(row["stream"], row["type"]) for row in rows] == [
        ("shop/corner", "step.failed"), ("shop/corner", "turn.failed"), (BOB, "ask.failed"), (BOB, "turn.refused"),
    ]  # fmt: skip
    assert rows[0]["reason"] == 'RuntimeError: acid </svg> & "smoke" burns'
    assert [each["type"] for each in rows[3]["because"]] == ["ask.failed", "turn.failed", "step.failed"]
    assert [(turn["stream"], turn["method"]) for turn in rows[0]["turns"]] == [("shop/corner", "price"), (BOB, "buy")]
    assert [row["command_id"] for row in cuebook("log", "--error", "-n", "1")[1]] == ["errand-4"]
    _, refused, _ = cuebook("log", "--error", "corr:errand-3", "-n", "0")
    assert {row["reason"] for row in refused} == {"Rejected: not for sale", "rejected: not for sale"}


def test_the_conversation_and_the_app_are_those_of_the_support_module(cuebook: Verb) -> None:
    assert cuebook("trace", CONVERSATION)[1][0]["method"] == "buy"
    assert cuebook("state", BOB, "--app", APP)[0] == 0
