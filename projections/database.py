"""What a projection works on."""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from events.sqlite.sqlite_library import SqliteConnection

    Database: TypeAlias = SqliteConnection
else:
    # The `sqlite3.Connection` of the SQLite that this process runs on; annotating with it costs no import.
    Database = Any
