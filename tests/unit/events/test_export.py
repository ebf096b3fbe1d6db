"""`export` and `import`: the same log comes back, byte for byte, and what is not as it was written is refused by its line (S6, I-20)."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.envelope import ENVELOPE_FIELDS, Kind, NewEvent
from events.errors import ConfigurationError, CorruptLogError, UnknownStreamError
from events.ids import CommandId, StreamId, parse_stream_id, shard_of
from events.keeping.export import export
from events.keeping.export_import import import_log
from events.keeping.verify import verify
from events.limits import STREAM_PAGE_VERSIONS
from events.log_directory import read_identity, shard_path
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed, Duplicate, InboxStatus, OutboxEntry
from tests.support.logs import (
    SeededEntropy,
    SqliteLogUnderTest,
    append_one,
    arrival,
    command,
    deposited,
    group,
    stream_in,
    timer,
    wait,
    without_guards,
)

SHARDS = 2
A = stream_in(0, SHARDS, "a")
LONG = stream_in(0, SHARDS, "long")
REMOTE = stream_in(1, SHARDS, "r")


async def fill(log: SqliteLogUnderTest) -> None:
    """One of everything."""
    store = await log.shard()
    sends = [
        OutboxEntry(receiver=REMOTE, method="m", args=b"{}", command_id=CommandId("s1")),
        OutboxEntry(receiver=LONG, method="m", args=b'{"a": 1}', command_id=CommandId("s2")),
    ]
    done = command(A, "c1", reply=b"null")
    await append_one(store, A, 0, deposited(1), inbox=done, outbox=sends, timers=[timer(A, "t")], waits=[wait(A, "w")], command_id="c1")
    strange = NewEvent(type="account.noted", payload=b'{"note":\n "two lines"}', summary="s", error="E", duration_us=3, kind=Kind.STEP)
    await append_one(store, A, 1, strange, inbox=command(A, "c2", InboxStatus.RUNNING, args=b'{"x":\r\n1}'), command_id="c2")
    await append_one(store, LONG, 0, *(deposited(2_000 + n) for n in range(STREAM_PAGE_VERSIONS + 3)))
    log.clock.advance(1)
    other = await log.shard(1)
    await append_one(other, REMOTE, 0, deposited(4))
    await other.accept([arrival(REMOTE, "s1", sender=A, n=1, incarnation=read_identity(log.directory).incarnation)])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "log"

    async def make() -> None:
        log = SqliteLogUnderTest(SHARDS, directory)
        await fill(log)
        await log.close()

    asyncio.run(make())
    return directory


@pytest.fixture(scope="module")
def exported(original: Path) -> Path:
    file = original.parent / "log.jsonl"
    export(original, file)
    return file


async def chains(directory: Path) -> dict[str, list[tuple[int, str]]]:
    """Version and hash of every event, by stream."""
    reader = await SqliteLogReader.open(directory)
    found = {info.stream: await reader.read_stream(info.stream) for info in await reader.streams()}
    await reader.close()
    return {stream: [(event.version, event.hash) for event in events] for stream, events in found.items()}


def test_a_line_is_an_event_in_the_one_record_shape_or_says_what_it_is(exported: Path) -> None:
    rows = [json.loads(line) for line in exported.read_bytes().splitlines()]
    events = [row for row in rows if "record" not in row]
    assert len(events) == STREAM_PAGE_VERSIONS + 6
    assert {tuple(row) for row in events} == {ENVELOPE_FIELDS}
    assert [row["time"] for row in events] == sorted(row["time"] for row in events)
    kinds = {row["record"] for row in rows if "record" in row}
    assert kinds == {"header", "exact", "inbox", "sent", "received", "outbox", "timer", "wait", "checks", "end"}
    assert (rows[0]["record"], rows[-1]["record"], rows[-1]["events"]) == ("header", "end", len(events))


def test_export_import_export_is_identical(original: Path, exported: Path, tmp_path: Path) -> None:
    made = import_log(exported, tmp_path / "log")
    assert (made.shards, made.incarnation) == (SHARDS, read_identity(original).incarnation)
    export(tmp_path / "log", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == exported.read_bytes()
    assert verify(tmp_path / "log") == []


@pytest.mark.parametrize("shards", [1, 3, 7])
async def test_another_number_of_shards_keeps_versions_and_hashes(original: Path, exported: Path, tmp_path: Path, shards: int) -> None:
    made = import_log(exported, tmp_path / "log", shards)
    assert made.shards == read_identity(tmp_path / "log").shards == shards
    assert made.incarnation != read_identity(original).incarnation
    assert await chains(tmp_path / "log") == await chains(original)
    assert verify(tmp_path / "log") == []


@pytest.mark.parametrize("shards", [SHARDS, 3])
async def test_a_remembered_command_still_answers_and_work_goes_on(exported: Path, tmp_path: Path, shards: int) -> None:
    import_log(exported, tmp_path / "log", shards)
    store = await SqliteShard.open(tmp_path / "log", shard_of(*parse_stream_id(A), shards))
    await store.take("w")
    again = await append_one(store, A, 2, deposited(9), inbox=command(A, "c1"), command_id="c1")
    assert isinstance(again, Duplicate)
    assert again.entry.reply == b"null"
    assert ("c2", b'{"x":1}') in [(entry.command_id, entry.args) for entry in await store.unfinished()]
    assert [each.timer_id for each in await store.timers()] == ["t"]
    assert [each.wait_id for each in await store.waits()] == ["w"]
    assert [(each.n, each.entry.receiver) for each in await store.unsent()] == [(1, REMOTE)]
    assert isinstance(await append_one(store, A, 2, deposited(9)), Committed)
    await store.close()
    assert verify(tmp_path / "log") == []


def test_some_streams_alone(original: Path, tmp_path: Path) -> None:
    done = export(original, tmp_path / "some.jsonl", [A])
    assert (done.streams, done.events) == (1, 2)
    import_log(tmp_path / "some.jsonl", tmp_path / "log")
    assert list(asyncio.run(chains(tmp_path / "log"))) == [A]
    export(tmp_path / "log", tmp_path / "again.jsonl", [A])
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "some.jsonl").read_bytes()
    with pytest.raises(UnknownStreamError):
        export(original, tmp_path / "none.jsonl", [StreamId("actor/none")])
    assert not (tmp_path / "none.jsonl").exists()


def test_a_damaged_line_is_refused_with_its_number(exported: Path, tmp_path: Path) -> None:
    """One byte of each line in turn, the last one of a value that a hash does not cover among them."""
    lines = exported.read_bytes().splitlines(keepends=True)
    numbers = [*range(1, 8), *range(len(lines) - 12, len(lines) + 1)]
    for number in numbers:
        line = bytearray(lines[number - 1])
        place = len(line) * 2 // 3
        line[place] ^= 1
        damaged = tmp_path / f"{number}.jsonl"
        damaged.write_bytes(b"".join([*lines[: number - 1], bytes(line), *lines[number:]]))
        with pytest.raises((CorruptLogError, ConfigurationError)) as caught:
            import_log(damaged, tmp_path / "log")
        if number > 1 and b'"record":"checks"' not in lines[number - 1]:
            # An `exact` line is about the next one, so either may be named.
            named = (number, number + 1) if b'"record":"exact"' in lines[number - 1] else (number,)
            assert caught.value.fields["line"] in named, caught.value.message
        assert not (tmp_path / "log").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_changed_summary_is_named_although_no_hash_covers_it(exported: Path, tmp_path: Path) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines, 1) if b'"summary":"s"' in line)
    lines[number - 1] = lines[number - 1].replace(b'"summary":"s"', b'"summary":"t"')
    (tmp_path / "x.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(CorruptLogError, match=f"line {number} of .*checksum"):
        import_log(tmp_path / "x.jsonl", tmp_path / "log")


@pytest.mark.parametrize("take", ["last line", "half a line", "a line in the middle", "everything", "one line more"])
def test_a_file_that_is_not_whole_is_refused(exported: Path, tmp_path: Path, take: str) -> None:
    body = exported.read_bytes()
    lines = body.splitlines(keepends=True)
    broken = {
        "last line": b"".join(lines[:-1]),
        "half a line": body[: len(body) // 2],
        "a line in the middle": b"".join(lines[:100] + lines[101:]),
        "everything": b"",
        "one line more": body + lines[-1],
    }
    (tmp_path / "x.jsonl").write_bytes(broken[take])
    with pytest.raises((CorruptLogError, ConfigurationError)):
        import_log(tmp_path / "x.jsonl", tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_a_damaged_log_is_not_exported(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "log")
    without_guards(shard_path(tmp_path / "log", 0), "UPDATE events SET payload = '{\"cents\":2}' WHERE position = 1")
    with pytest.raises(CorruptLogError, match="event 0:1"):
        export(tmp_path / "log", tmp_path / "x.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


def test_nothing_that_is_there_is_overwritten(exported: Path, original: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="exists"):
        export(original, exported)
    with pytest.raises(ConfigurationError, match="not empty"):
        import_log(exported, original)
    with pytest.raises(ConfigurationError, match="No such file"):
        import_log(tmp_path / "none", tmp_path / "log")
    with pytest.raises(ConfigurationError, match="shards"):
        import_log(exported, tmp_path / "log", 0)


async def test_s6_s30_equal_logical_times_of_two_shards_stand_side_by_side_in_one(tmp_path: Path) -> None:
    """Two shards may give one time twice (S30: the shard decides then), and the time stands in the hash, so it stays."""
    log = SqliteLogUnderTest(SHARDS, tmp_path / "log")
    for shard, stream in ((0, A), (1, REMOTE), (0, LONG)):
        await append_one(await log.shard(shard), stream, 0, deposited())
    for shard, stream in ((1, REMOTE), (0, A)):
        await append_one(await log.shard(shard), stream, 1, deposited())
    await log.close()
    before = await chains(log.directory)
    export(log.directory, tmp_path / "x.jsonl")
    for n, (shards, file) in enumerate(((1, "x"), (3, "0"), (1, "1"))):
        import_log(tmp_path / f"{file}.jsonl", tmp_path / f"log-{n}", shards)
        assert verify(tmp_path / f"log-{n}") == []
        assert await chains(tmp_path / f"log-{n}") == before
        export(tmp_path / f"log-{n}", tmp_path / f"{n}.jsonl")
        import_log(tmp_path / f"{n}.jsonl", tmp_path / f"same-{n}")
        export(tmp_path / f"same-{n}", tmp_path / f"same-{n}.jsonl")
        assert (tmp_path / f"same-{n}.jsonl").read_bytes() == (tmp_path / f"{n}.jsonl").read_bytes()
    reader = await SqliteLogReader.open(tmp_path / "log-0")
    events = await reader.read(0)
    assert len({event.time for event in events}) < len(events) == 5
    assert [await reader.event(event.event_id) for event in events] == events
    await reader.close()
    store = await SqliteShard.open(tmp_path / "log-0", 0, clock=log.clock)
    await store.take("w")
    last = await append_one(store, A, 2, deposited())
    assert isinstance(last, Committed)
    assert last.events[0].time > max(event.time for event in events)
    await store.close()


async def test_a_time_that_does_not_grow_in_its_stream_is_named(tmp_path: Path) -> None:
    """Equal times are let through between streams only."""
    log = SqliteLogUnderTest(1, tmp_path / "log")
    await append_one(await log.shard(), A, 0, deposited(), deposited())
    await log.close()
    without_guards(shard_path(log.directory, 0), "UPDATE events SET time = (SELECT time FROM events WHERE position = 1) WHERE position = 2")
    assert any("logical time" in damage.message for damage in verify(log.directory))


NAMES = st.sampled_from([StreamId(f"actor/{name}") for name in "abcdefgh"])
PAYLOADS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=8) | st.none(), max_size=3).map(
    lambda value: json.dumps(value, ensure_ascii=False, indent=(None, 1)[len(value) % 2]).encode("utf-8", "replace")
)
TEXT = st.none() | st.text(st.characters(codec="utf-8"), max_size=12)
EVENTS = st.builds(
    NewEvent, type=st.sampled_from(["x.done", "y.done"]), schema_version=st.integers(1, 3), payload=PAYLOADS, summary=TEXT, error=TEXT,
    duration_us=st.none() | st.integers(0, 2**40), kind=st.sampled_from(list(Kind)), state_hash=TEXT,
)  # fmt: skip
TURNS = st.lists(st.tuples(NAMES, st.lists(EVENTS, max_size=3), st.booleans(), st.booleans(), TEXT), max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(turns=TURNS, shards=st.integers(1, 3), others=st.integers(1, 4))
def test_any_log_comes_back_the_same(tmp_path_factory: pytest.TempPathFactory, turns: list, shards: int, others: int) -> None:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("any")

    async def make() -> None:
        log = SqliteLogUnderTest(shards, folder / "log")
        stores = [await log.shard(shard) for shard in range(shards)]
        versions: dict[str, int] = {}
        for n, (stream, events, sends, asked, text) in enumerate(turns):
            log.clock.advance(n % 2)
            version = versions.get(stream, 0)
            outbox = [OutboxEntry(receiver=StreamId("actor/b"), method="m", args=b'{"k": "v"}', command_id=CommandId(f"s{n}"))] * sends
            inbox = command(stream, f"c{n}", reply=json.dumps(text).encode(), causation_id=text) if asked else None
            store = stores[shard_of(*parse_stream_id(stream), shards)]
            done = await store.append([group(stream, version, *events, inbox=inbox, outbox=outbox, correlation_id=text, code_version=text)])
            assert isinstance(done[0], Committed), done
            versions[stream] = done[0].version
        await log.close()

    asyncio.run(make())
    export(folder / "log", folder / "1.jsonl")
    import_log(folder / "1.jsonl", folder / "same", entropy=SeededEntropy(1))
    export(folder / "same", folder / "2.jsonl")
    assert (folder / "1.jsonl").read_bytes() == (folder / "2.jsonl").read_bytes()
    import_log(folder / "1.jsonl", folder / "other", others)
    assert asyncio.run(chains(folder / "other")) == asyncio.run(chains(folder / "log"))
