"""The keeper of a run's workspace: makes the checkpoint at its start, and brings it back."""

from pathlib import Path

from actors.errors import Rejected
from actors.event import State
from actors.files import Files, Refusal
from actors.tasks.agent import Agent
from actors.tasks.limits import WORKSPACE_S
from actors.tasks.records import Job, Result
from actors.workspace_id import workspace_id


class KeeperState(State):
    """Nothing: what it does is in the streams of the run and of the workspace."""


class Keeper(Agent[KeeperState], name="keeper"):
    """Speaks with the `files` actor for one run, so that the run itself never waits for a disk."""

    async def handle(self, job: Job) -> Result:
        if job.step == "_checkpoint":
            workspace = await self.step("workspace", workspace_of, job.root)
            files = self.ref(Files, workspace, timeout_s=WORKSPACE_S)
            await files.open(root=job.root)
            made = await files.checkpoint(label=f"before {job.run}")
            if isinstance(made, Refusal):
                raise Rejected(made.reason, rule=made.rule)
            return Result(data={"workspace": workspace, "commit": made.commit})
        if job.step == "_restore":
            files = self.ref(Files, job.workspace, timeout_s=WORKSPACE_S)
            restored = await files.restore(commit=job.commit)
            if isinstance(restored, Refusal):
                raise Rejected(restored.reason, rule=restored.rule)
            return Result(data=restored)
        raise Rejected(f"the keeper does not know how to {job.step!r}")


def workspace_of(root: str) -> str:
    """Step: the id of the workspace in the folder `root`."""
    return workspace_id(Path(root).resolve())
