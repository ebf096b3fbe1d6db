"""The event rows of one transaction on their way into the file.

Nearly all of them fill the same columns, and some of these hold the same for all of them. So such rows are kept as one flat list of values
for an INSERT of many rows whose common values are bound once: half the price of `rows.insert_rows`, which takes any row (measured with this
table, 100 rows per commit: 2.4 us a row against 1.3).
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final

from events.memo import memo
from events.sqlite.rows import CHUNKS, EVENT_COLUMNS, Row, insert_rows
from events.sqlite.sqlite_library import SqliteConnection

_SHARED: Final = ("recorded_at_us", "owner_epoch", "branch", "code_version")
_OWN: Final = (
    "position", "stream_id", "prev_position", "time", "version", "event_id", "type", "schema_version", "command_id", "correlation_id",
    "kind", "salt", "hash", "row_check", "payload",
)  # fmt: skip
PLAIN_EXTRAS: Final = (None,) * 9
"""What a plain event has as causation, traceparent, sender, parent, duration, summary, error, key and state hash."""
_EXTRA: Final = tuple(column for column in EVENT_COLUMNS if column not in _OWN + _SHARED)
_COLUMNS: Final = _OWN + _SHARED + _EXTRA
_in_order: Final = itemgetter(*map(EVENT_COLUMNS.index, _COLUMNS))
_RUNS_MAX: Final = 4
"""More than these, and all rows go in together."""


class EventRows:
    """In the order of their positions. False if there are none."""

    def __init__(self) -> None:
        self._runs: list[tuple[Row | None, list[Any]]] = []
        self._shared: Row | None = None
        self._values: list[Any] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def plain(self, shared: Row) -> list[Any]:
        """Where the values of `_OWN` of a plain event are to be added. shared: those of `_SHARED`."""
        if shared != self._shared:
            self._shared, self._values = shared, []
            self._runs.append((shared, self._values))
        return self._values

    def append(self, row: Row) -> None:
        """Any event: the values of `EVENT_COLUMNS`."""
        if self._shared is not None or not self._runs:
            self._shared, self._values = None, []
            self._runs.append((None, self._values))
        self._values.append(row)

    def write(self, connection: SqliteConnection) -> None:
        """Insert them, inside the caller's transaction."""
        if len(self._runs) > _RUNS_MAX:
            insert_rows(connection, "events", _COLUMNS, self._whole())
            return
        for shared, values in self._runs:
            if shared is None:
                insert_rows(connection, "events", EVENT_COLUMNS, values)
            else:
                _insert_plain(connection, shared, values)

    def _whole(self) -> Iterator[Row]:
        """Every row with the values of `_COLUMNS`."""
        width, extra = len(_OWN), (None,) * len(_EXTRA)
        for shared, values in self._runs:
            if shared is None:
                yield from map(_in_order, values)
            else:
                for at in range(0, len(values), width):
                    yield (*values[at : at + width], *shared, *extra)


def _insert_plain(connection: SqliteConnection, shared: Row, values: list[Any]) -> None:
    done, width = 0, len(_OWN)
    for rows in CHUNKS:
        step = rows * width
        while len(values) - done >= step:
            connection.execute(_plain_sql(rows), [*shared, *values[done : done + step]])
            done += step


@memo("statements of events", len(CHUNKS))
def _plain_sql(rows: int) -> str:
    """The INSERT of so many rows: the shared values first, then those of each row."""
    shared = [f"?{number}" for number in range(1, len(_SHARED) + 1)]
    first = len(_SHARED) + 1
    lines = [", ".join([*shared, *(f"?{first + row * len(_OWN) + column}" for column in range(len(_OWN)))]) for row in range(rows)]
    return f"INSERT INTO events ({', '.join(_SHARED + _OWN)}) VALUES ({'), ('.join(lines)})"
