"""``cuebook trace TYPE/ID``: the path of a graph, from the files of a log, with its code and without."""

import asyncio
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from actors.errors import Waiting
from ops.__main__ import main
from ops.examples.bank import AccountActor
from ops.examples.graph import TravelActor
from runtime import App
from runtime.local import local_runtime

APP = "ops.examples.graph:app"
INPUT: dict[str, Any] = {"city": "Oslo", "notes": []}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a deployment: a trip that is done, one that waits, and an actor that is no graph."""
    folder = tmp_path_factory.mktemp("trips")

    async def make() -> None:
        async with local_runtime(App(actors=[TravelActor, AccountActor]), folder / "log") as cue:
            waits = {}
            for thread in ("main", "second"):
                with pytest.raises(Waiting) as told:
                    await cue.ask("travel/t", "run", command_id=f"{thread}-1", timeout_s=None, input=INPUT, thread=thread)
                waits[thread] = told.value.fields["wait_id"]
            await cue.answer("travel/t", waits["main"], "yes")
            await cue.ask("travel/t", "run", command_id="main-1", input=INPUT)
            await cue.ask("account/ada", "deposit", cents=5)

    asyncio.run(make())
    return folder


def said(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, str, str]:
    code = main([*line])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_path_is_a_row_per_node_and_one_per_question(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "trace", "travel/t", "--json", "--data", str(data))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["node"] for row in rows[:1] + rows[3:]] == [
        "plan", "research/ask_person", "research", "book", "tell", "tell", "research/ask_person",
    ]  # fmt: skip
    assert [row["order"] for row in rows[:-1]] == list(range(1, 9))
    assert (rows[-1]["outcome"], rows[-1]["answer"]) == ("answered", "yes")


def test_the_shape_is_that_of_the_code_and_a_thread_or_a_run_can_be_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["trace", "travel/t", "--mermaid", "--data", str(data)]
    _, with_code, _ = said(capsys, *line, "--app", APP, "--thread", "second")
    assert "waiting" in with_code.splitlines()[1]
    assert '["book"]' in with_code, "a node that was not taken"
    _, same, _ = said(capsys, *line, "--app", APP, "--run", "second-1")
    assert same == with_code
    _, without, note = said(capsys, *line, "--thread", "second")
    assert '["book"]' not in without
    assert "--app" in note


def test_the_picture_is_a_file_that_any_browser_shows(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = said(capsys, "trace", "travel/t", "--svg", str(tmp_path / "path.svg"), "--app", APP, "--data", str(data))
    assert code == 0
    text = "".join(ElementTree.parse(tmp_path / "path.svg").getroot().itertext())
    assert all(each in text for each in ("look_up", "compare", "7, 8", "→ yes", "done, 8 nodes, 1 interrupt"))


@pytest.mark.parametrize("what", ["account/ada", "nobody/here", "travel/none"])
def test_what_is_no_graph_is_a_correlation_id_as_before(data: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "trace", what, "--data", str(data))
    assert code == 3
    assert "correlation id" in err
