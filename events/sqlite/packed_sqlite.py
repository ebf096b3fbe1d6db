"""Many rows of `events` in one, for those that fold them: what a state is made of, and what the hashes cover (`lean_sqlite`).

Python's sqlite3 gives up the interpreter's lock for every row and takes it again, and makes an object of every column. Put together by
SQLite itself, a thousand rows are one step, in which the lock is free: another thread verifies what was read before, and a busy event loop,
which returns the lock only after its switch interval, makes a reader wait once and not a thousand times.
"""

from struct import calcsize
from typing import Any, Final

import msgspec

from events.sqlite.lean_sqlite import ARRAY, PAYLOAD_AT, clear_body, state_tag
from events.sqlite.sqlite_library import SqliteConnection

HASH_FORMAT: Final = "32s"
_INTEGERS: Final = msgspec.json.Decoder(list[int]).decode
_PACKED: Final = """
    SELECT '[' || group_concat(position) || ']', '[' || group_concat(number) || ']', '[' || group_concat(size) || ']',
        CAST(group_concat(hash, '') AS BLOB), CAST(group_concat(body, '') AS BLOB), group_concat(tag, char(10)),
        CAST(group_concat(covered, char(10)) AS BLOB)
    FROM ({})"""


class Packed(msgspec.Struct, gc=False):
    """Rows in the order in which they were read. numbers: the column that was asked for. sizes: bytes of each body, salt and payload in
    one; -1 where they say too little (sealed, erased, not `only_if`). hashes, bodies: one behind the other. tags: ``tag:schema version`` of
    a state event, else empty. covered: what the hash covers between the stream's name and the payload's digest, ``<version>,...,"``."""

    positions: list[int]
    numbers: list[int]
    sizes: list[int]
    hashes: bytes
    bodies: bytes
    tags: list[str]
    covered: list[bytes]

    @property
    def fits(self) -> bool:
        """Whether it can be taken apart. Not, if a row is damaged: what is no number, a hash of another length."""
        count = len(self.positions)
        return (
            len(self.numbers) == len(self.sizes) == len(self.tags) == len(self.covered) == count
            and len(self.hashes) == calcsize(HASH_FORMAT) * count
            and sum(size for size in self.sizes if size > 0) == len(self.bodies)
        )


def packed(number: str, source: str, prefix: str = "", only_if: str = "1") -> str:
    """The statement that gives all rows of ``FROM <source>`` as one.

    Args:
        number: a column of integers that is wanted of each.
        prefix: of the columns of `events` in `source`.
        only_if: on which events bodies are wanted.
    """
    array = ", ".join(prefix + name for name in ARRAY)
    clear = f"{clear_body(prefix)} AND {only_if}"
    return _PACKED.format(
        f"SELECT {prefix}position AS position, {number} AS number, {prefix}hash AS hash, "
        f"CASE WHEN {clear} THEN {PAYLOAD_AT} + octet_length({prefix}payload) ELSE -1 END AS size, "
        f"CASE WHEN {clear} THEN {prefix}salt || {prefix}payload ELSE '' END AS body, "
        f"coalesce({state_tag(prefix)}, '') AS tag, trim(json_array({array}), '[]') || ',\"' AS covered FROM {source}"
    )


def read_packed(connection: SqliteConnection, statement: str, values: Any) -> Packed | None:
    """None where there are no rows.

    Raises:
        SqliteError: a row cannot be put together, such as one that has bytes where text belongs; or all are too large.
        msgspec.DecodeError: a damaged row has something else where a number belongs.
    """
    (row,) = connection.execute(statement, values).fetchall()
    positions, numbers, sizes, hashes, bodies, tags, covered = row
    if positions is None:
        return None
    return Packed(_INTEGERS(positions), _INTEGERS(numbers), _INTEGERS(sizes), hashes, bodies, tags.split("\n"), covered.split(b"\n"))
