"""`verify` names whatever was changed in a log, and never gives up on what it finds there (S27, I-20)."""

import asyncio
import shutil
from pathlib import Path

import pytest

from events.ids import CommandId
from events.keeping.verify import verify
from events.limits import STREAM_PAGE_VERSIONS
from events.log_directory import shard_path
from events.sqlite.sqlite_library import library as sqlite
from events.store import Damage, OutboxEntry
from tests.support.logs import SqliteLogUnderTest, append_one, command, deposited, group, stream_in, timer, wait, without_guards

SHARDS = 2
A = stream_in(0, SHARDS, "a")
B = stream_in(0, SHARDS, "b")
LONG = stream_in(0, SHARDS, "long")
REMOTE = stream_in(1, SHARDS, "r")

EVENT_COLUMNS = [
    "stream_id", "prev_position", "time", "version", "event_id", "type", "schema_version", "recorded_at_us", "command_id", "causation_id",
    "correlation_id", "traceparent", "sender", "branch", "parent", "kind", "owner_epoch", "code_version", "duration_us", "summary", "error",
    "salt", "key_id", "state_hash", "hash", "row_check", "payload_digest", "payload",
]  # fmt: skip


class Log:
    """A closed log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with one of everything."""
    directory = tmp_path_factory.mktemp("verify") / "log"
    asyncio.run(fill(SqliteLogUnderTest(SHARDS, directory)))
    return directory


@pytest.fixture
def log(original: Path, tmp_path: Path) -> Log:
    """A copy to damage."""
    return Log(shutil.copytree(original, tmp_path / "log"))


async def fill(opened: SqliteLogUnderTest) -> None:
    store = await opened.shard()
    sends = [OutboxEntry(receiver=REMOTE, method="m", args=b"{}", command_id=CommandId("s"))]
    inbox = command(A, "c1", reply=b"500")
    await append_one(store, A, 0, deposited(1), inbox=inbox, outbox=sends, timers=[timer(A, "t")], waits=[wait(A, "w")], command_id="c1")
    await store.append([group(B, version, deposited(1_000 + version)) for version in range(5)])
    await append_one(store, A, 1, deposited(2), deposited(3))
    await append_one(store, LONG, 0, *(deposited(2_000 + n) for n in range(STREAM_PAGE_VERSIONS + 3)))
    other = await opened.shard(1)
    await append_one(other, REMOTE, 0, deposited(4))
    await opened.close()


def damaged(log: Log, *statements: str) -> list[Damage]:
    without_guards(shard_path(log.directory, 0), *statements)
    return verify(log.directory)


def test_a_sound_log_has_no_findings(log: Log) -> None:
    seen: list[tuple[int, int, int]] = []
    assert verify(log.directory, lambda *progress: seen.append(progress)) == []
    end = 8 + STREAM_PAGE_VERSIONS + 3
    assert (0, end, end) in seen
    assert (1, 1, 1) in seen


@pytest.mark.parametrize("column", EVENT_COLUMNS)
def test_a_change_of_any_column_of_an_event_is_named_with_its_place(log: Log, column: str) -> None:
    """Whichever column it is, a hash, a check or the chain covers it."""
    change = {"salt": "x'00'", "hash": "zeroblob(32)", "payload_digest": "zeroblob(32)", "payload": "'{}'"}.get(column)
    if change is None:
        number = column in (
            "stream_id",
            "prev_position",
            "time",
            "version",
            "schema_version",
            "recorded_at_us",
            "owner_epoch",
            "duration_us",
            "row_check",
        )
        change = f"coalesce({column}, 0) + 1" if number else f"coalesce({column}, '') || 'x'"
    findings = damaged(log, f"UPDATE events SET {column} = {change} WHERE position = 7")
    assert any((found.table, found.shard, found.position) == ("events", 0, 7) for found in findings), findings
    place = next(found for found in findings if found.position == 7)
    if column not in ("stream_id", "version"):
        assert (place.stream, place.version) == (A, 2)
    assert all(found.shard == 0 for found in findings)


def test_one_flipped_bit_of_a_payload_in_the_file_is_named(log: Log) -> None:
    """F-20: SQLite's own integrity check says ok to this."""
    path = shard_path(log.directory, 0)
    content = bytearray(path.read_bytes())
    # All copies: SQLite leaves old ones in the unused parts of pages.
    assert b'{"cents":2}' in content
    path.write_bytes(content.replace(b'{"cents":2}', b'{"cents":3}'))
    findings = verify(log.directory)
    assert [(found.position, found.stream, found.version) for found in findings] == [(7, A, 2)]


GARBAGE = ["x'fffe00'", "'text'", "1e300", "NULL", "-9223372036854775808", "CAST(x'ff80' AS TEXT)", "''"]


@pytest.mark.parametrize(
    "table", ["events", "inbox", "outbox", "timers", "waits", "streams", "heads", "stream_pages", "sent_heads", "snapshots"]
)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_verify_survives_garbage_in_every_column(log: Log, table: str, garbage: str) -> None:
    """STRICT tables keep it out when written by SQLite; damage does not ask. The schema is changed to let it in."""
    path = shard_path(log.directory, 0)
    connection = sqlite.connect(path, isolation_level=None)
    connection.execute("UPDATE switches SET is_open = 1")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = "
        "replace(replace(replace(sql, ') STRICT', ')'), ', WITHOUT ROWID', ' WITHOUT ROWID'), ' NOT NULL', '')"
    )
    connection.execute("PRAGMA writable_schema=RESET")
    connection.close()
    connection = sqlite.connect(path, isolation_level=None)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall() if row[5] == 0]
    connection.execute(f"CREATE TABLE sound AS SELECT * FROM {table}")
    for column in columns:
        try:
            changed = connection.execute(f"UPDATE {table} SET {column} = {garbage} WHERE {column} IS NOT {garbage}").rowcount
        except sqlite.IntegrityError:
            continue
        connection.execute("UPDATE switches SET is_open = 0")
        findings = verify(log.directory)
        assert findings or not changed or table == "snapshots", column
        connection.execute("UPDATE switches SET is_open = 1")
        connection.execute(f"DELETE FROM {table}")
        connection.execute(f"INSERT INTO {table} SELECT * FROM sound")
    connection.execute("UPDATE switches SET is_open = 0")
    assert verify(log.directory) == []
    connection.close()


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE inbox SET reply = x'39'", "inbox"),
        ("UPDATE inbox SET status = 'failed'", "inbox"),
        ("UPDATE inbox SET completed_at_us = 1", "inbox"),
        ("UPDATE outbox SET args = x'39'", "outbox"),
        ("UPDATE outbox SET n = 7", "outbox"),
        ("UPDATE timers SET due_us = 99", "timers"),
        ("UPDATE waits SET name = 'other'", "waits"),
        ("UPDATE sent_heads SET n = 9", "sent_heads"),
        ("UPDATE streams SET name = 'actor/other', key = 'other' WHERE id = 1", "events"),
        ("UPDATE streams SET head_position = 1 WHERE id = 1", "streams"),
        ("UPDATE streams SET head_version = 9 WHERE id = 1", "streams"),
        ("DELETE FROM stream_pages", "stream_pages"),
        ("UPDATE stream_pages SET position = 3", "stream_pages"),
        ("INSERT INTO stream_pages VALUES (1, 512, 5)", "stream_pages"),
        ("UPDATE heads SET rolling_hash = zeroblob(32)", "heads"),
        ("DELETE FROM events WHERE position = 7", "events"),
        ("DELETE FROM events WHERE position = 6", "streams"),
    ],
)
def test_every_other_damage_is_found_in_its_table(log: Log, statement: str, table: str) -> None:
    findings = damaged(log, statement)
    assert table in {found.table for found in findings}, findings


def test_an_open_guard_is_reported(log: Log) -> None:
    connection = sqlite.connect(shard_path(log.directory, 0), isolation_level=None)
    connection.execute("UPDATE switches SET is_open = 1")
    connection.close()
    assert [found.table for found in verify(log.directory)] == ["switches"]


def test_a_page_that_cannot_be_read_is_named_and_the_rest_is_still_checked(log: Log) -> None:
    path = shard_path(log.directory, 0)
    content = bytearray(path.read_bytes())
    at = content.rindex(b'{"cents":2100}') // 4096 * 4096
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    findings = verify(log.directory)
    assert any(str(path) in found.message for found in findings)
    assert any(found.table == "events" and found.position for found in findings)


def test_a_file_that_is_no_database_is_named(log: Log) -> None:
    path = shard_path(log.directory, 0)
    path.write_bytes(b"no database at all" * 1_000)
    findings = verify(log.directory)
    assert [found.shard for found in findings] == [0]
    assert "shard-0.db" in findings[0].message
