"""S37: an actor's question to a projection is a recorded step over ``cue.view``, and survives the death of the projector."""

import os
import signal
from pathlib import Path

import pytest

from projections.locking import lock_holder
from runtime.client import connect
from tests.support.deployment import Deployment, wait_until


@pytest.mark.usefixtures("_nats_program")
async def test_s37_a_question_to_a_view_is_recorded_and_waits_for_a_projector_that_is_replaced(tmp_path: Path) -> None:
    with Deployment(tmp_path / "data", app="tests.support.viewing:app") as deployment:
        deployment.wait_balanced()
        projector = wait_until(lambda: lock_holder(deployment.data / "views" / "balances"), "a projector runs")
        async with connect(deployment.nats_url) as cue:
            for number in range(3):
                await cue.ref("account", f"v{number}").ask("deposit", cents=1)
            shard_head = {int(shard): at for shard, at in (await cue.log("head"))["positions"].items()}
            assert len(await cue.view("balances", after=shard_head).richest()) == 3
            assert await cue.ref("reporter", "r").ask("look") == 3
            os.kill(projector, signal.SIGKILL)
            assert await cue.ref("reporter", "r").ask("look") == 3
            page = await cue.log("read", stream="reporter/r")
        kinds = [event["type"] for event in page["events"]]
        assert kinds.count("view.started") == kinds.count("view.completed") == 2
        assert "view.failed" not in kinds
