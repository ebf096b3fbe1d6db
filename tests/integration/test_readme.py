"""What the README shows is run: its example app and its commands."""

import json
import shlex
from pathlib import Path
from typing import Any

from tests.support.deployment import Deployment, run_cuebook, wait_until

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


def test_the_work_that_people_decide_about_goes_as_shown(tmp_path: Path, tmp_data: Path) -> None:
    root = tmp_path / "code"
    root.mkdir()
    (root / "main.py").write_text("def f(x):\n    return x\n")
    shell = next(block for block in blocks("") if "task start" in block)
    start, show, say, stop = (shlex.split(line, comments=True)[1:] for line in shell.splitlines())

    with Deployment(tmp_data, app="ops.team_app:app", environment={"XDG_STATE_HOME": str(tmp_path / "state")}):

        def run(words: list[str], name: str = "t1") -> Any:
            given = [name if word == "t1" else word for word in words]
            done = run_cuebook(*given, "--data", str(tmp_data), folder=root)
            assert done.returncode == 0, (words, done.stderr)
            return json.loads(done.stdout)

        def phase(wanted: str, name: str = "t1") -> Any:
            def reached() -> Any:
                status = run(["task", "show", "t1"], name)
                return status if status["phase"] == wanted else None

            return wait_until(reached, wanted)

        run(start)
        (proposal,) = run(show)["waits"]
        assert (proposal["kind"], "reviewer: check the code" in proposal["question"]) == ("approval", True)
        assert run(say)["verdict"] == "approved"
        assert phase("ended")["outcome"] == "done"
        assert next((tmp_path / "state").rglob("report.html")).is_file()
        run(start, "t2")
        run(stop, "t2")
        assert phase("ended", "t2")["restored"]
