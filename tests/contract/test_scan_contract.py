"""`ScanReader.scan`: a whole shard for folding, the same facts as `read`, verified in the same way (I-20)."""

from typing import Any

import pytest

from events.envelope import GENESIS_HASH, Kind, NewEvent
from events.errors import CorruptLogError
from events.facts import FORKED, Fact
from events.ids import Version
from events.log_directory import shard_path
from events.sqlite import scan_sqlite
from events.sqlite.packed_sqlite import Packed, read_packed
from events.sqlite.scan_sqlite import FIRST_ROWS, SCAN_ROWS
from events.sqlite.sqlite_library import SqliteConnection
from events.store import Base, ScanReader
from tests.support.logs import (
    DAMAGED_ROWS,
    LogUnderTest,
    SqliteLogUnderTest,
    append_one,
    as_bytes,
    deposited,
    group,
    stream_in,
    without_guards,
)

SHARDS = 2
A, B = stream_in(0, SHARDS, "a"), stream_in(0, SHARDS, "b")
PLAIN = {"account.deposited:1"}


async def scanned(reader: ScanReader) -> list[Fact]:
    facts: list[Fact] = []
    await reader.scan(0, PLAIN, facts.extend)
    return facts


async def test_it_gives_the_state_events_of_the_shard_in_order_over_pages(log: LogUnderTest) -> None:
    store = await log.shard()
    reader = await log.reader()
    assert await scanned(reader) == []
    await store.append([group(A, version, deposited(version)) for version in range(SCAN_ROWS)])
    await append_one(store, B, 0, NewEvent(type="turn.started", kind=Kind.CONTROL, payload=b"{}"), deposited(7))
    await append_one(store, A, SCAN_ROWS, deposited(1, schema_version=2), deposited(2, key_id="k"))
    facts = await scanned(reader)
    expected: list[Fact] = [(n + 1, A, "account.deposited:1", b'{"cents":%d}' % n) for n in range(SCAN_ROWS)]
    expected.append((SCAN_ROWS + 2, B, "account.deposited:1", b'{"cents":7}'))
    expected.append((SCAN_ROWS + 3, A, "account.deposited:2", None))
    expected.append((SCAN_ROWS + 4, A, "account.deposited:1", None))
    assert facts == expected


@pytest.mark.parametrize("version", [0, 3])
async def test_s33_a_fork_and_all_that_follows_it_come_without_payload(log: LogUnderTest, version: int) -> None:
    """Also one at version 0, which continues from no hash: its state may have been edited all the same."""
    store = await log.shard()
    await append_one(store, A, 0, *(deposited(n) for n in range(3)))
    hash = bytes.fromhex((await (await log.reader()).read_stream(A, after=2))[0].hash) if version else GENESIS_HASH
    fork = NewEvent(type=FORKED, kind=Kind.CONTROL, payload=b"{}")
    base = Base(version=Version(version), hash=hash)
    await append_one(store, B, version, fork, deposited(7), base=base, parent=f"{A}@{version}", branch="b")
    await append_one(store, A, 3, NewEvent(type="turn.started", kind=Kind.CONTROL, payload=b"{}"), deposited(4), correlation_id=FORKED)
    assert (await scanned(await log.reader()))[3:] == [
        (4, B, "stream.forked:1", None), (5, B, "account.deposited:1", None), (7, A, "account.deposited:1", b'{"cents":4}'),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["\x00\x01\x1f\x7f", 'quotes " and \\', "tab\tline\n\r\b\f", "/slash", "é中\U0001f600", ""])
async def test_any_text_that_the_hash_covers_verifies(log: LogUnderTest, text: str) -> None:
    """SQLite writes some characters in another way than the hash has them; such a row is read in the ordinary way."""
    store = await log.shard()
    await append_one(store, A, 0, deposited(1), deposited(2), correlation_id=text, causation_id=text, sender=text)
    await append_one(store, A, 2, deposited(3))
    assert [fact[3] for fact in await scanned(await log.reader())] == [b'{"cents":%d}' % n for n in (1, 2, 3)]


@pytest.mark.parametrize("damage", DAMAGED_ROWS)
async def test_i20_a_damaged_row_is_named_and_never_folded(sqlite_log: SqliteLogUnderTest, damage: str) -> None:
    store = await sqlite_log.shard()
    for version in range(3):
        await append_one(store, A, version, deposited(version))
    await store.close()
    without_guards(shard_path(sqlite_log.directory, 0), damage)
    with pytest.raises(CorruptLogError) as found:
        await scanned(await sqlite_log.reader())
    assert found.value.fields["position"] == 2


async def test_i20_a_text_that_became_bytes_is_named(sqlite_log: SqliteLogUnderTest) -> None:
    """One bit of a row's header makes that of it. SQLite's JSON refuses it, but does not say where it stands."""
    store = await sqlite_log.shard()
    for version in range(3):
        await append_one(store, A, version, deposited(version))
    await store.close()
    as_bytes(shard_path(sqlite_log.directory, 0), "type", 2)
    with pytest.raises(CorruptLogError) as found:
        await scanned(await sqlite_log.reader())
    assert found.value.fields["position"] == 2


async def test_i20_of_two_damaged_rows_the_first_is_named_although_the_next_page_is_fetched_already(sqlite_log: SqliteLogUnderTest) -> None:
    """What comes before a damaged page is given."""
    store = await sqlite_log.shard()
    await store.append([group(A, version, deposited(version)) for version in range(FIRST_ROWS + 20)])
    await store.close()
    path = shard_path(sqlite_log.directory, 0)
    as_bytes(path, "type", FIRST_ROWS + 10)
    given: list[Fact] = []
    reader = await sqlite_log.reader()
    with pytest.raises(CorruptLogError) as found:
        await reader.scan(0, PLAIN, given.extend)
    assert found.value.fields["position"] == FIRST_ROWS + 10
    assert [position for position, *_ in given] == list(range(1, FIRST_ROWS + 1))
    without_guards(path, """UPDATE events SET payload = '{"cents":9}' WHERE position = 3""")
    with pytest.raises(CorruptLogError) as found:
        await scanned(await sqlite_log.reader())
    assert found.value.fields["position"] == 3


async def test_a_page_that_sqlite_cannot_put_together_is_read_row_by_row(
    sqlite_log: SqliteLogUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of many large payloads."""
    store = await sqlite_log.shard()
    await store.append([group(A, version, deposited(version)) for version in range(900)])
    whole = await scanned(await sqlite_log.reader())
    pages: list[object] = []

    def too_big(connection: SqliteConnection, statement: str, values: Any) -> Packed | None:
        pages.append(values)
        if len(pages) % 2:
            connection.execute("SELECT length(zeroblob(2000000000) || 'x')").fetchall()
        return read_packed(connection, statement, values)

    monkeypatch.setattr(scan_sqlite, "read_packed", too_big)
    assert await scanned(await sqlite_log.reader()) == whole
    assert [position for position, *_ in whole] == list(range(1, 901))
    assert len(pages) >= 3
