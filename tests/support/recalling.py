"""An actor that remembers and recalls in one turn, and dies between the two if a file tells it to: `--app tests.support.recalling:app`."""

import os
import signal
from pathlib import Path

from actors import Actor, State, command
from runtime import App


class Nothing(State):
    pass


class PonderActor(Actor[Nothing], name="ponder"):
    @command
    async def ponder(self, thought: str, die: str | None = None) -> list[str]:
        """What is found of `thought` right after it was remembered. die: a file that goes with the process, once."""
        await self.ref("memory", self.id).remember(content=thought)
        await self.step("die", end, die)
        found = await self.view("memory", fresh=True).recall(query=thought)
        return [each["content"] for each in found]


def end(file: str | None) -> None:
    if file is not None and Path(file).exists():
        Path(file).unlink()
        os.kill(os.getpid(), signal.SIGKILL)


app = App(actors=[PonderActor])
