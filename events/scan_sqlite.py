"""A whole shard from its first event to its last, for those who fold all of it: only what a state is made of, no join, no envelope, and
still every hash recomputed (I-20).

The hash of the event before each is remembered per stream instead of being joined. What the hash covers is put together by SQLite, whose
JSON is that of FORMAT.md for nearly every row; where it is not, or where a row does not verify for another reason, it is read again on its
own in the ordinary way, which says what is wrong with it or accepts it: a stream that began elsewhere (S33), an erased payload (S29).
"""

from collections.abc import Container
from hashlib import sha256
from typing import Final

from events.envelope import GENESIS_HASH
from events.errors import CorruptLogError
from events.facts import Fact
from events.reads_sqlite import in_snapshot, read_at
from events.sqlite_library import SqliteConnection

SCAN_ROWS: Final = 1_000
"""Rows of one short read."""


_SELECT: Final = """
    SELECT position, stream_id, hash, salt, CAST(payload AS BLOB), key_id IS NOT NULL OR payload_digest IS NOT NULL,
        CASE kind WHEN 'state' THEN type || ':' || schema_version END,
        CAST(json_array(version, event_id, type, schema_version, kind, recorded_at_us, time, command_id, causation_id, correlation_id,
            sender, branch, '') AS BLOB)
    FROM events WHERE position > ? ORDER BY position LIMIT ?"""


class ShardScan:
    """One pass over one shard, page after page, on the thread of a connection. Not for use by two callers at once.

    plain: as in `store.ScanReader.scan`. position: of the last event that was read. events: how many.
    """

    def __init__(self, shard: int, plain: Container[str]) -> None:
        self.shard = shard
        self._plain = plain
        self.position = 0
        self.events = 0
        self._names: dict[int, tuple[str, bytes]] = {}
        self._last: dict[int, bytes] = {}
        self._elsewhere: set[int] = set()
        """Streams that began on a version of another one (S33)."""

    def page(self, connection: SqliteConnection) -> list[Fact] | None:
        """The state events among the next `SCAN_ROWS` rows; None at the end.

        Raises:
            CorruptLogError: an event does not verify; names it.
        """
        facts: list[Fact] | None = in_snapshot(connection, lambda: self._page(connection))
        return facts

    def _page(self, connection: SqliteConnection) -> list[Fact] | None:
        rows = connection.execute(_SELECT, (self.position, SCAN_ROWS)).fetchall()
        if not rows:
            return None
        facts: list[Fact] = []
        names, last, plain, elsewhere, join = self._names, self._last, self._plain, self._elsewhere, b"".join
        for position, stream_id, hash_, salt, payload, special, tag, covered in rows:
            if stream_id not in names:
                self._read_names(connection)
            name, opening = names.get(stream_id, ("", b""))
            if special:
                sound = False
            else:
                try:
                    # ["<stream>",<version>,...,"<branch>","<payload's digest>"]; SQLite's ends in ,""] so far.
                    digest = sha256(salt + payload).hexdigest().encode()
                    sound = sha256(join((last.get(stream_id, GENESIS_HASH), opening, covered[1:-2], digest, b'"]'))).digest() == hash_
                except TypeError:
                    sound = False
            if not sound:
                self._check_alone(connection, position, name)
            last[stream_id] = hash_
            if tag is not None:
                clear = tag in plain and not special and stream_id not in elsewhere
                facts.append((position, name, tag, payload if clear else None))
        self.position = rows[-1][0]
        self.events += len(rows)
        return facts

    def _read_names(self, connection: SqliteConnection) -> None:
        """All at once: a shard has far fewer streams than events."""
        for stream_id, name, base_version in connection.execute("SELECT id, name, base_version FROM streams").fetchall():
            self._names[stream_id] = (name, b'["%b",' % name.encode())
            if base_version:
                self._elsewhere.add(stream_id)

    def _check_alone(self, connection: SqliteConnection, position: int, name: str) -> None:
        if read_at(connection, self.shard, position) is None:
            raise CorruptLogError(
                f"event {self.shard}:{position} of {name or 'no stream'} cannot be read. Run: cuebook verify",
                shard=self.shard, position=position, stream=name,
            )  # fmt: skip
