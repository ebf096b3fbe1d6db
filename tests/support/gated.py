"""An actor whose step lasts until a file is there, and says in another how often it began."""

import asyncio
from pathlib import Path

from actors import Actor, State, command
from runtime import App


class Nothing(State):
    pass


async def wait_for_gate(folder: str, name: str) -> str:
    with Path(folder, f"{name}.begun").open("a") as file:
        file.write("begun\n")
    while not Path(folder, f"{name}.gate").exists():
        await asyncio.sleep(0.01)  # opened by another process, which leaves nothing but the file
    return name


class Gated(Actor[Nothing], name="gated"):
    @command
    async def work(self, folder: str, name: str) -> str:
        return await self.step("wait", wait_for_gate, folder, name)


app = App(actors=[Gated])
