"""Actors that ask the next one down, and the last of them works: `cuebook up --app tests.support.chain:app`."""

import asyncio
import os
import sys
from pathlib import Path

from actors import Actor, Event, State, command, query
from actors.child import child
from actors.models import Message
from runtime import App

NOTES = "CHAIN_NOTES"
"""Folder where the work says that it runs: a file per pid of the program that does it."""


class Done(State):
    count: int = 0


class Counted(Event[Done], tag="link.counted"):
    def apply(self, state: Done) -> None:
        state.count += 1


async def toil() -> None:
    """A program that runs until somebody ends it."""
    words = [sys.executable, "-c", "import time; time.sleep(3600)"]
    nothing = asyncio.subprocess.DEVNULL
    async with child(words, cwd=None, environment=dict(os.environ), stdin=nothing, stderr=nothing) as process:
        (Path(os.environ[NOTES]) / str(process.pid)).touch()
        await process.wait()


class Link(Actor[Done], name="link"):
    """`below`: ids of the actors that are asked, one after another down; several of the lowest at once."""

    @command
    async def work(self, below: list[str], beside: int = 0, model: str = "") -> int:
        if not below and model:
            await self.model(model).chat([Message(role="user", content="?")])
        elif not below:
            await self.step("toil", toil)
        elif len(below) == 1 and beside:
            async with asyncio.TaskGroup() as group:
                for number in range(beside):
                    group.create_task(self.ref(Link, f"{below[0]}{number}", timeout_s=600).work(below=[]))
        else:
            await self.ref(Link, below[0], timeout_s=600).work(below=below[1:], beside=beside, model=model)
        self.emit(Counted())
        return self.state.count

    @query
    def count(self) -> int:
        return self.state.count


app = App(actors=[Link])
