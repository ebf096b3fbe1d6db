"""The usual event rows go in by another INSERT than the rest: whatever way a row takes, the table holds the same."""

import sqlite3
from typing import Any

import pytest

from events.sqlite.event_rows_sqlite import EventRows
from events.sqlite.rows import EVENT_COLUMNS, insert_rows
from events.sqlite.schema import MIGRATIONS
from events.sqlite.sqlite_library import SqliteConnection


class Counting(sqlite3.Connection):
    """Counts the statements that write."""

    statements = 0

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        self.statements += sql.startswith("INSERT INTO events")
        return super().execute(sql, *values)  # type: ignore[arg-type]


def table() -> Counting:
    connection = sqlite3.connect(":memory:", factory=Counting)
    connection.execute(next(sql for sql in MIGRATIONS[0][1] if sql.startswith("CREATE TABLE events ")))
    return connection


def row(position: int, **columns: Any) -> tuple[Any, ...]:
    """The values of `EVENT_COLUMNS` of a plain event, but for `columns`."""
    plain: dict[str, Any] = {
        "position": position, "stream_id": position % 7, "prev_position": max(0, position - 7), "time": 1_000 + position,
        "version": position, "event_id": f"{position:024x}", "type": "account.deposited", "schema_version": 1, "recorded_at_us": 1_000,
        "command_id": f"c{position}", "correlation_id": f"c{position}", "branch": "main", "kind": "state", "owner_epoch": 3,
        "code_version": "1.0", "salt": bytearray(b"s%15d" % position), "hash": bytearray(b"h%31d" % position), "row_check": position,
        "payload": f'{{"n":{position}}}',
    }  # fmt: skip
    return tuple((plain | columns).get(name) for name in EVENT_COLUMNS)


def add(rows: EventRows, values: tuple[Any, ...]) -> None:
    """As the draft of an append does."""
    of = dict(zip(EVENT_COLUMNS, values, strict=True))
    if any(of[name] is not None for name in ("causation_id", "sender", "traceparent", "duration_us", "error", "state_hash")):
        rows.append(values)
        return
    own = (
        of["position"], of["stream_id"], of["prev_position"], of["time"], of["version"], of["event_id"], of["type"], of["schema_version"],
        of["kind"], of["salt"], of["hash"], of["row_check"], of["payload"],
    )  # fmt: skip
    shared = (of["recorded_at_us"], of["owner_epoch"], of["branch"], of["code_version"])
    rows.plain(shared, own, of["command_id"], of["correlation_id"], of["summary"])


@pytest.mark.parametrize("count", [0, 1, 4, 63, 65, 150, 1_000])
def test_plain_rows_are_inserted_as_any_others(count: int) -> None:
    expected = [row(position) for position in range(1, count + 1)]
    rows = EventRows()
    for values in expected:
        add(rows, values)
    assert bool(rows) == (count > 0)
    connection = table()
    writer: SqliteConnection = connection
    rows.write(writer)
    assert connection.statements <= count // 64 + 9
    assert stored(connection) == stored(inserted(expected))


def test_rows_of_all_kinds_are_inserted_in_order() -> None:
    """Whoever asks, what has a trace, another branch, a step's duration, no command at all: each of them between plain ones."""
    odd: list[dict[str, Any]] = [
        {"sender": "account/1", "causation_id": "c0"}, {"traceparent": "00-1-1-01"}, {"state_hash": "ab"},
        {"error": "no", "duration_us": 5}, {"branch": "fork"}, {"code_version": None}, {"command_id": None, "correlation_id": None},
        {"kind": "control", "type": "turn.started"}, {"summary": "said"}, {"summary": "said", "command_id": None, "correlation_id": None},
    ]  # fmt: skip
    expected = [row(position, **(odd[position // 3 % len(odd)] if position % 3 else {})) for position in range(1, 200)]
    rows = EventRows()
    for values in expected:
        add(rows, values)
    connection = table()
    order: list[int] = []
    connection.create_function("seen", 1, order.append)
    connection.execute("CREATE TRIGGER note AFTER INSERT ON events BEGIN SELECT seen(NEW.position); END")
    writer: SqliteConnection = connection
    rows.write(writer)
    assert stored(connection) == stored(inserted(expected))
    assert order == sorted(order)


def inserted(rows: list[tuple[Any, ...]]) -> Counting:
    connection = table()
    writer: SqliteConnection = connection
    insert_rows(writer, "events", EVENT_COLUMNS, rows)
    return connection


def stored(connection: Counting) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT {', '.join(EVENT_COLUMNS)} FROM events ORDER BY position").fetchall()


@pytest.mark.parametrize(
    "others",
    [
        {"duration_us": 7},
        # As a graph's checkpoints, which have a summary, and its writes, which have none.
        {"command_id": None, "correlation_id": None, "summary": "loop 3: answer"},
        {"summary": "said"},
    ],
)
@pytest.mark.parametrize("count", [5, 64, 150, 1_000])
def test_rows_that_alternate_share_their_statements(count: int, others: dict[str, Any]) -> None:
    """A statement each gave up the GIL each (2026-11)."""
    expected = [row(position, **(others if position % 2 else {})) for position in range(1, count + 1)]
    rows = EventRows()
    for values in expected:
        add(rows, values)
    connection = table()
    writer: SqliteConnection = connection
    rows.write(writer)
    assert connection.statements <= count // 64 + 9
    assert stored(connection) == stored(inserted(expected))
