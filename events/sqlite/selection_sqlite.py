"""A selection carried out inside SQLite: 250,000 events are looked through in 0.1 s, while handing each of them to Python takes ten.

No index: events have none (ARCHITECTURE.md), and a scan of the envelope's columns is fast enough. Only what a condition lets through is
joined, decoded and verified.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from events.envelope import GENESIS_HASH
from events.limits import SELECT_ROWS_MAX
from events.selection import OUTSIDE, Selected, Selection, Term, matches
from events.sqlite.reads_sqlite import in_snapshot, page_limit
from events.sqlite.rows import SELECT_EVENTS_CHECKED, Row, verified_event
from events.sqlite.sqlite_library import SqliteConnection

_COLUMNS: Final = {
    "type": "e.type",
    "kind": "e.kind",
    "correlation_id": "e.correlation_id",
    "command_id": "e.command_id",
    "sender": "e.sender",
}
_TRUE: Final = "1"
_GLOB: Final = re.compile(r"(?:[^\[]|\[!?[^\]^!][^\]]*\])*", re.DOTALL)
"""What fnmatch and SQLite's GLOB read alike, once [!..] is written [^..]."""


def condition(wanted: Selection) -> tuple[str, list[Any]]:
    """SQL over ``events e`` that is true of every wanted event, and of others where SQLite cannot tell; and its parameters."""
    parts: list[str] = []
    values: list[Any] = []
    for terms in wanted.included:
        if (many := _any_of(terms)) is not None:
            parts.append(many[0])
            values += many[1]
            continue
        tests = [_test(term) for term in terms]
        if all(exact is not None for exact in tests):
            parts.append("(" + " OR ".join(test[0] for test in tests if test) + ")")
            values += [value for test in tests if test for value in test[1]]
    for term in wanted.excluded:
        # "not" turns too much into too little, so only what SQLite decides exactly may be excluded there.
        if term.field != "text" and (test := _test(term)) is not None:
            parts.append(f"NOT {test[0]}")
            values += test[1]
    if wanted.after_us is not None:
        parts.append("e.time >= ?")
        values.append(wanted.after_us)
    if wanted.before_us is not None:
        parts.append("e.time < ?")
        values.append(wanted.before_us)
    return " AND ".join(parts) or _TRUE, values


def _any_of(terms: Sequence[Term]) -> tuple[str, list[Any]] | None:
    """Many names of one column are looked up, not compared one by one. None where that is not what `terms` are."""
    column = _COLUMNS.get(terms[0].field)
    if len(terms) < 2 or column is None or terms[0].field == "sender":
        return None
    if any(term.field != terms[0].field or set(term.pattern) & set("*?[\0") for term in terms):
        return None
    return f"(coalesce({column}, '') IN ({', '.join('?' * len(terms))}))", [term.pattern for term in terms]


def _test(term: Term) -> tuple[str, list[Any]] | None:
    """None where SQLite would decide otherwise: its LIKE knows ASCII letters only, its GLOB has classes of its own."""
    pattern = term.pattern
    if term.field == "error":
        return ("(e.error IS NOT NULL)" if pattern == "true" else "(e.error IS NULL)"), []
    if term.field == "text":
        if not pattern.isascii() or "\0" in pattern:
            return None
        like = "%" + "".join(f"\\{c}" if c in "\\%_" else c for c in pattern) + "%"
        columns = ("e.type", "coalesce(e.summary, '')", "coalesce(e.error, '')", "e.payload")
        return "(" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in columns) + ")", [like] * len(columns)
    if "\0" in pattern or _GLOB.fullmatch(pattern) is None:
        return None
    operator = "GLOB" if any(c in "*?[" for c in pattern) else "="
    pattern = pattern.replace("[!", "[^")
    if term.field in ("stream", "actor_type"):
        column = "name" if term.field == "stream" else "type"
        return f"(e.stream_id IN (SELECT id FROM streams WHERE {column} {operator} ?))", [pattern]
    missing = OUTSIDE if term.field == "sender" else ""
    return f"(coalesce({_COLUMNS[term.field]}, '{missing}') {operator} ?)", [pattern]


def read_selected(
    connection: SqliteConnection, shard: int, wanted: Selection, after: int, before: int | None, limit: int, backwards: bool
) -> Selected:
    """`LogReader.select`."""
    limit = max(1, page_limit(limit))
    sql, values = condition(wanted)

    def read() -> tuple[list[Row], int, int, bool]:
        top: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchall()[0][0]
        last = top if before is None else min(top, before - 1)
        # Positions may have holes after `archive`: such a window is looked through faster, that is all.
        low = max(after, last - SELECT_ROWS_MAX) if backwards else after
        high = last if backwards else min(last, after + SELECT_ROWS_MAX)
        rows: list[Row] = connection.execute(
            f"{SELECT_EVENTS_CHECKED} WHERE e.position > ? AND e.position <= ? AND {sql} "
            f"ORDER BY e.position {'DESC' if backwards else ''} LIMIT ?",
            (low, high, *values, limit),
        ).fetchall()
        return rows, low, high, low <= after if backwards else high >= last

    rows, low, high, end = in_snapshot(connection, read)
    events = [verified_event(shard, row, row[30] or row[31] or GENESIS_HASH) for row in rows]
    found = [event for event in events if matches(wanted, event)]
    if len(rows) == limit:
        return Selected(events=found, upto=rows[-1][0], end=False)
    return Selected(events=found, upto=low + 1 if backwards else max(after, high), end=end)
