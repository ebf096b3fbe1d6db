"""What the README shows is run: its example app and its commands."""

import shlex
from pathlib import Path

from tests.support.deployment import Deployment, run_cuebook

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of `language`, in order."""
    parts = README.split("```")
    return [part.partition("\n")[2] for part in parts[1::2] if part.partition("\n")[0] == language]


def test_the_readme_example_runs_as_shown(tmp_path: Path, tmp_data: Path) -> None:
    (source,) = blocks("python")
    assert len(source.splitlines()) <= 30
    (tmp_path / "bank.py").write_text(source)
    shell = next(block for block in blocks("") if "cuebook up" in block)
    commands = {line.partition("#")[0].strip(): line.partition("#")[2].strip() for line in shell.splitlines()}
    with Deployment(tmp_data, app="bank:app", folder=tmp_path):
        for line, comment in commands.items():
            words = shlex.split(line)
            if words[:2] == ["cuebook", "up"] or words[0] != "cuebook":
                continue
            done = run_cuebook(*words[1:], "--data", str(tmp_data), folder=tmp_path)
            assert done.returncode == 0, (line, done.stderr)
            if words[1] == "ask":
                assert done.stdout.strip() == comment.partition(",")[0]
