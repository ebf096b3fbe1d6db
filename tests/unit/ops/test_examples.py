"""The example that each `--help` of Look and Travel shows works, on the example log that comes with Cuebook."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from ops.__main__ import main
from ops.commands import VERBS
from ops.settings import name_app

ROOT = Path(__file__).parents[3]
LOG = ROOT / "ops" / "examples" / "errands.jsonl"
APP = "ops.examples.errands:app"


# What these show is in views and in a running deployment, not in a log alone: their own tests run them.
ELSEWHERE = ("memory", "projections")


def examples() -> list[tuple[str, str]]:
    """(verb, command line) of every example in the help of these two groups."""
    found = []
    for verb in VERBS:
        if verb.heading in ("Look", "Travel") and verb.words.partition(" ")[0] not in ELSEWHERE:
            module, _, function = verb.target.partition(":")
            text = str(getattr(importlib.import_module(module), function).__doc__)
            found += [(verb.words, line) for line in re.findall(r"Example: cuebook (.+)", text)]
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    assert main(["import", str(LOG), "--data", str(folder)]) == 0
    name_app(folder, APP)
    return folder


def test_every_verb_that_looks_or_travels_shows_an_example() -> None:
    looking = [verb for verb in VERBS if verb.heading in ("Look", "Travel") and verb.shown]
    shown = {verb.words for verb in looking if verb.words.partition(" ")[0] not in ELSEWHERE}
    assert shown <= {verb for verb, _ in examples()}


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize(("verb", "line"), examples())
def test_the_example_of_the_help_works_on_the_example_log(
    verb: str, line: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    capsys.readouterr()
    assert line.startswith(verb)
    code = main([*shlex.split(line), "--data", str(data)])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert out or "nothing is under way" in err or list(tmp_path.iterdir()) or verb == "ps"
