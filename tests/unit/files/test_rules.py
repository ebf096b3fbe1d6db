"""Which agent may touch which path, decided without looking at the disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.files.names import Refusal, path_parts
from actors.files.rules import DEFAULT_RULES, CommandTool, Grant, Rules, command_line, decide, matches, too_large

RULES = Rules(
    agents={
        "architect": DEFAULT_RULES.agents["architect"],
        "fixer": Grant(file_write=True, allowed_paths=("backend/**",), commands=("tests",)),
        "fixer_ts": Grant(file_write=True, allowed_paths=("extension/**/*.ts",)),
    },
    commands={
        "tests": CommandTool(argv=("python", "-m", "pytest", "-q"), options=("-x", "-k="), paths=True),
        "count": CommandTool(argv=("git", "count-objects")),
    },
)


@pytest.mark.parametrize(
    ("agent", "path", "rule"),
    [
        ("fixer", "backendevil/x.py", "outside_grant"),
        ("fixer_ts", "../../etc/x.ts", "outside_workspace"),
        ("architect", "docker-compose.yml.bak", "outside_grant"),
        ("fixer", "backend", "outside_grant"),
        ("fixer", "/etc/passwd", "outside_workspace"),
        ("fixer", "~/x.py", "outside_workspace"),
        ("fixer", "C:/x.py", "outside_workspace"),
        ("fixer", "backend\\..\\..\\x.py", "outside_workspace"),
        ("fixer", "backend/../../x.py", "outside_workspace"),
        ("fixer", "backend//x.py", "path_invalid"),
        ("fixer", "backend/./x.py", "path_invalid"),
        ("fixer", "backend/x.py/", "path_invalid"),
        ("fixer", "backend/x.py.", "path_invalid"),
        ("fixer", "backend/x\0.py", "path_invalid"),
        ("fixer", "backend/x\n.py", "path_invalid"),
        ("fixer", "", "path_invalid"),
        ("fixer", "b" * 2_000, "path_invalid"),
        ("fixer", "backend/con.py", "not_a_file"),
        ("fixer", "backend/x.py:stream", "not_a_file"),
        ("fixer", ".git/hooks/pre-commit", "protected"),
        ("fixer", "backend/.GIT/config", "protected"),
        ("fixer", "backend/git~1/config", "protected"),
        ("fixer", ".cuebook/backups/x", "protected"),
        ("fixer", "backend/.env", "protected"),
        ("fixer", "backend/prod.ENV", "protected"),
        ("fixer", "backend/server.pem", "protected"),
        ("fixer", "backend/.env.local", "protected"),
        ("reviewer", "backend/x.py", "not_granted"),
        ("Fixer", "backend/x.py", "not_granted"),
        ("nobody", "backend/x.py", "not_granted"),
    ],
)
def test_refused(agent: str, path: str, rule: str) -> None:
    refusal = decide(agent, "write", path, RULES)
    assert refusal is not None
    assert refusal.rule == rule
    assert decide(agent, "delete", path, RULES) == refusal


@pytest.mark.parametrize(
    ("agent", "path"),
    [
        ("architect", "backend/config/a.yaml"),
        ("architect", "config/a.yaml"),
        ("architect", "deploy/docker-compose.yml"),
        ("fixer", "backend/x.py"),
        ("fixer", "backend/a/b/c.py"),
        ("fixer_ts", "extension/x.ts"),
        ("fixer_ts", "extension/src/deep/x.ts"),
    ],
)
def test_allowed(agent: str, path: str) -> None:
    assert decide(agent, "write", path, RULES) is None


def test_reading_needs_no_grant_but_secrets_stay_closed() -> None:
    assert decide("nobody", "read", "backend/x.py", RULES) is None
    for path in ("backend/.env", ".git/config", "../x", "id_rsa"):
        assert decide("fixer", "read", path, RULES) is not None


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("a/b", "a/*", True), ("a/b/c", "a/*", False), ("a/b/c", "a/**", True), ("a", "a/**", False), ("x/a/b", "**/b", True),
        ("b", "**/b", True), ("a.py", "*.py", True), ("a/a.py", "*.py", False), ("a+b.py", "a+b.py", True), ("aab.py", "a+b.py", False),
        ("a/x/y/b.ts", "a/**/b.ts", True), ("a/b.ts", "a/**/b.ts", True), ("axb.ts", "a?b.ts", True), ("a/b.ts", "a?b.ts", False),
    ],
)  # fmt: skip
def test_patterns_are_whole_paths(path: str, pattern: str, fits: bool) -> None:
    assert matches(path, (pattern,)) is fits


def test_size() -> None:
    assert too_large(10 * 1024 * 1024, DEFAULT_RULES) is None
    refusal = too_large(11 * 1024 * 1024, DEFAULT_RULES)
    assert refusal is not None
    assert refusal.rule == "too_large"


@given(st.text(max_size=60))
def test_a_path_that_is_taken_stays_below(path: str) -> None:
    parts = path_parts(path)
    if isinstance(parts, tuple):
        assert "/".join(parts) == path
        assert not path.startswith("/")
        assert all(part not in {"", ".", "..", ".git", ".cuebook"} for part in parts)


def test_a_command_takes_only_what_its_tool_lists() -> None:
    assert command_line("fixer", "tests", ["-x", "-k=login", "backend/test_x.py"], RULES) == [
        "python", "-m", "pytest", "-q", "-x", "-k=login", "./backend/test_x.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "name", "arguments", "rule"),
    [
        ("fixer", "tests", ["--rootdir=/"], "argument"),
        ("fixer", "tests", ["-p", "evil"], "argument"),
        ("fixer", "tests", ["--"], "argument"),
        ("fixer", "tests", ["-k=a\nb"], "argument"),
        ("fixer", "tests", ["../x"], "outside_workspace"),
        ("fixer", "tests", ["/etc"], "outside_workspace"),
        ("fixer", "tests", [".env"], "protected"),
        ("fixer", "count", [], "not_granted"),
        ("fixer", "rm", ["x"], "unknown_command"),
        ("architect", "tests", [], "not_granted"),
        ("fixer", "tests; rm -rf .", [], "unknown_command"),
    ],
)
def test_argument_injection_refused(agent: str, name: str, arguments: list[str], rule: str) -> None:
    refusal = command_line(agent, name, arguments, RULES)
    assert isinstance(refusal, Refusal)
    assert refusal.rule == rule


def test_a_command_without_paths_takes_none() -> None:
    refusal = command_line("fixer", "count", ["x"], Rules(agents={"fixer": Grant(commands=("count",))}, commands=RULES.commands))
    assert isinstance(refusal, Refusal)
    assert refusal.rule == "argument"
