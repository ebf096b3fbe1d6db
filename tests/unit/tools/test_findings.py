"""Lint and dead code: what is reported, and the false alarms of well-known packages that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.tools.dead_code import dead_code_facts, dead_code_findings, dead_code_version
from actors.tools.errors import WorkspaceError
from actors.tools.findings import Finding, file_weights, make_finding, merge_findings, rank_findings
from actors.tools.lint import is_test_file, lint_files, lint_version
from actors.tools.python_ast import syntax_findings


def lint(root: Path, path: str, code: str) -> list[tuple[str, int, str]]:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(code)
    return [(f.rule, f.line, f.severity) for f in lint_files(root.resolve(), [path])[path]]


def test_real_defects_are_found_with_file_and_line(tmp_path: Path) -> None:
    code = "import os\nimport subprocess\ndef f(cmd, seen=[]):\n    seen.append(nope)\n    subprocess.run(cmd, shell=True)\n"
    assert lint(tmp_path, "a.py", code) == [
        ("F401", 1, "low"),
        ("B006", 3, "medium"),
        ("F821", 4, "high"),
        ("S602", 5, "high"),
    ]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("pkg/__init__.py", "from os import path\n"),
        ("compat.py", "from io import StringIO\n"),
        ("a.py", "try:\n    import ssl\nexcept ImportError:\n    ssl = None\n"),
        ("a.py", "def f():\n    import matplotlib.pyplot\n"),
        ("a.py", "try:\n    ip = get_ipython()\nexcept NameError:\n    ip = None\n"),
        (
            "a.py",
            ("def f(xs):\n    best = None\n    for x in xs:\n        if best and last > x:\n            best = x\n        last = x\n"),
        ),
        ("a.py", "import sys\nif sys.version_info[0] < 3:\n    text = unicode\n"),
        ("a.py", "def f(e):\n    raise ValueError(f'Cannot select requirements from {e}')\n"),
        ("a.py", "from typing import overload\n@overload\ndef f(a, b=[]) -> int: ...\n"),
        ("a.py", "def f(x):\n    import pdb\n    return pdb.post_mortem(x)\n"),
        ("a.py", "import subprocess\nsubprocess.run(input(), shell=True)  # nosec\n"),
        ("a.py", "import os  # noqa: F401\n"),
        ("a.py", "type X[T] = list[T]\n"),
        ("tests/test_a.py", "import os\ndef test_f():\n    x = 1\n    assert eval('1')\n"),
    ],
)
def test_known_false_alarms_are_not_reported(tmp_path: Path, path: str, code: str) -> None:
    assert lint(tmp_path, path, code) == []


def test_the_configuration_of_the_examined_code_has_no_say(tmp_path: Path) -> None:
    (tmp_path / "ruff.toml").write_text('exclude = ["*.py"]\nlint.ignore = ["F821"]\n')
    assert lint(tmp_path, "a.py", "nope\n") == [("F821", 1, "high")]


def test_a_path_that_looks_like_an_option_is_a_path(tmp_path: Path) -> None:
    assert lint(tmp_path, "--fix.py", "nope\n") == [("F821", 1, "high")]
    with pytest.raises(WorkspaceError):
        lint_files(tmp_path, ["../x.py"])


def test_one_batch_answers_for_each_file(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"m{number}.py").write_text("nope\n" * number)
    found = lint_files(tmp_path.resolve(), ["m2.py", "m0.py", "m1.py", "gone.py"])
    assert {path: len(findings) for path, findings in found.items()} == {
        "gone.py": 0,
        "m0.py": 0,
        "m1.py": 1,
        "m2.py": 2,
    }


def test_versions_name_the_tool_and_the_rules() -> None:
    assert lint_version().startswith("ruff ")
    assert dead_code_version().startswith("vulture ")


def test_one_broken_file_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(:\n  x ==== 2\n(\n")
    findings = lint_files(tmp_path.resolve(), ["a.py"])["a.py"] + syntax_findings(tmp_path, "a.py")
    assert [(f.tool, f.rule, f.severity) for f in merge_findings(findings)] == [("ast", "syntax-error", "high")]


def test_what_only_our_parser_refuses_needs_a_newer_python(tmp_path: Path) -> None:
    refused = make_finding(rule="syntax-error", tool="ast", severity="high", file="a.py", line=3, message="no")
    assert [(f.rule, f.severity) for f in merge_findings([refused])] == [("newer-syntax", "low")]


def test_an_import_that_others_take_from_here_is_a_re_export() -> None:
    messages = ("`a.b` imported but unused", "`a.b as c` imported but unused", "`.x.d` imported but unused")
    findings = [make_finding(rule="F401", tool="ruff", severity="low", file="m.py", line=1, message=m) for m in messages]
    kept = merge_findings(findings, imported_names={"m.py": ["b", "c"]})
    assert [finding.message for finding in kept] == [messages[2]]


def test_findings_are_ranked_by_severity_then_by_what_rests_on_the_file() -> None:
    def finding(file: str, severity: str, line: int = 1) -> Finding:
        return make_finding(rule="R", tool="t", severity=severity, file=file, line=line, message="m")  # type: ignore[arg-type]

    weights = file_weights(fan_in={"used.py": 9}, highest_complexity={"hard.py": 45, "used.py": 3})
    given = [finding("a.py", "low"), finding("a.py", "high"), finding("hard.py", "high"), finding("used.py", "high", 2)]
    ranked = rank_findings([*given, *given[:1]], weights=weights)
    assert [f.file for f in ranked] == ["used.py", "hard.py", "a.py", "a.py", "a.py"]
    assert [f.severity for f in merge_findings([*given, *given])] == ["high", "high", "high"]


def dead(root: Path, files: dict[str, str]) -> list[tuple[str, str, int]]:
    for path, code in files.items():
        (root / path).write_text(code)
    return [(f.rule, f.file, f.line) for f in dead_code_findings([dead_code_facts(root, path) for path in files])]


def test_unreachable_code_is_found_unless_it_is_there_for_a_reason(tmp_path: Path) -> None:
    code = (
        "def a():\n    return 1\n    print(2)\n"
        "def generator():\n    raise NotImplementedError\n    yield\n"
        "def b():\n    return 1\n    raise AssertionError\n"
        "if 0:\n    print(3)\n"
    )
    assert dead(tmp_path, {"a.py": code}) == [("unreachable-code", "a.py", 3)]


def test_private_names_are_dead_only_when_no_file_mentions_them(tmp_path: Path) -> None:
    code = (
        "def _used_elsewhere(): pass\ndef _dead(): pass\ndef _by_string(): pass\ndef _make_a(): pass\n"
        "@register\ndef _decorated(): pass\nclass A:\n    def _dead_method(self): pass\n"
        "class B(Base):\n    def _hook(self): pass\n    def _repr_html_(self): pass\n"
    )
    other = "from a import _used_elsewhere\nnames = '_by_string'\nf = globals()['_make_' + kind]\n"
    assert dead(tmp_path, {"a.py": code, "b.py": other}) == [
        ("unused-private-function", "a.py", 2),
        ("unused-private-method", "a.py", 8),
    ]


def test_facts_of_a_file_do_not_depend_on_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def _f(x):\n    return 1\n    return x\n")
    before = dead_code_facts(tmp_path, "a.py")
    (tmp_path / "b.py").write_text("from a import _f\n")
    assert dead_code_facts(tmp_path, "a.py") == before


def test_test_files_are_known_by_their_place_or_name() -> None:
    assert all(is_test_file(path) for path in ("tests/a.py", "a/test_b.py", "b_test.py", "conftest.py"))
    assert not any(is_test_file(path) for path in ("contest.py", "latest/a.py", "attest_b.py"))
