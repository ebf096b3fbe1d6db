"""The event rows of one transaction on their way into the file.

Nearly all of them fill the same columns, and some of these hold the same for all of them. So such rows are kept as one flat list of values
for an INSERT of many rows whose common values are bound once: half the price of `rows.insert_rows`, which takes any row (measured with this
table, 100 rows per commit: 2.4 us a row against 1.3).
"""

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import msgspec

from events.memo import memo
from events.sqlite.rows import CHUNKS, EVENT_COLUMNS, Row, insert_rows
from events.sqlite.sqlite_library import SqliteConnection

_SHARED: Final = ("recorded_at_us", "owner_epoch", "branch", "code_version")
_OWN: Final = (
    "position", "stream_id", "prev_position", "time", "version", "event_id", "type", "schema_version", "kind", "salt", "hash", "row_check",
    "payload",
)  # fmt: skip
_ASKED: Final = ("command_id", "correlation_id")
_TOLD: Final = ("summary",)
PLAIN_EXTRAS: Final = (None,) * 8
"""What a plain event has as causation, traceparent, sender, parent, duration, error, key and state hash."""
_EXTRA: Final = tuple(column for column in EVENT_COLUMNS if column not in _OWN + _ASKED + _TOLD + _SHARED)
_COLUMNS: Final = _OWN + _ASKED + _TOLD + _SHARED + _EXTRA
_in_order: Final = itemgetter(*map(EVENT_COLUMNS.index, _COLUMNS))
_RUNS_MAX: Final = 4
"""More than these, and all rows go in together."""


class _Run(msgspec.Struct):
    """Rows one behind the other that one kind of INSERT takes. values: of plain rows their values in a flat list, else the rows. shared: of
    plain rows the values of `_SHARED`, else None. asked, told: these columns are among theirs; where they are not, they are null in all."""

    shared: Row | None
    asked: bool = True
    told: bool = True
    values: list[Any] = []

    def columns(self) -> tuple[str, ...]:
        return _OWN + _ASKED * self.asked + _TOLD * self.told

    def whole(self) -> Iterator[Row]:
        """Its rows with the values of `_COLUMNS`."""
        if self.shared is None:
            yield from map(_in_order, self.values)
            return
        own, width = len(_OWN), len(self.columns())
        behind = (*self.shared, *(None,) * len(_EXTRA))
        for at in range(0, len(self.values), width):
            row = self.values[at : at + width]
            asked = row[own : own + len(_ASKED)] if self.asked else (None,) * len(_ASKED)
            told = row[-len(_TOLD) :] if self.told else (None,) * len(_TOLD)
            yield (*row[:own], *asked, *told, *behind)


class EventRows:
    """In the order of their positions. False if there are none."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._run = _Run(shared=None)

    def __bool__(self) -> bool:
        return bool(self._runs)

    def plain(self, shared: Row, own: Row, command_id: str | None, correlation_id: str | None, summary: str | None) -> None:
        """A plain event. shared, own: the values of `_SHARED` and `_OWN`.

        A row that fills more columns than those before it begins a run; one that fills fewer does not: a null costs less than a statement.
        """
        asked, told = command_id is not None or correlation_id is not None, summary is not None
        run = self._run
        if shared != run.shared:
            run = self._begin(_Run(shared=shared, asked=asked, told=told))
        elif (asked and not run.asked) or (told and not run.told):
            run = self._begin(_Run(shared=shared, asked=asked or run.asked, told=told or run.told))
        run.values += own
        if run.asked:
            run.values += (command_id, correlation_id)
        if run.told:
            run.values.append(summary)

    def append(self, row: Row) -> None:
        """Any event: the values of `EVENT_COLUMNS`."""
        run = self._run
        if run.shared is not None or not self._runs:
            run = self._begin(_Run(shared=None))
        run.values.append(row)

    def _begin(self, run: _Run) -> _Run:
        self._runs.append(run)
        self._run = run
        return run

    def write(self, connection: SqliteConnection) -> None:
        """Insert them, inside the caller's transaction."""
        if len(self._runs) > _RUNS_MAX:
            insert_rows(connection, "events", _COLUMNS, chain.from_iterable(run.whole() for run in self._runs))
            return
        for run in self._runs:
            if run.shared is None:
                insert_rows(connection, "events", EVENT_COLUMNS, run.values)
            else:
                _insert_plain(connection, run.shared, run.columns(), run.values)


def _insert_plain(connection: SqliteConnection, shared: Row, columns: tuple[str, ...], values: list[Any]) -> None:
    done, width = 0, len(columns)
    for rows in CHUNKS:
        step = rows * width
        while len(values) - done >= step:
            connection.execute(_plain_sql(columns, rows), [*shared, *values[done : done + step]])
            done += step


@memo("statements of events", 4 * len(CHUNKS))
def _plain_sql(columns: tuple[str, ...], rows: int) -> str:
    """The INSERT of so many rows with these columns: the shared values first, then those of each row."""
    shared = [f"?{number}" for number in range(1, len(_SHARED) + 1)]
    first, width = len(_SHARED) + 1, len(columns)
    lines = [", ".join([*shared, *(f"?{first + row * width + column}" for column in range(width))]) for row in range(rows)]
    return f"INSERT INTO events ({', '.join(_SHARED + columns)}) VALUES ({'), ('.join(lines)})"
