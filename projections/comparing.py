"""What two views of the same events have in common: their rows, whatever the order in which they were written."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final

import msgspec

from projections.database import Database

Row = tuple[object, ...]
_NOTHING: Final = object()
_TEXT_MAX: Final = 200


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first place at which a view and its rebuild differ. None = the other side has something where this one ends."""

    view: str | None
    rebuilt: str | None


def rows_of(db: Database) -> Iterator[Row]:
    """Every row of every table, table by table by name, in the order of their values; of an FTS5 table its terms with their places, since
    how they are stored depends on how they were written. Left out: tables of the engine (``cue_...``) and those of SQLite itself."""
    tables = db.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name").fetchall()
    texts = full_text_tables(db)
    for name, kind in tables:
        if name.startswith(("cue_", "sqlite_")) or kind not in ("table", "virtual"):
            continue
        yield from _terms(db, name) if name in texts else _rows(db, name)


def _rows(db: Database, table: str) -> Iterator[Row]:
    columns = len(db.execute(f"PRAGMA table_info({_quoted(table)})").fetchall())
    order = ", ".join(str(number + 1) for number in range(columns))
    for row in db.execute(f"SELECT * FROM {_quoted(table)} ORDER BY {order}"):
        yield table, *row


def _terms(db: Database, table: str) -> Iterator[Row]:
    vocabulary = _quoted(f"cue_terms_of_{table}")
    db.execute(f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.{vocabulary} USING fts5vocab('main', {_quoted(table)}, 'instance')")
    try:
        for row in db.execute(f'SELECT term, doc, col, "offset" FROM temp.{vocabulary} ORDER BY 1, 2, 3, 4'):
            yield table, *row
    finally:
        db.execute(f"DROP TABLE temp.{vocabulary}")


def full_text_tables(db: Database) -> list[str]:
    """The FTS5 tables of a file."""
    found = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'").fetchall()
    return [name for name, sql in found if " USING FTS5" in " ".join(sql.upper().replace("(", " (").split())]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def first_difference(view: Iterable[Row], rebuilt: Iterable[Row]) -> tuple[int, Difference | None]:
    """How many rows were compared, and the first that differs."""
    count = 0
    for mine, other in zip_longest(view, rebuilt, fillvalue=_NOTHING):
        if mine != other:
            return count, Difference(view=_shown(mine), rebuilt=_shown(other))
        count += 1
    return count, None


def _shown(row: Any) -> str | None:
    if row is _NOTHING:
        return None
    text = repr(row)
    return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "..."
