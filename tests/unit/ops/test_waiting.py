"""`cuebook waits ls` names everything that a person can answer, from the files: who asks, what, until when, and how to answer."""

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("langgraph")

from actors.errors import Waiting
from actors.graph.actor import INTERRUPT as OF_GRAPHS
from actors.json_schema import check, outcome_schema, schema_of
from ops.__main__ import main
from ops.examples.approval import Decision, ExpenseActor
from ops.examples.graph import TravelActor
from ops.settings import name_app
from ops.waiting import INTERRUPT, example_of
from runtime import App
from runtime.local import LocalRuntime, local_runtime
from tests.support.crew import CREW
from tests.support.desk import DeskActor
from tests.support.verbs import VerbOn
from tests.unit.runtime.test_once import crash_while_charging, parked
from tests.unit.tasks.test_runs import asked, begun, plan, step, until

app = App(actors=[ExpenseActor, TravelActor, DeskActor, *CREW])
HERE = "tests.unit.ops.test_waiting:app"


async def waits(runtime: LocalRuntime, stream: str, method: str, **arguments: Any) -> None:
    """Ask for what waits for a person."""
    with pytest.raises(Waiting):
        await runtime.ask(stream, method, timeout_s=None, command_id=f"{method}-1", **arguments)


async def put_questions(log: Path) -> None:
    """One of each kind."""
    await crash_while_charging(log)
    async with local_runtime(app, log) as runtime:
        await parked(runtime)
        await waits(runtime, "expense/e", "submit", cents=9900, what="a chair")
        await waits(runtime, "travel/t", "run", input={"city": "Oslo", "notes": []})
        await asked(runtime, "p", plan=plan(step("a")), planner="planner")
        await begun(runtime, "q", plan=plan(step("a", ask="Which colour?")))
        await until(runtime, "q", lambda status: status["questions"])
        await asked(runtime, "over", plan=plan(step("a")))
        await runtime.ask("task/over", "decide", session="mine", version=1, verdict="rejected")


def test_everything_that_a_person_can_answer_is_listed_from_the_files(
    tmp_path: Path, verb_on: VerbOn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    asyncio.run(put_questions(data / "log"))
    name_app(data, HERE)
    code, rows, err = verb_on(data, "waits", "ls")
    assert (code, err) == (0, "")
    found = {row["kind"]: row for row in rows}
    assert len(rows) == len(found) == 5
    assert {kind: (row["actor"], row["asks"]) for kind, row in found.items()} == {
        "once": ("desk/a", "desk/a"), "wait": ("expense/e", "expense/e"), "interrupt": ("travel/t", "travel/t research/ask_person"),
        "approval": ("task/p", "planner/p"), "clarification": ("task/q", "codesmith/q-a"),
    }  # fmt: skip
    assert found["once"]["question"] == "what became of the step charge? (charge {})"
    assert found["wait"]["question"].startswith("decision (submit {")
    assert '"a chair"' in found["wait"]["question"]
    assert found["interrupt"]["question"] == "book a trip to Oslo?"
    assert found["approval"]["question"].startswith("a plan\n1. codesmith: ")
    assert found["clarification"]["question"] == "Which colour?"
    assert {kind for kind, row in found.items() if row["expires_at"] is None} == {"once", "interrupt"}
    deciders = {kind: row["deciders"] for kind, row in found.items()}
    assert deciders == {"once": None, "wait": None, "interrupt": None, "approval": ["starter"], "clarification": ["starter"]}
    for row in rows:
        words = shlex.split(row["answer"])
        assert words[-2:] == ["--data", str(data)]
        if row["kind"] in ("once", "wait", "interrupt"):
            assert words[-5:-3] == ["answer", row["wait_id"]]
            check(msgspec.json.encode(row["schema"]) if row["schema"] else None, msgspec.json.decode(words[-3]), "the example")
    assert " task approve p --version 1 --data " in found["approval"]["answer"]
    assert " task answer q ... --number 1 --data " in found["clarification"]["answer"]
    code, others, _ = verb_on(data, "waits", "ls", "task/q")
    assert [row["kind"] for row in others] == ["clarification"]

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for line, shown in ((("waits", "ls"), rows), (("task", "show", "q"), others)):
        assert main([*line, "--data", str(data)]) == 0
        lines = [said.partition(": ")[2] for said in capsys.readouterr().out.splitlines()]
        assert [row["answer"] for row in shown if row["answer"] not in lines] == [], "a line of its own, to be copied"


def test_the_waits_of_graphs_are_called_what_they_are_called_there() -> None:
    assert INTERRUPT == OF_GRAPHS


@pytest.mark.parametrize("kind", [Decision, bool, int, float, str, list[int], dict[str, int], Decision | None, tuple[int, str]])
def test_the_example_of_an_answer_fits_its_schema(kind: Any) -> None:
    for schema in (schema_of(kind, "x"), outcome_schema(kind, "x")):
        check(schema, example_of(msgspec.json.decode(schema or b"null")), "the example")


def test_an_example_of_a_schema_without_end_has_one() -> None:
    """Schemas of interrupts are somebody else's."""
    endless = {"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#"}}}
    assert "..." in msgspec.json.encode(example_of(endless)).decode()
    assert len(example_of({"type": "array", "minItems": 10**9, "items": {"type": "integer"}})) == 8
    assert [example_of(schema) for schema in ({"$ref": "#/nowhere"}, {"const": 3}, True, None)] == ["...", 3, "...", "..."]
