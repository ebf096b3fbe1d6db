"""S37: an actor's own recall over ``cue.view``: of its workspace, fresh, also when its turn is run again after a crash."""

from pathlib import Path

import pytest

from runtime.client import connect
from tests.support.deployment import Deployment

pytestmark = pytest.mark.timeout(180)
THOUGHT = "the third shard is the slow one"


@pytest.mark.usefixtures("_nats_program")
async def test_s37_a_fresh_recall_sees_what_the_turn_had_remembered_before_its_worker_was_killed(tmp_path: Path) -> None:
    die = tmp_path / "die"
    die.touch()
    with Deployment(tmp_path / "data", app="tests.support.recalling:app", environment={"CUEBOOK_SHARDS": "1"}) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            assert await cue.ref("ponder", "calm").ask("ponder", thought=THOUGHT) == [THOUGHT]
            found = await cue.ref("ponder", "desk").ask("ponder", thought=THOUGHT, die=str(die))
            assert found == [THOUGHT], "once, and of its own workspace only"
            assert not die.exists()
            page = await cue.log("read", stream="ponder/desk")
        kinds = [event["type"] for event in page["events"]]
        assert kinds.count("view.started") == kinds.count("view.completed") == 1
        assert kinds.count("ask.completed") == 1
