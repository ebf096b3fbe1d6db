"""`compare` on the terminal and as a page: nothing recorded becomes markup, and nothing is loaded from elsewhere."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ops.__main__ import main
from ops.examples.bank import app
from runtime.local import local_runtime

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("deployment")

    async def make() -> None:
        async with local_runtime(app, data / "log", shards=2) as cue:
            for name, cents in (("one", 5), ("two", 7)):
                await cue.ask(f"account/{name}", "deposit", cents=1)
                await cue.ask(f"account/{name}", "deposit", cents=cents, command_id=f"{HOSTILE}-{name}")

    asyncio.run(make())
    return data


def compare(deployment: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any], str]:
    code = main(["compare", *arguments, "--app", "ops.examples.bank:app", "--data", str(deployment)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_json_has_each_pair_and_the_sums(deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows, said = compare(deployment, capsys, "account/one", "account/two", "--json")
    assert code == 0
    assert rows[0]["same"] == 1
    assert rows[0]["divergence"]["patch"] == [{"op": "replace", "path": "/cents", "value": 7}]
    assert rows[0]["state_patch"] == [{"op": "replace", "path": "/cents", "value": 8}]
    assert rows[-1]["left"]["usage"]["events"] == 2
    assert "1 of 1 streams differ, first account/one at version 2" in said


def test_the_page_stands_alone_and_escapes_what_was_recorded(deployment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "two.html"
    assert compare(deployment, capsys, f"{HOSTILE}-one", f"{HOSTILE}-two", "--html", str(page))[0] == 0
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in text
    assert "account/one" in text


def test_what_is_not_recorded_is_not_found(deployment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(deployment, capsys, "account/one", "account/nobody")[0] == 3
