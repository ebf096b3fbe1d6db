"""What verbs print, and the three lines of an error."""

import io
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import output
from ops.exits import CommandError, Exit, print_error
from ops.log_setup import without_userinfo
from ops.private_files import write_private


def test_rows_leave_as_json_lines_with_every_field_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_rows([{"a": 1, "b": Path("/x")}, {"a": None}], json=False, columns=["a"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": 1, "b": "/x"}, {"a": None}]


def test_a_terminal_gets_a_table_of_the_chosen_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "wants_json", lambda asked: asked)
    output.print_rows([{"stream": "account/[bold]1", "n": 2, "more": 3}], json=False, columns=["stream", "n"])
    out = capsys.readouterr().out
    assert "account/[bold]1" in out
    assert "more" not in out


def test_progress_never_reaches_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output.progress("half way")
    assert capsys.readouterr() == ("", "half way\n")


@given(st.text())
def test_no_cell_can_steer_the_terminal(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in output.cell(text))


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (CommandError("no"), ["cuebook: no"]),
        (CommandError("no", why="it", next_step="wait"), ["cuebook: no", "why: it", "next: wait"]),
    ],
)
def test_an_error_says_what_why_and_next(error: CommandError, lines: list[str]) -> None:
    stream = io.StringIO()
    print_error(error, stream)
    assert stream.getvalue().splitlines() == lines


def test_exit_codes_are_those_of_the_design() -> None:
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 4, 5, 6, 7, 130]


def test_a_private_file_is_replaced_whole_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "secret"
    before = os.umask(0)
    try:
        write_private(path, "one")
        write_private(path, "two")
    finally:
        os.umask(before)
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in path.parents[:2]] == [0o700, 0o700]
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nats://u:p@127.0.0.1:4222", "nats://***@127.0.0.1:4222"),
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("mail a@b, see http://x/", "mail a@b, see http://x/"),
    ],
)
def test_log_lines_hide_passwords_in_urls(text: str, shown: str) -> None:
    assert without_userinfo(text) == shown
