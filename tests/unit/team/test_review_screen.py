"""What a person sees of a review: progress lines while it runs, one short screen at the end."""

from pathlib import Path

import msgspec

from actors.team import ReviewSummary
from actors.tools.complexity import ComplexBlock
from actors.tools.report import Since
from ops.commands.review import last_screen, next_commands
from ops.review_progress import EVERY_S, ReviewProgress

SUMMARY = ReviewSummary(
    workspace="shop-00000000", review="r", root="/code/shop", files=5, lines=20, python_files=4,
    findings={"high": 0, "medium": 1, "low": 2}, worst=ComplexBlock(path="a.py", name="C.f", line=3, complexity=12), cycles=2,
    first_cycle=["a", "b", "c", "d", "e", "f"], results_reused=3, results_made=17, agents=[], unavailable=[],
    report_markdown="/out/report.md", report_html="/out/report.html", report_json="/out/report.json", duration_s=1.25,
)  # fmt: skip


def test_lines_come_often_enough() -> None:
    """The promise is two seconds."""
    assert EVERY_S < 2


def test_a_working_agent_has_a_line_each_time() -> None:
    """Also when nothing new was heard of it: silence and death must not look alike."""
    board = ReviewProgress()
    board.take("reviewer", {"done": 0, "total": 954, "unit": "results", "what": "lint a.py"}, 10.0)
    board.take("reviewer", {"done": 300, "total": 954, "unit": "results", "what": "lint b.py"}, 12.0)
    assert board.lines(12.0) == ["reviewer     300/954 results        150/s  lint b.py"]
    assert len(board.lines(13.5)) == 1


def test_an_agent_that_is_done_is_shown_once_more() -> None:
    """Between its batches an agent is not done."""
    board = ReviewProgress()
    board.take("docs", {"done": 1, "total": 3, "unit": "reports", "what": "x"}, 1.0)
    board.take("docs", None, 1.0)
    assert board.lines(1.0)
    assert board.lines(2.0)
    board.take("docs", {"done": 3, "total": 3, "unit": "reports", "what": "x"}, 3.0)
    board.take("docs", None, 3.0)
    assert board.lines(3.0)
    assert board.lines(4.0) == []
    board.take("nobody", None, 4.0)
    assert board.lines(5.0) == []


def test_a_path_cannot_steer_the_terminal() -> None:
    """File names come from strangers."""
    board = ReviewProgress()
    board.take("docs", {"what": "\x1b[2Jx" + "long/" * 40 + "end.py"}, 1.0)
    (line,) = board.lines(1.0)
    assert "\x1b" not in line
    assert line.endswith("end.py")
    assert len(line) < 120


def test_the_last_screen_has_at_most_15_lines() -> None:
    """However much is missing."""
    summary = msgspec.structs.replace(SUMMARY, unavailable=[f"tool {n}: not installed" for n in range(20)])
    lines = last_screen(summary, ["a", "b", "c"])
    assert len(lines) <= 15
    assert lines[0] == "/code/shop: 5 files, 20 lines, 4 Python files in 1.2 s; re-used 3 of 20 results"
    assert "findings  high 0, medium 1, low 2" in lines
    assert "worst     C.f at a.py:3, complexity 12" in lines
    assert "cycles    2, the first with 6 modules: a -> b -> c -> d and 2 more" in lines
    assert "report    /out/report.html" in lines


def test_the_last_screen_says_what_changed() -> None:
    """By counts and the worst example; a path cannot steer the terminal."""
    since = Since(
        review="r0", at="2026-01-02T03:04:05.678+00:00", findings=4, new=2, fixed=1, new_findings=["high S602 a\x1b.py:3 shell"],
        fixed_findings=["low F401 b.py:1 unused"],
    )  # fmt: skip
    cases = {
        "2 new, 1 fixed since 2026-01-02 03:04: high S602 a\\x1b.py:3 shell": since,
        "0 new, 1 fixed since 2026-01-02 03:04: fixed low F401 b.py:1 unused": msgspec.structs.replace(since, new=0, new_findings=[]),
        "this is the first review of this folder": Since(new=4),
        "the memory did not answer: away": Since(missing="the memory did not answer: away"),
    }
    for said, given in cases.items():
        lines = last_screen(msgspec.structs.replace(SUMMARY, since=given), ["a", "b", "c"])
        assert [line for line in lines if line.startswith("changed")] == [f"changed   {said}"]
        assert len(lines) <= 15


def test_without_functions_and_cycles_it_says_so() -> None:
    """An empty code base has a last screen too."""
    lines = last_screen(msgspec.structs.replace(SUMMARY, worst=None, cycles=0, first_cycle=[]), [])
    assert "cycles    none" in lines
    assert not [line for line in lines if line.startswith("worst")]


def test_the_next_commands_name_the_deployment() -> None:
    """Three of them, each on the log of this review; a folder with a space can be pasted."""
    commands = next_commands(SUMMARY, "corr", Path("/my data"))
    assert len(commands) == 3
    assert all(command.endswith(" --data '/my data'") for command in commands)
    assert any("trace corr" in command for command in commands)
