"""A review with a model: what it says stands in the reports beside what was found, and a model that fails costs one line."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from actors.team import workspace_id
from actors.tools.report import RunInfo
from actors.tools.report_json import read_json
from ops.models import open_models
from ops.settings import load_settings
from ops.team_app import app
from runtime.local import LocalRuntime, local_runtime
from tests.support.scripted_model import Say, ScriptedModel
from tests.unit.runtime.test_turns import crash

pytestmark = pytest.mark.timeout(120)
KEY = "sk-canary-in-the-code-8d1f0"
SUMMARY = "Start with <shell.py> & *its* call."
PATCH = "--- a/shell.py\n+++ b/shell.py\n@@ -5 +5 @@\n-    subprocess.call(text, shell=True)\n+    subprocess.call([text])"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "package"
    root.mkdir()
    (root / "shell.py").write_text(
        f'import subprocess\n\nOTHER = "{KEY}"\n\n\ndef run(text):\n    password = "hunter2-canary"\n'
        "    subprocess.call(text, shell=True)\n    return password\n"
    )
    return root


def explained(body: dict[str, Any]) -> Say:
    """Says something of the finding about the shell, by the number it was given; and of one that nobody asked about."""
    text = body["messages"][-1]["content"]
    number = next(int(line.split()[1].rstrip(":")) for line in text.splitlines() if line.startswith("finding ") and "S602" in line)
    told = [{"number": number, "why": "Anyone can <run> anything.", "patch": PATCH}, {"number": 99, "why": "made up"}]
    return Say(text=json.dumps({"summary": SUMMARY, "findings": told}), tokens=(100, 50))


@asynccontextmanager
async def reviewing(data: Path, model: ScriptedModel | None) -> AsyncIterator[tuple[LocalRuntime, str | None]]:
    """The team on a log in `data`, with the model that its settings name."""
    data.mkdir(parents=True, exist_ok=True)
    if model is not None:
        table = f'[models.clever]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:REVIEW_KEY"\nattempts = 1\n'
        table += "timeout_s = 3.0\n"
        (data / "cuebook.toml").write_text(table)
    settings = load_settings({"data": data}, environment={}, folder=data).settings
    async with open_models(settings) as models, local_runtime(app, data / "log", models=models) as runtime:
        yield runtime, settings.explaining_model


async def review(runtime: LocalRuntime, root: Path, out: Path, model: str | None, **more: Any) -> dict[str, Any]:
    given = {} if model is None else {"model": model}
    actor = f"orchestrator/{workspace_id(root)}"
    reply: dict[str, Any] = await runtime.ask(actor, "review", path=str(root), out=str(out), timeout_s=100, **given, **more)
    return reply


async def test_a_model_explains_and_proposes(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEW_KEY", "k")
    before = (package / "shell.py").read_bytes()
    async with ScriptedModel(explained) as model, reviewing(tmp_path / "data", model) as (runtime, name):
        assert name == "clever"
        summary = await review(runtime, package, tmp_path / "out", name, command_id="one")
        # S24: asked again under the same id, nobody is paid twice.
        assert await review(runtime, package, tmp_path / "out", name, command_id="one") == summary
        assert len(model.ledger) == 1
        health = await runtime.ask("provider/clever", "health")
    sent = json.dumps(model.ledger[0].body)
    assert "shell=True" in sent
    assert KEY not in sent
    assert "hunter2-canary" not in sent
    assert health["total"]["calls"] == 1
    said = read_json((tmp_path / "out" / "report.json").read_bytes()).run.explanation
    assert said is not None
    assert msgspec.to_builtins(said) == summary["explanation"]
    assert (said.summary, said.missing) == (SUMMARY, "")
    assert [(found.file, found.rule, found.patch) for found in said.findings] == [("shell.py", "S602", PATCH)]
    markdown, page = ((tmp_path / "out" / name).read_text() for name in ("report.md", "report.html"))
    assert f"```diff\n{PATCH}\n```" in markdown
    assert "<run>" not in markdown.replace("\\<run\\>", "")
    assert "Start with &lt;shell.py&gt; &amp; *its* call." in page
    assert "subprocess.call([text])" in page
    assert "<run>" not in page
    assert (package / "shell.py").read_bytes() == before, "a proposal is applied by nobody"


FAILING = {
    "refused": Say(status=401), "away": Say(status=503), "no JSON": Say(text="Sure! Here is what I think."), "garbage": Say(garbage=True),
    "slow": Say(text="too late", delay_s=90.0), "another shape": Say(text='{"summary": 5, "findings": {}}'), "silent": Say(text=""),
}  # fmt: skip


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING)
async def test_a_model_that_fails_costs_one_line(
    failing: Say, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEW_KEY", "k")
    async with ScriptedModel(failing) as model, reviewing(tmp_path / "data", model) as (runtime, name):
        with_model = await review(runtime, package, tmp_path / "with", name)
        assert model.ledger
    async with reviewing(tmp_path / "bare", None) as (runtime, nobody):
        assert nobody is None
        without = await review(runtime, package, tmp_path / "without", nobody)
    missing = with_model["explanation"]["missing"]
    assert missing.startswith("the model clever gave no explanation: clever")
    assert "\n" not in missing
    assert without["explanation"] is None
    assert with_model["findings"] == without["findings"]
    reports = [read_json((tmp_path / folder / "report.json").read_bytes()) for folder in ("with", "without")]
    assert msgspec.structs.replace(reports[0], run=RunInfo()) == msgspec.structs.replace(reports[1], run=RunInfo())
    assert "gave no explanation" in (tmp_path / "with" / "report.md").read_text()
    assert "model" not in (tmp_path / "without" / "report.md").read_text()


async def test_a_review_that_dies_while_its_model_thinks_goes_on_with_the_same_question(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S19: the examined files are not examined again, the open question is asked again under its key, and its answer is in the reports."""
    monkeypatch.setenv("REVIEW_KEY", "k")
    async with ScriptedModel(Say(delay_s=60), explained) as model:
        async with reviewing(tmp_path / "data", model) as (runtime, name):
            asked = asyncio.ensure_future(review(runtime, package, tmp_path / "out", name, command_id="one"))
            await model.asked.wait()
            crash(runtime)
            asked.cancel()
        async with reviewing(tmp_path / "data", model) as (runtime, name):
            summary = await review(runtime, package, tmp_path / "out", name, command_id="one")
        assert [entry.done for entry in model.ledger] == [False, True]
        assert len({entry.key for entry in model.ledger}) == 1
    assert summary["explanation"]["summary"] == SUMMARY
    assert summary["results_reused"] == 0
    explanation = read_json((tmp_path / "out" / "report.json").read_bytes()).run.explanation
    assert explanation is not None
    assert SUMMARY in explanation.summary


async def test_a_model_that_the_workers_do_not_know_costs_one_line(package: Path, tmp_path: Path) -> None:
    async with reviewing(tmp_path / "data", None) as (runtime, _):
        summary = await review(runtime, package, tmp_path / "out", "clever")
    assert "no model provider is configured" in summary["explanation"]["missing"]


def test_which_model_explains(tmp_path: Path) -> None:
    tables = "".join(f'[models.{name}]\nkind = "openai"\nmodel = "m"\n' for name in ("zeta", "alpha"))

    def chosen(first: str) -> str | None:
        (tmp_path / "cuebook.toml").write_text(first + tables)
        return load_settings({}, environment={"HOME": str(tmp_path)}, folder=tmp_path).settings.explaining_model

    assert chosen("") == "zeta"
    assert chosen('review_model = "alpha"\n') == "alpha"
    assert chosen('review_model = "off"\n') is None
