"""A reviewer that asks a person before it begins and then works until a file is there: what runs are tried with from the command line."""

import os
from pathlib import Path

from actors.event import State
from actors.tasks import TASKS, Agent, Job, NeedsAnswer, Result
from ops.memory import with_memory
from ops.models import with_providers
from runtime import App
from tests.support.crew import append, gate

GATE = "GUIDED_GATE"
"""The variable that names the file."""


class Nothing(State):
    pass


class Reviewer(Agent[Nothing], name="reviewer"):
    async def handle(self, job: Job) -> Result:
        if not any(said.step == job.step for said in job.answers):
            raise NeedsAnswer("Which page first?")
        if job.root:
            await self.step("notes", append, str(Path(job.root, "notes.md")), "\n".join([job.task, *job.instructions]))
        await self.step("gate", gate, str(Path(os.environ[GATE])))
        return Result(text="it is fine")


app = with_providers(with_memory(App(actors=[*TASKS, Reviewer])))
