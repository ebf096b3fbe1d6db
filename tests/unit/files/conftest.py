"""A workspace of a few files and the actor that keeps it."""

from pathlib import Path

import pytest

from actors.files import Files, Grant, Rules
from actors.files.listing import LeftOut
from actors.files.records import CheckpointMade
from actors.testing import ActorTest, Result
from actors.workspace_id import workspace_id


def refusals(made: Result) -> list[LeftOut]:
    """What a checkpoint refused, as its event names it."""
    return [left for event in made.events if isinstance(event, CheckpointMade) for left in event.refused]


RULES = Rules(agents={"fixer": Grant(file_write=True, allowed_paths=("src/**", "*.md"))})


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "src").mkdir(parents=True)
    (root / "src" / "cart.py").write_bytes(b"one\ntwo\nthree\n")
    (root / "README.md").write_bytes(b"# Shop\r\n")
    return root


@pytest.fixture
async def files(workspace: Path) -> ActorTest:
    """Opened, with `fixer` allowed to write below src/."""
    actor = ActorTest(Files, workspace_id(workspace))
    result = await actor.when("open", root=str(workspace), rules=RULES)
    assert result.reply == str(workspace)
    return actor
