"""Every rule of the semantics has a test that cites it, and every test that RELIABILITY.md and SECURITY.md name exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RELIABILITY = ROOT / "ops" / "docs" / "RELIABILITY.md"


@cache
def cited() -> dict[int, list[str]]:
    """Rule to the tests that name it: in their own name or docstring, or in that of their module."""
    found: dict[int, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_module = rules_in(ast.get_docstring(tree) or "")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                named = {int(number) for number in re.findall(r"_s(\d+)(?=_)", node.name)}
                for rule in named | rules_in(ast.get_docstring(node) or "") | of_module:
                    found.setdefault(rule, []).append(f"{path.name}::{node.name}")
    return found


def rules_in(text: str) -> set[int]:
    """The rules that a text names: S3, and all of S1 to S5."""
    rules = {int(number) for number in re.findall(r"\bS(\d+)\b", text)}
    for first, last in re.findall(r"\bS(\d+) to S(\d+)\b", text):
        rules |= set(range(int(first), int(last) + 1))
    return rules


@cache
def known_tests() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        found.setdefault(path.name, set()).update(re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("rule", range(1, 39))
def test_each_rule_is_cited_by_a_test(rule: int) -> None:
    assert cited().get(rule), f"no test names S{rule}"


def test_a_rule_is_read_from_names_docstrings_and_ranges() -> None:
    assert rules_in("S3, and S5 to S7 (S24), but not S3x or XS9") == {3, 5, 6, 7, 24}
    assert "test_handover_of_asks.py::test_s5_shards_that_move_at_once_do_not_wait_for_each_others_asks" in cited()[5]


@pytest.mark.parametrize("line", [f"{kind}-{number}" for kind, last in (("I", 24), ("F", 27)) for number in range(1, last + 1)])
def test_each_invariant_and_fault_names_a_test_or_what_it_waits_for(line: str) -> None:
    _check(line)


def test_each_promise_names_a_test() -> None:
    """All that the log and the runtime promise, in rows without a gap."""
    numbers = [int(number) for number in re.findall(r"^\| P-(\d+) \|", RELIABILITY.read_text(encoding="utf-8"), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 30
    for number in numbers:
        _check(f"P-{number}")


def test_every_test_that_the_security_document_names_exists() -> None:
    """And every file of tests about tricks is named there."""
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "ops" / "docs" / "SECURITY.md").read_text(encoding="utf-8"))
    assert [f"{file}::{name}" for file, name in named if name not in known_tests().get(file, set())] == []
    tricks = {"test_path_tricks.py", "test_path_races.py", "test_rollback.py", "test_argument_tricks.py", "test_claude_code_faults.py"}
    assert tricks <= {file for file, _ in named}


def _check(line: str) -> None:
    (row,) = [text for text in RELIABILITY.read_text(encoding="utf-8").splitlines() if text.startswith(f"| {line} |")]
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
    assert named or "later: " in row, row
    for file, name in named:
        assert name in known_tests().get(file, set()), f"{line}: there is no {file}::{name}"
