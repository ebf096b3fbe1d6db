"""What a turn holds of another actor goes back when the turn ends, however it ends, and never by a crash alone."""

import asyncio
from typing import Any

import pytest

from actors import Actor, Event, Rejected, State, command
from actors.holding import holds, settles
from runtime import App
from runtime.local import LocalRuntime
from tests.support.virtual import Virtual, virtually


class Lent(State):
    out: list[str] = []


class Taken(Event[Lent], tag="library.taken"):
    book: str

    def apply(self, state: Lent) -> None:
        state.out.append(self.book)


class Returned(Event[Lent], tag="library.returned"):
    book: str
    how: str

    def apply(self, state: Lent) -> None:
        state.out.remove(self.book)


class Library(Actor[Lent], name="library"):
    @command
    @holds("book", release="give_back", lent=lambda reply: reply == "lent")
    def take(self, book: str) -> str:
        if book == "bible":
            return "not today"
        if book == "atlas":
            raise Rejected("it is never lent")
        self.emit(Taken(book=book))
        return "lent"

    @command
    @settles("book")
    def bring(self, book: str) -> None:
        self.emit(Returned(book=book, how="brought"))

    @command
    def give_back(self, book: str) -> None:
        if book in self.state.out:
            self.emit(Returned(book=book, how="given back"))


class Reader(Actor[State], name="reader"):
    @command
    async def read(self, book: str, end: str) -> str:
        library = self.ref(Library, "l")
        if await library.take(book=book) != "lent":
            return "nothing to read"
        if end == "raise":
            raise ValueError("it was a bad book")
        if end == "refuse":
            raise Rejected("it was a bad book")
        if end == "forget":
            return "forgot it"
        await self.step("read", asyncio.sleep, 10.0)
        if end == "wait":
            await self.wait_for("inspiration")
        await library.bring(book=book)
        return "read"


APP = App(actors=[Library, Reader])


def kinds(virtual: Virtual, stream: str, tag: str) -> list[str]:
    return [bytes(event.payload).decode() for event in virtual.log.content(0).events if event.stream == stream and event.type == tag]


def ask(runtime: LocalRuntime, book: str, end: str) -> "asyncio.Future[Any]":
    return asyncio.ensure_future(runtime.ask("reader/r", "read", book=book, end=end, command_id="c", timeout_s=100))


@pytest.mark.parametrize("end", ["raise", "refuse", "forget"])
def test_a_turn_that_ends_gives_back_what_it_did_not_bring(end: str) -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            await asyncio.wait([asked := ask(runtime, "b", end)])
            assert (asked.exception() is None) == (end == "forget")
            await asyncio.sleep(1)
        assert kinds(virtual, "library/l", "library.returned") == ['{"book":"b","how":"given back"}']

    virtually(main)


def test_what_was_brought_is_not_given_back_and_writes_nothing_more() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            assert await ask(runtime, "b", "") == "read"
            await asyncio.sleep(1)
        assert kinds(virtual, "library/l", "library.returned") == ['{"book":"b","how":"brought"}']
        assert [event.type for event in virtual.log.content(0).events if event.type.startswith("message.")] == []

    virtually(main)


@pytest.mark.parametrize("book", ["bible", "atlas"])
def test_what_was_not_lent_is_not_given_back(book: str) -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            await asyncio.wait([ask(runtime, book, "")])
            await asyncio.sleep(1)
        assert [event.type for event in virtual.log.content(0).events if event.type.startswith("message.")] == []

    virtually(main)


@pytest.mark.parametrize("killed", [False, True], ids=["it runs", "its process was killed before"])
def test_s22_a_cancelled_turn_gives_back_what_its_journal_says(killed: bool) -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP, killed=killed) as runtime:
            asked = ask(runtime, "b", "")
            await asyncio.sleep(1)
            if killed:
                asked.cancel()
            else:
                assert await runtime.cancel("reader/r", "c") == "cancelled"
                await asyncio.wait([asked])
                await asyncio.sleep(1)
        if killed:
            assert kinds(virtual, "library/l", "library.returned") == [], "a crash gives nothing back"
            async with virtual.runtime(APP) as runtime:
                assert await runtime.cancel("reader/r", "c") == "cancelled"
                await asyncio.sleep(1)
        assert kinds(virtual, "library/l", "library.returned") == ['{"book":"b","how":"given back"}']

    virtually(main)


def test_s20_a_turn_that_waits_for_a_person_keeps_what_it_holds_until_it_is_cancelled() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            asked = ask(runtime, "b", "wait")
            await asyncio.sleep(50)
            assert kinds(virtual, "library/l", "library.returned") == []
            assert await runtime.cancel("reader/r", "c") == "cancelled"
            await asyncio.wait([asked])
            await asyncio.sleep(1)
        assert kinds(virtual, "library/l", "library.returned") == ['{"book":"b","how":"given back"}']

    virtually(main)
