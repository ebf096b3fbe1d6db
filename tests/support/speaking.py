"""An actor that says what it does while it does it: `cuebook up --app tests.support.speaking:app`."""

import asyncio
from pathlib import Path

from actors import Actor, Event, State, command
from runtime import App


class Words(State):
    count: int = 0


class Spoke(Event[Words], tag="speaker.spoke"):
    count: int

    def apply(self, state: Words) -> None:
        state.count += self.count


class Speaker(Actor[Words], name="speaker"):
    """Says words at a given pace."""

    @command
    async def count_to(self, last: int, pause_s: float, folder: str) -> int:
        """Every word names the run of the step that says it, so that a mix of two would show."""

        async def say() -> int:
            run = len(list(Path(folder).iterdir()))
            (Path(folder) / str(run)).touch()
            for number in range(last):
                self.chunk(f"{run}:{number}")
                await asyncio.sleep(pause_s)
            return run

        run = await self.step("say", say)
        self.emit(Spoke(count=last))
        return run


app = App(actors=[Speaker])
