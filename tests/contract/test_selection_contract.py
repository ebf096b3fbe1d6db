"""`LogReader.select`: the same events from every adapter, whatever a selection says; and only what is wanted is read."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.envelope import Kind, NewEvent, RecordedEvent
from events.ids import CommandId, StreamId
from events.selection import EVERYTHING, OUTSIDE, Field, Selection, Term, correlated, literal, matches
from events.sqlite import selection_sqlite
from events.sqlite.rows import verified_event
from events.store import InboxStatus, LogReader, OutboxEntry, ShardStore
from tests.support.logs import LogUnderTest, append_one, command, group, log_under_test, stream_in, timer, wait

A, B = stream_in(0, 2, "a"), stream_in(0, 2, "b")
REMOTE = stream_in(1, 2, "r")
AWKWARD = ("", "c*1", "c?1", "c[1]", "c]1", "50%", "5_0", "back\\slash", "Straße", "ÄPFEL", "it's")


async def filled(log: LogUnderTest) -> ShardStore:
    """Events that differ in everything a selection can ask for."""
    shard = await log.shard(0)
    versions = {A: 0, B: 0}
    for number, word in enumerate(AWKWARD):
        stream = (A, B)[number % 2]
        event = NewEvent(
            type=f"test.{'ab'[number % 2]}", kind=Kind.STEP if number % 3 else Kind.STATE, payload=b'{"word":"%s"}' % word.encode(),
            error="ValueError" if number % 4 == 1 else None, summary=word if number % 5 == 0 else None,
        )  # fmt: skip
        more = {"correlation_id": word or None, "sender": REMOTE if number % 2 else None, "command_id": f"c{number}"}
        await shard.append([group(stream, versions[stream], event, **more)])
        versions[stream] += 1
        log.clock.advance(1)
    return shard


async def everything(reader: LogReader) -> Sequence[RecordedEvent]:
    return await reader.read(0)


FIELDS: dict[Field, list[str]] = {
    "type": ["test.a", "test.*", "*.b", "test.?", "TEST.a", "test.[ab]", "test.[!a]", "test.[^a]", "[t"],
    "stream": [A, B, "actor/*", "other/x", "actor/[ab]-*"],
    "actor_type": ["actor", "act*", "other"],
    "kind": ["state", "st*", "step"],
    "correlation_id": [*AWKWARD, *map(literal, AWKWARD), "c*", "*", "?"],
    "command_id": ["c1", "c1*", "c[!1]", "c[1-3]"],
    "sender": [OUTSIDE, REMOTE, "actor/*"],
    "error": ["true", "false"],
    "text": ["a", "STEP", "valueerror", "straße", "STRASSE", "äpfel", "50%", "5_0", "\\", "'", "word", '"word":"c*', "zzz"],
}
terms = st.sampled_from([Term(field=field, pattern=pattern) for field, patterns in FIELDS.items() for pattern in patterns])
selections = st.builds(
    Selection,
    included=st.lists(st.lists(terms, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple),
    excluded=st.lists(terms, max_size=2).map(tuple),
)


async def pages(reader: LogReader, wanted: Selection, limit: int, *, backwards: bool) -> list[RecordedEvent]:
    """All pages one after the other."""
    found: list[RecordedEvent] = []
    after, before = 0, None
    for _ in range(100):
        page = await reader.select(0, wanted, after=after, before=before, limit=limit, backwards=backwards)
        found += page.events
        if page.end:
            return found
        after, before = (0, page.upto) if backwards else (page.upto, None)
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("adapter", ["memory", "sqlite"])
async def test_every_term_of_every_field_finds_what_it_means(adapter: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Alone, excluded and paged: SQLite may not decide otherwise than `matches`."""
    log = log_under_test(adapter, 2, tmp_path_factory.mktemp("log") / "log")
    try:
        await filled(log)
        reader = await log.reader()
        events = list(await everything(reader))
        met = 0
        for field, patterns in FIELDS.items():
            for pattern in patterns:
                term = Term(field=field, pattern=pattern)
                for wanted in (Selection(included=((term,),)), Selection(excluded=(term,))):
                    expected = [event for event in events if matches(wanted, event)]
                    assert await pages(reader, wanted, 3, backwards=False) == expected, wanted
                    assert await pages(reader, wanted, 3, backwards=True) == expected[::-1], wanted
                    met += bool(expected) and len(expected) < len(events)
        assert met > 40
    finally:
        await log.close()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])
@given(asked=st.lists(st.tuples(selections, st.integers(1, 5), st.booleans()), min_size=30, max_size=60))
def test_any_selection_is_carried_out_alike(asked: list[tuple[Selection, int, bool]], tmp_path_factory: pytest.TempPathFactory) -> None:
    async def check() -> None:
        log = log_under_test("sqlite", 2, tmp_path_factory.mktemp("log") / "log")
        try:
            await filled(log)
            reader = await log.reader()
            events = await everything(reader)
            for wanted, limit, backwards in asked:
                expected = [event for event in events if matches(wanted, event)]
                assert await pages(reader, wanted, limit, backwards=backwards) == (expected[::-1] if backwards else expected), wanted
        finally:
            await log.close()

    asyncio.run(check())


async def test_times_bound_a_selection(log: LogUnderTest) -> None:
    await filled(log)
    reader = await log.reader()
    events = list(await everything(reader))
    wanted = Selection(after_us=events[3].time, before_us=events[6].time)
    assert (await reader.select(0, wanted)).events == events[3:6]


async def test_a_page_says_how_far_it_looked(log: LogUnderTest) -> None:
    """A follower goes on there, also over what nobody wanted."""
    shard = await filled(log)
    reader = await log.reader()
    top = (await reader.info(0)).position
    nothing = await reader.select(0, correlated("nobody"))
    assert (nothing.events, nothing.upto, nothing.end) == ([], top, True)
    await append_one(shard, A, (await reader.head(A)).version, NewEvent(type="test.c", payload=b"{}"))  # type: ignore[union-attr]
    more = await reader.select(0, EVERYTHING, after=nothing.upto)
    assert [event.type for event in more.events] == ["test.c"]
    assert (await reader.select(0, EVERYTHING, after=more.upto)).events == []
    within = await reader.select(0, EVERYTHING, after=2, before=5)
    assert [event.position for event in within.events] == [3, 4]


async def test_what_is_under_way_is_listed(log: LogUnderTest) -> None:
    shard = await log.shard(0)
    send = OutboxEntry(receiver=REMOTE, method="deposit", args=b"{}", command_id=CommandId("s-1"))
    await append_one(
        shard, A, 0, NewEvent(type="test.a", payload=b"{}"), command_id="c1", inbox=command(A, "c1", InboxStatus.RUNNING), outbox=(send,),
        timers=(timer(A, "t"),), waits=(wait(A, "w"),),
    )  # fmt: skip
    await append_one(shard, B, 0, NewEvent(type="test.a", payload=b"{}"), command_id="c2", inbox=command(B, "c2"))
    found = await (await log.reader()).under_way(0)
    assert [(entry.stream, entry.command_id) for entry in found.commands] == [(A, "c1")]
    assert [(sent.sender, sent.entry.receiver) for sent in found.sends] == [(A, REMOTE)]
    assert ([each.timer_id for each in found.timers], [each.wait_id for each in found.waits]) == (["t"], ["w"])
    assert not found.damages
    other = await (await log.reader()).under_way(1)
    assert (other.commands, other.sends) == ([], [])


def test_a_stream_name_is_a_literal_glob() -> None:
    assert literal("account/42") == StreamId("account/42")


async def test_only_what_is_wanted_is_read_and_verified(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for all this: one event out of many costs one event in Python, whatever the log holds."""
    log = log_under_test("sqlite", 2, tmp_path_factory.mktemp("log") / "log")
    built: list[int] = []

    def counting(shard: int, row: Any, previous: bytes) -> RecordedEvent:
        built.append(row[0])
        return verified_event(shard, row, previous)

    try:
        await filled(log)
        reader = await log.reader()
        monkeypatch.setattr(selection_sqlite, "verified_event", counting)
        for field, pattern in (("correlation_id", "c?1"), ("command_id", "c3"), ("text", "back"), ("text", '"word":"it')):
            built.clear()
            found = await reader.select(0, Selection(included=((Term(field=field, pattern=literal(pattern)),),)))  # type: ignore[arg-type]
            assert (len(found.events), len(built), found.end) == (1, 1, True), (field, pattern)
        built.clear()
        both = await reader.select(0, correlated("50%", "5_0", "nobody"))
        assert (len(both.events), len(built)) == (2, 2)
    finally:
        await log.close()
