"""Five actors that talk: a desk asks three workers in turn and tells a ledger. Every effect leaves a line in the file of
`CUEBOOK_TEST_STEPS`, so that a test can count what was executed, in whatever process."""

import os
from pathlib import Path

from actors import Actor, Event, State, command, query
from runtime import App


class Notes(State):
    notes: list[str] = []


class Noted(Event[Notes], tag="talkers.noted"):
    note: str

    def apply(self, state: Notes) -> None:
        state.notes.append(self.note)


class Desk(Actor[Notes], name="desk"):
    @command
    async def plan(self, rounds: int) -> str:
        said = ""
        for number in range(rounds):
            word = await self.step("model", model, number)
            said = await self.ref(Worker, f"w{number % 3}").work(item=word)
        self.emit(Noted(note=said))
        self.ref(Ledger, "l").tell.note(text=said)
        return said


class Worker(Actor[Notes], name="worker"):
    @command
    async def work(self, item: str) -> str:
        done: str = await self.step("work", work, item)
        self.emit(Noted(note=done))
        return done


class Ledger(Actor[Notes], name="ledger"):
    @command
    async def note(self, text: str) -> None:
        self.emit(Noted(note=text))

    @query
    def notes(self) -> list[str]:
        return self.state.notes


def _executed(line: str) -> None:
    with Path(os.environ["CUEBOOK_TEST_STEPS"]).open("a") as file:
        file.write(f"{line}\n")


async def model(number: int) -> str:
    _executed(f"model {number}")
    return f"{os.environ.get('CUEBOOK_TEST_ANSWER', 'plain')}-{number}"


async def work(item: str) -> str:
    _executed(f"work {item}")
    return f"done {item}"


app = App(actors=[Desk, Worker, Ledger])
