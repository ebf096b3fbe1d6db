"""The example that each `--help` of Look and Travel shows works, on the example log that comes with Cuebook; those of runs and waits
work on a deployment."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from ops.__main__ import main
from ops.commands import VERBS
from ops.settings import name_app
from tests.support.deployment import Deployment, wait_until
from tests.support.guided import GATE
from tests.support.verbs import VerbOn

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


class People:
    """Somebody at the terminal, whose every command must work."""

    def __init__(self, deployment: Deployment, verb_on: VerbOn) -> None:
        self._data = deployment.data
        self._verb_on = verb_on

    def types(self, line: str) -> Any:
        """One command line; what it prints as JSON, of several lines the last."""
        code, rows, err = self._verb_on(self._data, *shlex.split(line), "--json")
        assert code == 0, f"{line}: {err}"
        return rows[-1] if rows else None

    def refused(self, line: str) -> int:
        """The exit code of one that fails."""
        return self._verb_on(self._data, *shlex.split(line), "--json")[0]

    def sees(self, run: str, **expected: Any) -> Any:
        """The run, once it stands so; `waits`: what it waits for."""
        waits = expected.pop("waits", None)

        def holds() -> Any:
            shown = self.types(f"task show {run}")
            found = {name: shown[name] for name in expected}
            return shown if found == expected and waits in (None, [each["kind"] for each in shown["waits"]]) else None

        return wait_until(holds, f"{run} stands so: {expected} {waits}")


def example_of(words: str) -> str:
    """The one example of a verb."""
    module, _, function = next(verb.target for verb in VERBS if verb.words == words).partition(":")
    (line,) = re.findall(r"Example: cuebook (.+)", str(getattr(importlib.import_module(module), function).__doc__))
    return str(line)


@pytest.mark.usefixtures("_nats_program")
def test_the_examples_of_runs_and_waits_lead_a_run_from_its_start_to_its_end(
    tmp_path: Path, verb_on: VerbOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every verb of the family, each by the example of its own help, in an order in which they are of use."""
    work, gate = tmp_path / "work", tmp_path / "gate"
    work.mkdir()
    (work / "kept.txt").write_text("kept")
    monkeypatch.chdir(work)
    tried: list[str] = []

    def example(words: str, run: str = "t1") -> str:
        tried.append(words)
        return example_of(words).replace("t1", run)

    with Deployment(tmp_path / "data", app="tests.support.guided:app", environment={GATE: str(gate)}) as deployment:
        person = People(deployment, verb_on)
        assert person.types(example("task start") + " --wait")["phase"] == "awaiting_approval"
        assert person.types(example("waits ls"))["answer"].endswith("task approve t1 --version 1 --data " + str(deployment.data))
        assert person.types(example("task modify"))["verdict"] == "modified"
        shown = person.sees("t1", version=2, waits=["approval"])
        assert "only the tests, please" in shown["waits"][0]["question"]
        assert person.types("task say t1 'I know'")["verdict"] == "unclear"
        elsewhere = tmp_path / "elsewhere"
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("CUEBOOK_NATS_URL", deployment.nats_url)
            for line in ("waits ls", "task ls", "task show t1"):
                here, there = (verb_on(data, *shlex.split(line), "--json") for data in (deployment.data, elsewhere))
                assert json.loads(json.dumps(here).replace(str(deployment.data), str(elsewhere))) == json.loads(json.dumps(there)), line
            assert verb_on(elsewhere, "task", "pause", "t1")[0] == 2, "who are you?"
            key = ("--key", f"file:{deployment.data / 'operator.key'}")
            assert [verb_on(elsewhere, "task", verb, "t1", *key)[0] for verb in ("pause", "resume")] == [0, 0]
        assert person.types(example("task say"))["verdict"] == "approved"
        assert [each["question"] for each in person.types("task show t1 --wait")["waits"]] == ["Which page first?"]
        assert person.types(example("task pause"))["paused"]
        assert person.types(example("task ls"))["waits_for"].startswith("clarification of reviewer/")
        person.types(example("task answer"))
        assert not person.types(example("task resume"))["paused"]
        wait_until(lambda: (work / "notes.md").exists(), "it works")
        assert (work / "notes.md").read_text().endswith("write the comments in German\n")
        person.types(example("task stop") + " --wait")
        assert (person.types(example("task show"))["outcome"], person.types("task show t1")["restored"]) == ("cancelled", True)
        assert [path.name for path in work.iterdir() if not path.name.startswith(".")] == ["kept.txt"]
        assert person.refused("task approve t1") == 7, "a refusal of the run"
        for line in ("task show t9", "task show t9 --wait", "task approve t9", "task pause t9"):
            assert person.refused(line) == 3, line

        person.types("task start 'check the code and the tests' --id t2 --wait --within 10m")
        assert person.types(example("task reject", "t2"))["phase"] == "ended"

        gate.touch()
        person.types("task start 'check the code and the tests' --id t3 --decider starter --decider operator --wait")
        assert person.types(example("task approve", "t3"))["phase"] == "executing"
        asked = person.types("task show t3 --wait")["waits"][0]
        assert asked["wait_id"] == "task/t3:answer-1"
        tried.append("waits answer")
        assert person.types("waits answer task/t3:answer-1 '\"the first\"'")["status"] == "answered"
        assert person.types("task show t3 --wait")["outcome"] == "done"
        (tmp_path / "plan.json").write_text('{"summary": "mine", "steps": [{"id": "a", "agent": "reviewer", "task": "read it"}]}')
        person.types(f"task start 'check it' --id t4 --plan @{tmp_path}/plan.json --approved --wait")
        person.types("task answer t4 'the last'")
        assert person.types("task show t4 --wait")["steps"][0]["agent"] == "reviewer"
        for plan, code in ((f"@{tmp_path}/none.json", 2), ("[]", 2), ("'{}'", 2)):
            assert person.refused(f"task start x --plan {plan}") == code, plan
        assert person.refused("task start x --decider nobody") == 2
        assert person.types("waits ls") is None
    assert person.types("task ls -n 1")["run"] == "t4", "with no server running"
    assert person.types("task show t3")["steps"][0]["text"] == "it is fine"
    assert person.refused("task pause t3") == 5
    family = {verb.words for verb in VERBS if verb.words.partition(" ")[0] in ("task", "waits")}
    assert set(tried) == family
