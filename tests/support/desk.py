"""An actor that waits: a desk where papers are signed. Shared by the tests of waits, of ``once`` steps and of kills."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from actors import Actor, Event, State, StepFailed, WaitExpired, command, query
from events.sqlite.reader_sqlite import SqliteLogReader
from events.store import WaitEntry
from runtime.app import App


class Desk(State):
    lines: list[str] = []


class Written(Event[Desk], tag="desk.written"):
    line: str

    def apply(self, state: Desk) -> None:
        state.lines.append(self.line)


class Decision(State):
    """Some typed answer."""

    approved: bool
    note: str = ""


EFFECTS: dict[str, Callable[..., Awaitable[Any]]] = {}
"""What the steps of a test do, by name: the actor class outlives the test."""


async def effect(name: str, *args: str) -> str:
    result: str = await EFFECTS[name](*args)
    return result


class DeskActor(Actor[Desk], name="desk"):
    @command
    async def write(self, line: str) -> int:
        self.emit(Written(line=line))
        return len(self.state.lines)

    @command
    async def sign(self, paper: str, within_s: float | None = None) -> str:
        """Emits, waits, emits what it sees by then."""
        self.emit(Written(line=f"asked for {paper} as {len(self.state.lines) + 1}"))
        try:
            by = await self.wait_for("signature", timeout_s=within_s, type=str)
        except WaitExpired:
            by = "nobody"
        self.emit(Written(line=f"{paper} signed by {by} as {len(self.state.lines) + 1}"))
        return f"{paper}: {by}"

    @command
    async def decide(self, paper: str) -> list[Any]:
        """A typed wait between steps, and a second wait of the same name."""
        drafted = await self.step("draft", effect, "draft", paper)
        first = await self.wait_for("decision", type=Decision)
        self.emit(Written(line=f"{drafted}: {first.approved} {first.note}"))
        checked = await self.step("check", effect, "check", paper)
        second = await self.wait_for("decision", type=Decision)
        self.emit(Written(line=f"{checked}: {second.approved} after {len(self.state.lines)}"))
        return [first.approved, second.approved, self.random(), self.new_id()]

    @command
    async def pass_on(self, to: str, line: str) -> str:
        """What it sends and schedules before the wait leaves with it."""
        self.ref(DeskActor, to).tell.write(line=line)
        self.schedule(0.001, "write", line="scheduled before")
        self.chunk("before")
        answer: str = await self.wait_for("go")
        self.chunk("after")
        self.ref(DeskActor, to).tell.write(line=answer)
        return answer

    @command
    async def ask_on(self, to: str, paper: str, within_s: float) -> str:
        answer: str = await self.ref(DeskActor, to, timeout_s=within_s).sign(paper=paper)
        return answer

    @command
    async def fetch(self, name: str = "fetch") -> str:
        return await self.step(name, effect, name)

    @command
    async def charge(self, line: str = "charged") -> str:
        """What must happen at most once."""
        self.emit(Written(line="before"))
        try:
            receipt = await self.step("charge", effect, "charge", once=True)
        except StepFailed as error:
            receipt = f"failed: {error.message}"
        self.emit(Written(line=f"{line} {receipt}"))
        return receipt

    @query
    def lines(self) -> list[str]:
        return self.state.lines


APP = App(actors=[DeskActor], version="test")


async def waits_of(directory: Path) -> list[WaitEntry]:
    """Every open wait in the log, from its files."""
    reader = await SqliteLogReader.open(directory)
    try:
        return [wait for shard in range(reader.shards) for wait in await reader.waits(shard)]
    finally:
        await reader.close()
