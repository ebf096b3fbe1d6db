"""`Client.stream`: beginning and rest of what a turn says, never a mix of two attempts, whatever is lost, late or doubled on the way."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from actors.errors import Unavailable, Unknown
from actors.turn import Turn
from events.clock import SystemClock
from events.codec import encode
from runtime import hearing
from runtime.hearing import Ended, Joining, Part, hear
from runtime.turns import spoken
from runtime.turns.spoken import Said, SaidArguments, Spoken

SEEDS = int(os.environ.get("CUEBOOK_HEARING_SEEDS", "300"))


def turn(resumed: int = 0) -> Turn:
    """A run of one command's handler, as far as `Spoken` looks at it."""
    return cast("Turn", SimpleNamespace(command=SimpleNamespace(stream="speaker/s", command_id="c"), resumed=resumed))


def message(attempt: int, offset: int, data: Any, *, end: bool = False) -> bytes:
    return encode({"attempt": attempt, "offset": offset, "data": data, "end": end})


class Owner:
    """The real keeper of what a turn says, with the crashes and re-runs of its turn. truth: what each attempt has said, by offset."""

    def __init__(self) -> None:
        self.epoch = 0
        self.words = 0
        self.truth: dict[int, list[str]] = {}
        self.published: list[bytes] = []
        self.crash()

    def crash(self) -> None:
        """Another owner begins, which knows nothing."""
        self.epoch += 1
        self.spoken = Spoken(self.epoch)
        self.turn = turn()
        self.counted = 0

    def run_again(self) -> None:
        """The log moved under the turn: it is decided again (S18) from its last wait."""
        self.turn = turn(self.turn.resumed)

    def wait(self) -> None:
        """It has waited and goes on (S20)."""
        self.turn = turn(self.turn.resumed + 1)

    def say(self) -> None:
        self.words += 1
        data = f"w{self.words}"
        attempt, offset = self.spoken.add(self.turn, self.counted, data)
        self.counted += 1
        said = self.truth.get(attempt)
        if said is None:
            before = self.truth[max(self.truth)] if self.truth else []
            said = self.truth[attempt] = before[:offset]
        assert len(said) == offset, "an offset is said once"
        said.append(data)
        self.published.append(message(attempt, offset, data))

    def end(self) -> None:
        ended = self.spoken.end(cast("Any", "speaker/s"), "c")
        if ended is not None:
            self.published.append(message(*ended, None, end=True))

    def page(self, joining: Joining) -> Said:
        attempt, offset = joining.wanted
        return self.spoken.page(cast("Any", "speaker/s"), SaidArguments(command_id="c", after=offset, attempt=attempt))


class Reader:
    """Takes parts as an application does, and knows what it may never be given."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.joining = Joining()
        self.heard: list[str | None] = []
        self.attempt = 0

    def take(self, parts: Iterator[Part]) -> None:
        for part in parts:
            if part.restarted:
                self.heard = []
            elif self.heard:
                assert part.attempt == self.attempt, "a mix of two attempts"
            assert part.attempt >= self.attempt
            self.attempt = part.attempt
            self.heard += [None] * part.missing
            assert part.offset == len(self.heard), "a part is missing, or given twice"
            self.heard.append(part.data)
            assert part.data == self.owner.truth[part.attempt][part.offset], "a mix of two attempts"


def play(seed: int) -> tuple[Reader, Owner]:
    chance = random.Random(seed)
    owner = Owner()
    reader = Reader(owner)
    late = chance.choice([0, 0, 5, 20])
    on_the_way: list[bytes] = []
    told: list[Said] = []
    for number in range(chance.choice([10, 60])):
        act = chance.choices(["say", "crash", "again", "wait", "lose", "page", "told", "hear"], [8, 0.4, 0.5, 0.5, 1, 2, 3, 8])[0]
        if act == "say":
            owner.say()
            on_the_way.append(owner.published[-1])
            if chance.random() < 0.1:
                on_the_way.append(owner.published[-1])  # a copy that a cut connection has delivered twice
        elif act == "crash":
            owner.crash()
        elif act == "again":
            owner.run_again()
        elif act == "wait":
            owner.wait()
        elif act == "lose" and on_the_way:
            on_the_way.pop(chance.randrange(len(on_the_way)))
        elif number >= late:
            if act == "page":
                told.append(owner.page(reader.joining))
            elif act == "told" and told:
                # Only one question is under way at a time; the answer may be old.
                reader.take(reader.joining.page(told.pop(0)))
                told.clear()
            elif act == "hear" and on_the_way and not told:
                reader.take(reader.joining.message(on_the_way.pop(0)))
    for body in on_the_way:
        reader.take(reader.joining.message(body))
    return reader, owner


def test_whatever_is_lost_late_or_doubled_no_reader_gets_a_mix_and_every_one_catches_up() -> None:
    """CUEBOOK_HEARING_SEEDS=20000 for a long run."""
    restarts = 0
    for seed in range(SEEDS):
        reader, owner = play(seed)
        joining = reader.joining
        for _ in range(3):
            reader.take(joining.page(owner.page(joining)))
        owner.say()  # so that the last attempt has said something
        for _ in range(3):
            reader.take(joining.page(owner.page(joining)))
        owner.end()
        reader.take(joining.message(owner.published[-1]))
        last = max(owner.truth)
        assert (reader.attempt, reader.heard) == (last, owner.truth[last]), seed
        assert joining.whole, seed
        restarts += len(owner.truth) > 1
    assert restarts > SEEDS // 4


def test_two_contents_at_one_place_are_not_mixed() -> None:
    """Nobody of ours does that; if it happens all the same, the owner's word counts, from the beginning."""
    joining = Joining()
    assert [part.data for part in joining.message(message(7, 0, "to"))] == ["to"]
    assert [part.data for part in joining.message(message(7, 1, "be"))] == ["be"]
    assert list(joining.message(message(7, 0, "or"))) == []
    assert joining.behind
    assert joining.wanted == (7, 0)
    said = Said(status="running", attempt=7, chunks=[msgspec.Raw(b'"or"'), msgspec.Raw(b'"not"')])
    assert [(part.data, part.restarted) for part in joining.page(said)] == [("or", True), ("not", False)]


def test_what_the_owner_has_forgotten_is_counted() -> None:
    joining = Joining()
    said = Said(status="running", attempt=7, offset=5, chunks=[msgspec.Raw(b'"six"'), msgspec.Raw(b'"seven"')])
    assert [(part.offset, part.missing) for part in joining.page(said)] == [(5, 5), (6, 0)]
    assert list(joining.message(message(7, 7, None, end=True))) == []
    assert not joining.whole


def test_the_memory_of_many_speakers_is_bounded_and_offsets_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken, "TURNS_MAX", 1)
    kept = Spoken(3)
    first = turn()
    other = cast("Turn", SimpleNamespace(command=SimpleNamespace(stream="speaker/s", command_id="d"), resumed=0))
    attempt, _ = kept.add(first, 0, "a")
    kept.add(other, 0, "x")
    assert kept.page(cast("Any", "speaker/s"), SaidArguments(command_id="c")).chunks == []
    assert kept.add(first, 1, "b") == (attempt, 1)
    page = kept.page(cast("Any", "speaker/s"), SaidArguments(command_id="c"))
    assert (page.attempt, page.offset, page.chunks) == (attempt, 1, [msgspec.Raw(b'"b"')])
    assert kept.end(cast("Any", "speaker/s"), "c") == (attempt, 2)


class PlayedMail:
    """Adapter of `Mail` that the test fills."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.away = False

    async def next(self, timeout_s: float) -> tuple[str, bytes] | None:
        try:
            async with asyncio.timeout(timeout_s):
                body = await self.queue.get()
        except TimeoutError:
            return None
        return None if body is None else ("cue.chunk.speaker.s.speak.c", body)

    def was_away(self) -> bool:
        was, self.away = self.away, False
        return was

    def reconnect(self) -> None:
        self.away = True
        self.queue.put_nowait(None)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["PlayedMail"]:
        yield self


class Asked:
    """Adapter of the owner's ``_said``: a script of answers and errors, the last for ever."""

    def __init__(self, *script: Said | Exception) -> None:
        self.script = list(script)
        self.asked: list[SaidArguments] = []

    async def __call__(self, wanted: SaidArguments) -> bytes:
        self.asked.append(wanted)
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, Exception):
            raise said
        return encode(said)


def said(*words: str, attempt: int = 7, offset: int = 0) -> Said:
    return Said(status="running", attempt=attempt, offset=offset, chunks=[msgspec.Raw(encode(word)) for word in words])


DONE = Said(status="done", reply=msgspec.Raw(b"42"))


async def told(mail: PlayedMail, asked: Asked, unknown_s: float = 5.0) -> list[Part | Ended]:
    async with asyncio.timeout(20), aclosing(hear(mail.opened(), asked, SystemClock(), "c", unknown_s)) as parts:
        return [part async for part in parts]


async def test_a_reader_that_comes_after_the_end_gets_the_reply() -> None:
    assert await told(PlayedMail(), Asked(DONE)) == [Ended(status="done", reply=42, whole=False)]


async def test_a_command_that_is_still_on_its_way_is_waited_for_and_one_that_never_was_is_unknown() -> None:
    found = await told(PlayedMail(), Asked(Unknown("who?"), Unavailable("nobody yet"), DONE))
    assert isinstance(found[-1], Ended)
    with pytest.raises(Unknown):
        await told(PlayedMail(), Asked(Unknown("who?")), unknown_s=0.05)


async def until(asked: Asked, times: int) -> None:
    async with asyncio.timeout(10):
        while len(asked.asked) < times:
            await asyncio.sleep(0)


async def test_the_last_words_may_come_after_the_end_is_known() -> None:
    mail, asked = PlayedMail(), Asked(said("to"), DONE)
    task = asyncio.ensure_future(told(mail, asked))
    await until(asked, 1)
    mail.reconnect()  # so that it asks again at once
    await until(asked, 2)
    mail.queue.put_nowait(message(7, 1, "be"))
    mail.queue.put_nowait(message(7, 2, None, end=True))
    parts = await task
    assert [part.data for part in parts if isinstance(part, Part)] == ["to", "be"]
    assert parts[-1] == Ended(status="done", reply=42, whole=True)


async def test_after_a_reconnect_the_owner_is_asked_behind_what_was_given() -> None:
    mail, asked = PlayedMail(), Asked(said("to"), said("be", offset=1), DONE)
    task = asyncio.ensure_future(told(mail, asked))
    await until(asked, 1)
    mail.reconnect()
    await until(asked, 2)
    mail.queue.put_nowait(message(7, 2, None, end=True))
    parts = await task
    assert [part.data for part in parts if isinstance(part, Part)] == ["to", "be"]
    assert parts[-1] == Ended(status="done", reply=42, whole=True)
    assert (asked.asked[1].attempt, asked.asked[1].after) == (7, 1)


async def test_who_stays_without_the_last_words_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of the end was lost with the connection: the reply counts."""
    monkeypatch.setattr(hearing, "_LAST_S", 0.1)
    mail, asked = PlayedMail(), Asked(said("to"), DONE)
    task = asyncio.ensure_future(told(mail, asked))
    await until(asked, 1)
    mail.reconnect()
    assert (await task)[-1] == Ended(status="done", reply=42, whole=False)
