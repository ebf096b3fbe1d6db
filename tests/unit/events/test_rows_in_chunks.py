"""Many rows in few statements: the same rows, whatever their number, and the GIL given up only once for each statement."""

import sqlite3

import pytest

from events.sqlite.rows import insert_rows, update_rows
from events.sqlite.sqlite_library import SqliteConnection

COLUMNS = ("id", "name", "size", "body")


class Counting(sqlite3.Connection):
    """Counts the statements that write."""

    statements = 0

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        self.statements += sql.startswith(("INSERT", "UPDATE"))
        return super().execute(sql, *values)  # type: ignore[arg-type]


def table() -> Counting:
    connection = sqlite3.connect(":memory:", factory=Counting)
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL, size INTEGER, body BLOB) STRICT")
    return connection


@pytest.mark.parametrize("count", [0, 1, 3, 4, 63, 64, 65, 150, 1_000])
def test_all_rows_are_inserted_and_changed_in_order_nulls_included(count: int) -> None:
    connection = table()
    writer: SqliteConnection = connection
    rows = [(n, f"n{n}", None if n % 7 == 0 else n, bytearray(b"x")) for n in range(1, count + 1)]
    insert_rows(writer, "things", COLUMNS, rows)
    found = connection.execute("SELECT id, name, size, body FROM things ORDER BY id").fetchall()
    assert found == [(n, name, size, b"x") for n, name, size, _ in rows]
    connection.statements = 0
    update_rows(writer, "things", ("size", "body"), [(n, None if n % 2 else -n, bytearray(b"%d" % n)) for n, *_ in rows])
    found = connection.execute("SELECT id, name, size, body FROM things ORDER BY id").fetchall()
    assert found == [(n, f"n{n}", None if n % 2 else -n, b"%d" % n) for n in range(1, count + 1)]
    assert connection.statements <= count // 64 + 9


def test_an_update_leaves_other_rows_alone() -> None:
    connection = table()
    writer: SqliteConnection = connection
    insert_rows(writer, "things", COLUMNS, [(n, "a", n, None) for n in range(1, 9)])
    update_rows(writer, "things", ("name",), [(3, "b"), (99, "nobody"), (7, "c")])
    assert connection.execute("SELECT group_concat(name, '') FROM things").fetchall() == [("aabaaaca",)]


@pytest.mark.parametrize(("width", "shared"), [(1, True), (30, False)])
def test_rows_share_statements_where_their_nulls_cost_less(width: int, shared: bool) -> None:
    """width: how many columns only every second row fills."""
    columns = ("id", *(f"c{number}" for number in range(width)), "last")
    connection = sqlite3.connect(":memory:", factory=Counting)
    connection.execute(f"CREATE TABLE things ({', '.join(columns)})")
    rows = [(n, *([n] * width if n % 2 else [None] * width), n) for n in range(1, 101)]
    writer: SqliteConnection = connection
    insert_rows(writer, "things", columns, rows)
    assert connection.execute("SELECT * FROM things ORDER BY id").fetchall() == rows
    assert connection.statements == (64 // 64 + 36 // 16 + 4 // 4 if shared else 100)
