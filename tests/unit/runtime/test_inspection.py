"""The read side over real shard files: merged order, states of the past, differences, traces, and what `replay --verify` finds."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jsonpatch
import pytest

from actors import Actor, Event, State, command
from actors.errors import BadPayload, Unknown
from actors.registry import Registry
from events.codec import canonical_hash
from events.ids import StreamId
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.examples.bank import Account, AccountActor, app
from runtime.app import App
from runtime.local import local_runtime
from runtime.past import causes
from runtime.past.filters import parse_filter
from runtime.past.inspection import (
    LiveState,
    find_event,
    streams,
    verify_state,
    verify_states,
)
from runtime.past.merging import head, last, merged, merged_backwards, positions_at
from runtime.past.sequence import mermaid, sequence
from runtime.past.states import diff, state_at

A, B = StreamId("account/a"), StreamId("account/b")


@asynccontextmanager
async def log_of(folder: Path) -> AsyncIterator[SqliteLogReader]:
    """Two accounts in different shards, 130 deposits, one transfer from one to the other."""
    async with local_runtime(app, folder) as cue:
        for n in range(130):
            await cue.ask(A if n % 2 else B, "deposit", cents=n + 1)
        await cue.ask(A, "transfer", cents=100, to="b", command_id="move-1")
        balance = 0
        while balance != sum(range(1, 130, 2)) + 100:
            balance = await cue.ask(B, "balance")
    reader = await SqliteLogReader.open(folder)
    try:
        yield reader
    finally:
        await reader.close()


async def test_merged_order_is_by_time_then_shard_then_position_and_reverses(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        events = [event async for event in merged(reader)]
        places = [(event.time, event.shard, event.position) for event in events]
        assert places == sorted(places)
        assert len({event.shard for event in events}) == 2
        assert len(events) == sum((await head(reader)).values())
        assert [event async for event in merged_backwards(reader)] == events[::-1]


async def test_a_merge_goes_on_where_the_positions_of_another_ended(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        events = [event async for event in merged(reader)]
        for cut in (0, 1, 57, len(events)):
            place = {event.shard: event.position for event in events[:cut]}
            assert [event async for event in merged(reader, after=place)] == events[cut:]


async def test_positions_at_a_time_split_the_log_exactly_there(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        events = [event async for event in merged(reader)]
        for event in (events[0], events[40], events[-1]):
            after = [found async for found in merged(reader, after=await positions_at(reader, event.time))]
            assert after == [found for found in events if found.time >= event.time]
        assert [found async for found in merged(reader, after=await positions_at(reader, events[-1].time + 1))] == []


async def test_last_gives_the_newest_matching_ones_oldest_first(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        wanted = parse_filter("actor:account/a type:account.*")
        everything = [event async for event in merged(reader, wanted)]
        assert await last(reader, wanted, 7) == everything[-7:]
        assert len(everything) == 66
        since = parse_filter("actor:account/a type:account.* after:0s", now_us=everything[-3].time)
        assert await last(reader, since, 50) == everything[-3:]
        assert [event async for event in merged(reader, since)] == everything[-3:]


async def test_a_state_of_the_past_is_the_fold_up_to_there(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        view = await state_at(reader, app.registry, A, 2)
        assert view.state == {"cents": 2 + 4, "transfers": 0}
        assert view.state_hash == canonical_hash(Account(cents=6))
        now = await state_at(reader, app.registry, A)
        assert (now.version, now.state["transfers"]) == (now.head, 1)
        assert (await state_at(reader, app.registry, A, 0)).state == {"cents": 0, "transfers": 0}


async def test_a_version_or_stream_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        for stream, version in ((A, 1_000), (StreamId("account/nobody"), None)):
            with pytest.raises(Unknown):
                await state_at(reader, app.registry, stream, version)
        with pytest.raises(BadPayload):
            await state_at(reader, app.registry, StreamId("no stream"))


async def test_without_code_there_is_no_state_and_the_view_says_so(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        for registry in (None, Registry([])):
            view = await state_at(reader, registry, A)
            assert view.state is None
            assert "events only" in str(view.note)
            assert (await diff(reader, registry, A, 1, 2)).patch is None
            assert (await verify_state(reader, registry, A)).note == view.note


async def test_a_diff_is_the_json_patch_from_one_state_to_the_other(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        found = await diff(reader, app.registry, A, 0, 66)
        assert found.patch is not None
        assert jsonpatch.apply_patch({"cents": 0, "transfers": 0}, found.patch) == (await state_at(reader, app.registry, A, 66)).state
        assert (await diff(reader, app.registry, A, 5, 5)).patch == []


async def test_an_event_is_found_by_place_id_and_beginning_of_its_id(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        events = [event async for event in merged(reader)]
        event = events[30]
        assert await find_event(reader, f"{event.shard}:{event.position}") == event
        assert await find_event(reader, event.event_id) == event
        assert await find_event(reader, event.event_id[:16]) == event
        with pytest.raises(BadPayload, match="several"):
            await find_event(reader, event.event_id[:4])
        for text, error in (("9:1", Unknown), ("0:99999", Unknown), ("f" * 20, Unknown), ("zz", BadPayload), ("", BadPayload)):
            with pytest.raises(error):
                await find_event(reader, text)


async def test_a_trace_links_a_tell_to_the_turn_that_sent_it(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        found = await causes.trace(reader, "move-1")
        ((_, sender), (_, receiver)) = causes.flat(found.roots)
        assert (sender.stream, sender.method, sender.status) == (A, "transfer", "done")
        assert (receiver.stream, receiver.method, receiver.parent) == (B, "deposit", (A, "move-1"))
        text = mermaid(sequence(found))
        assert text.splitlines()[0] == "sequenceDiagram"
        assert "p0->>p1: transfer" in text
        assert "p1-)p2: deposit" in text
        assert text.count("deposit") == 1


class AskerActor(Actor[State], name="asker"):
    @command
    async def check(self, id: str) -> int:
        await self.step("look", lambda: "a;b\nc")
        found: int = await self.ref(AccountActor, id).deposit(cents=5)
        return found


async def test_a_trace_draws_an_ask_with_its_reply_and_steps_as_notes(tmp_path: Path) -> None:
    both = App(actors=[AccountActor, AskerActor])
    async with local_runtime(both, tmp_path) as cue:
        await cue.ask("asker/1", "check", id="x", command_id="c-9")
    reader = await SqliteLogReader.open(tmp_path)
    try:
        text = mermaid(sequence(await causes.trace(reader, "c-9")))
    finally:
        await reader.close()
    arrows = [re.sub(r" [(]\d+ ms[)]", "", line.strip()) for line in text.splitlines() if ":" in line]
    assert arrows == ["p0->>p1: check", "Note over p1: step look", "p1->>p2: deposit", "p2-->>p1: reply", "p1-->>p0: reply"]


async def test_verify_meets_every_recorded_hash_and_the_live_state(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:

        async def live(stream: StreamId) -> LiveState:
            view = await state_at(reader, app.registry, stream)
            return LiveState(version=view.head, state_hash=str(view.state_hash))

        checks = [check async for check in verify_states(reader, app.registry, live)]
        assert [check.stream for check in checks] == [A, B]
        assert all(check.live and check.difference is None for check in checks)
        assert sum(check.events for check in checks) == len([event async for event in merged(reader)])


async def test_verify_compares_at_each_recorded_state_hash(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as cue:
        for _ in range(250):
            await cue.ask(A, "deposit", cents=1)
    reader = await SqliteLogReader.open(tmp_path)
    try:
        check = await verify_state(reader, app.registry, A)
        assert (check.hashes, check.events, check.difference) == (2, 250, None)
        assert (await verify_state(reader, app.registry, A, to=120)).hashes == 1
    finally:
        await reader.close()


class OtherAccount(State):
    cents: int = 0
    transfers: int = 0


class OtherDeposited(Event[OtherAccount], tag="account.deposited"):
    cents: int

    def apply(self, state: OtherAccount) -> None:
        state.cents += 2 * self.cents


class OtherWithdrawn(Event[OtherAccount], tag="account.withdrawn"):
    cents: int
    to: str | None = None

    def apply(self, state: OtherAccount) -> None:
        open(__file__).close()  # noqa: PTH123  what a careless author writes


class OtherActor(Actor[OtherAccount], name="account"):
    pass


async def test_verify_names_the_first_version_where_other_code_folds_to_another_state(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as cue:
        for _ in range(120):
            await cue.ask(A, "deposit", cents=1)
    reader = await SqliteLogReader.open(tmp_path)
    try:
        found = (await verify_state(reader, Registry([OtherActor]), A)).difference
        assert found is not None
        assert (found.stream, found.version, found.what) == (A, 100, "state_hash")
        assert found.expected == canonical_hash(Account(cents=100))
        assert found.found == canonical_hash(OtherAccount(cents=200))
    finally:
        await reader.close()


async def test_verify_finds_an_event_that_reaches_outside(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as cue:
        await cue.ask(A, "deposit", cents=5)
        await cue.ask(A, "withdraw", cents=5)
    reader = await SqliteLogReader.open(tmp_path)
    try:
        found = (await verify_state(reader, Registry([OtherActor]), A)).difference
        assert found is not None
        assert (found.version, found.what) == (2, "fold")
        assert "apply() caused open" in found.found
    finally:
        await reader.close()


@pytest.mark.parametrize(("version", "what"), [(66, "live"), (99, "live")])
async def test_verify_names_a_live_state_that_differs_or_is_ahead(tmp_path: Path, version: int, what: str) -> None:
    async with log_of(tmp_path) as reader:

        async def live(_: StreamId) -> LiveState:
            return LiveState(version=version, state_hash="other")

        found = (await verify_state(reader, app.registry, A, live)).difference
        assert found is not None
        assert (found.version, found.what) == (version, what)


async def test_streams_lists_all_by_name(tmp_path: Path) -> None:
    async with log_of(tmp_path) as reader:
        assert [info.stream async for info in streams(reader)] == [A, B]
