"""The two indexes by which an owner finds what it knows: streams by name, commands by id.

A damaged entry makes a lookup answer "unknown", which is what a new stream or command looks like, so no check of a row can notice it: a
state would begin anew, a repeated command would be done again. So they are compared with their tables before an owner relies on them.
"""

from pathlib import Path

from events.errors import CorruptLogError
from events.limits import INDEX_ROWS_CHECKED
from events.sqlite.sqlite_library import SqliteConnection


def check_indexes(connection: SqliteConnection, path: Path) -> None:
    """Compare the indexes with their rows, in tables of up to `INDEX_ROWS_CHECKED` rows; larger ones are left to `cuebook verify`, because
    a takeover must not wait for it (5 us per row).

    Raises:
        CorruptLogError: names the first row that an index does not lead to.
    """
    for table in ("streams", "inbox"):
        first, last = connection.execute(f"SELECT (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})").fetchall()[0]
        if last is None or last - first >= INDEX_ROWS_CHECKED:
            continue
        found = connection.execute(f"PRAGMA integrity_check({table})").fetchall()[0][0]
        if found != "ok":
            raise CorruptLogError(
                f"{path} is damaged: {found} (table {table}). Run: cuebook verify; then restore a backup", path=str(path), table=table
            )
