"""The rows of vectors, thousands at a time, as one row of SQLite each.

For every row that Python steps to it gives up the interpreter's lock and waits for it: beside a busy event loop 5 ms each, so that
100,000 vectors, which take a second to read, took ten (measured 2026-11; `events.sqlite.packed_sqlite` for what is written).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from events.sqlite.sqlite_library import SqliteConnection

    Database: TypeAlias = SqliteConnection
else:
    Database = Any

ROWS: Final = 4_096
"""8 MB of vectors of 512 numbers: held twice while they are taken apart."""
_integers: Final = msgspec.json.Decoder(list[int]).decode
_strings: Final = msgspec.json.Decoder(list[str]).decode


class Rows(NamedTuple):
    """Some rows of one space, in the order of their places in the log. vectors: None where one was removed. position: of the last."""

    ids: list[int]
    models: list[str]
    vectors: list[bytes | None]
    position: int


def rows_after(db: Database, table: str, space: str, position: int, *, count: int = ROWS) -> Iterator[Rows]:
    """All rows of `space` behind a place in the log, `count` at a time; inside one read transaction."""
    after: tuple[int, int] = (position, 2**63 - 1)  # behind whatever has that place
    while True:
        ids, models, positions, lengths, joined = db.execute(
            "SELECT json_group_array(id), json_group_array(model), json_group_array(position), "
            "json_group_array(coalesce(length(vector), -1)), CAST(group_concat(vector, '') AS BLOB) FROM "
            f"(SELECT id, model, position, vector FROM {table} WHERE space = ? AND (position, id) > (?, ?) ORDER BY position, id LIMIT ?)",
            (space, *after, count),
        ).fetchone()
        numbers = _integers(ids)
        if not numbers:
            return
        after = (_integers(positions)[-1], numbers[-1])
        yield Rows(numbers, _strings(models), _apart(joined or b"", _integers(lengths)), after[0])
        if len(numbers) < count:
            return


def _apart(joined: bytes, lengths: list[int]) -> list[bytes | None]:
    vectors: list[bytes | None] = []
    start = 0
    for length in lengths:
        if length < 0:
            vectors.append(None)
            continue
        vectors.append(joined[start : start + length])
        start += length
    return vectors
