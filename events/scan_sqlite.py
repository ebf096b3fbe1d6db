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
from events.facts import FORKED, Fact
from events.ids import StreamId
from events.lean_sqlite import PAYLOAD_AT, array_opening, lean_columns
from events.limits import PAGE_EVENTS_MAX
from events.reads_sqlite import in_snapshot, read_at, read_page
from events.sqlite_library import SqliteConnection, SqliteError

SCAN_ROWS: Final = 4_000
"""Rows of one short read: the hop to the thread and back is shared by so many, and the loop of who folds them stands still so long."""
_FORKED: Final = b'"%b"' % FORKED.encode()
"""The third item of the array that the hash of such an event covers."""
_SELECT: Final = f"SELECT position, stream_id, {lean_columns()} FROM events WHERE position > ? ORDER BY position LIMIT ?"


class _Stream:
    """What is remembered of a stream. last: hash of its newest event so far. elsewhere: it began on a version of another one (S33)."""

    __slots__ = ("elsewhere", "last", "name", "opening")

    def __init__(self, name: StreamId, elsewhere: bool) -> None:
        self.name = name
        self.opening = array_opening(name)
        self.last = GENESIS_HASH
        self.elsewhere = elsewhere


class ShardScan:
    """One pass over one shard, page after page, on the thread of a connection. Not for use by two callers at once.

    plain: as in `store.ScanReader.scan`. position: of the last event that was read. events: how many.
    """

    def __init__(self, shard: int, plain: Container[str]) -> None:
        self.shard = shard
        self._plain = plain
        self.position = 0
        self.events = 0
        self._streams: dict[int, _Stream] = {}

    def page(self, connection: SqliteConnection) -> list[Fact] | None:
        """The state events and forks among the next `SCAN_ROWS` rows; None at the end.

        Raises:
            CorruptLogError: an event does not verify; names it.
        """
        facts: list[Fact] | None = in_snapshot(connection, lambda: self._page(connection))
        return facts

    def _page(self, connection: SqliteConnection) -> list[Fact] | None:
        try:
            rows = connection.execute(_SELECT, (self.position, SCAN_ROWS)).fetchall()
        except SqliteError:
            self._name_damage(connection)
            raise
        if not rows:
            return None
        facts: list[Fact] = []
        streams, plain, join, add = self._streams, self._plain, b"".join, facts.append
        for position, stream_id, hash_, body, tag, covered in rows:
            stream = streams.get(stream_id) or self._named(connection, stream_id)
            if body is None:
                sound = False
            else:
                digest = sha256(body).hexdigest().encode()
                # ["<stream>",<version>,...,"<branch>","<payload's digest>"]; SQLite's begins with [ and ends in ,""].
                sound = sha256(join((stream.last, stream.opening, covered[1:-2], digest, b'"]'))).digest() == hash_
            if not sound:
                self._check_alone(connection, position, stream.name)
            stream.last = hash_
            if tag is not None:
                clear = body is not None and tag in plain and not stream.elsewhere
                add((position, stream.name, tag, body[PAYLOAD_AT:] if clear else None))
            elif _FORKED in covered and (items := covered.split(b",", 4))[2] == _FORKED:
                # One at version 0 continues from no hash, but may begin with an edited state.
                stream.elsewhere = True
                add((position, stream.name, f"{FORKED}:{items[3].decode()}", None))
        self.position = rows[-1][0]
        self.events += len(rows)
        return facts

    def _named(self, connection: SqliteConnection, stream_id: int) -> _Stream:
        """All that are new at once: a shard has far fewer streams than events."""
        for number, name, base_version in connection.execute("SELECT id, name, base_version FROM streams").fetchall():
            if number not in self._streams:
                self._streams[number] = _Stream(StreamId(name), bool(base_version))
        # An event of no stream is damaged; reading it alone says so.
        return self._streams.get(stream_id) or _Stream(StreamId(""), elsewhere=True)

    def _name_damage(self, connection: SqliteConnection) -> None:
        """Of the next rows: a flipped bit can make bytes of a text, which SQLite's JSON refuses without saying where."""
        position = self.position
        while position < self.position + SCAN_ROWS and (events := read_page(connection, self.shard, position, PAGE_EVENTS_MAX)):
            position = events[-1].position

    def _check_alone(self, connection: SqliteConnection, position: int, name: str) -> None:
        if read_at(connection, self.shard, position) is None:
            raise CorruptLogError(
                f"event {self.shard}:{position} of {name or 'no stream'} cannot be read. Run: cuebook verify",
                shard=self.shard, position=position, stream=name,
            )  # fmt: skip
