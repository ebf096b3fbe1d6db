"""A whole shard from its first event to its last, for those who fold all of it: only what a state is made of, no join, no envelope, and
still every hash recomputed (I-20).

The hash of the event before each is remembered per stream instead of being joined. What the hash covers is put together by SQLite, whose
JSON is that of FORMAT.md for nearly every row; where it is not, or where a row does not verify for another reason, it is read again on its
own in the ordinary way, which says what is wrong with it or accepts it: a stream that began elsewhere (S33), an erased payload (S29).
"""

import threading
from collections.abc import Callable, Container, Iterable, Sequence
from hashlib import sha256
from itertools import accumulate, repeat
from struct import calcsize
from typing import Final, Literal

import msgspec

from events.envelope import GENESIS_HASH, RecordedEvent
from events.errors import CorruptLogError
from events.facts import FORKED, Fact
from events.ids import StreamId
from events.limits import PAGE_EVENTS_MAX
from events.sqlite.lean_sqlite import PAYLOAD_AT, array_opening, lean_columns
from events.sqlite.packed_sqlite import HASH_FORMAT, Packed, packed, read_packed
from events.sqlite.reads_sqlite import in_snapshot, read_at, read_page
from events.sqlite.sqlite_library import SqliteConnection, SqliteError

SCAN_ROWS: Final = 4_000
"""Rows of one short read at most: the hops between threads are shared by so many. Four times as many were no faster (2026-11)."""
FIRST_ROWS: Final = 500
_PAGE_BYTES: Final = 4 * 1024 * 1024
"""About so much of payloads is held at once, and as much again while it is put together."""
_FETCH_BEGINS_S: Final = 0.01
_ROWS_APART: Final = 250
_HASH_BYTES: Final = calcsize(HASH_FORMAT)
_FORKED: Final = b'"%b"' % FORKED.encode()
"""The third item of the array that the hash of such an event covers."""
_PACKED: Final = packed("stream_id", "events WHERE position > ? ORDER BY position LIMIT ?")
_SELECT: Final = f"SELECT position, stream_id, {lean_columns()} FROM events WHERE position > ? ORDER BY position LIMIT ?"


class _Stream:
    """What is remembered of a stream. last: hash of its newest event so far. elsewhere: it began on a version of another one (S33)."""

    __slots__ = ("elsewhere", "last", "name", "opening")

    def __init__(self, name: StreamId, elsewhere: bool) -> None:
        self.name = name
        self.opening = array_opening(name)
        self.last = GENESIS_HASH
        self.elsewhere = elsewhere


def _add_fork(facts: list[Fact], position: int, stream: _Stream, covered: bytes) -> None:
    """If it is one; `covered` names it, perhaps elsewhere."""
    items = covered.split(b",", 4)
    if items[2] == _FORKED:
        # One at version 0 continues from no hash, but may begin with an edited state.
        stream.elsewhere = True
        facts.append((position, stream.name, f"{FORKED}:{items[3].decode()}", None))


class Page(msgspec.Struct, gc=False):
    """Facts of a page, and those that did not verify as they were packed: index in `facts` (None: no state event), position, stream."""

    facts: list[Fact]
    doubtful: list[tuple[int | None, int, str]]


class ShardScan:
    """One pass over one shard, page after page: `fetch` on the thread of a connection, `verify` of what it gave anywhere, also while the
    next page is fetched. Neither by two callers at once.

    plain: as in `store.ScanReader.scan`. position: of the last event that was fetched.
    """

    def __init__(self, shard: int, plain: Container[str]) -> None:
        self.shard = shard
        self._plain = plain
        self.position = 0
        self._limit = FIRST_ROWS
        self._fetching = threading.Event()
        self._fetching.set()
        self._streams: dict[int, _Stream] = {}
        self._elsewhere = False
        """Whether a stream that began elsewhere was come upon."""

    def expect_fetch(self) -> None:
        """`fetch` and `verify` are called next, at the same time."""
        self._fetching.clear()

    def fetch(self, connection: SqliteConnection) -> Packed | Literal["by rows"] | None:
        """The next rows. None at the end; "by rows" where they cannot be packed: then `by_rows` gives the next facts, once those before are
        verified."""
        try:
            found: Packed | Literal["by rows"] | None = in_snapshot(connection, lambda: self._fetch(connection))
        finally:
            self._fetching.set()
        return found

    def _fetch(self, connection: SqliteConnection) -> Packed | Literal["by rows"] | None:
        # From here on SQLite works without the interpreter.
        self._fetching.set()
        try:
            rows = read_packed(connection, _PACKED, (self.position, self._limit))
        except (SqliteError, msgspec.DecodeError):
            return "by rows"
        if rows is None:
            return None
        if not rows.fits:
            return "by rows"
        for stream_id in set(rows.numbers).difference(self._streams):
            if stream_id not in self._streams:  # the first look finds all that are new
                self._named(connection, stream_id)
        self.position = rows.positions[-1]
        self._limit = min(SCAN_ROWS, 4 * self._limit, 1 + _PAGE_BYTES * len(rows.positions) // (len(rows.bodies) + 1))
        return rows

    def hand_over(self, rows: Packed, take: Callable[[Sequence[Fact]], None]) -> Page:
        """`verify`, and `take` what is beyond doubt."""
        page = self.verify(rows)
        if not page.doubtful:
            take(page.facts)
        return page

    def verify(self, rows: Packed) -> Page:
        """The state events and forks among `rows`, behind a page that was verified; `check` has to see the doubtful ones before a fold."""
        # Else that of the next page would wait for the interpreter a whole switch interval before it begins: as long as this takes.
        self._fetching.wait(_FETCH_BEGINS_S)
        streams, packed_bodies, packed_hashes = self._streams, rows.bodies, rows.hashes
        sizes = rows.sizes if min(rows.sizes) >= 0 else [max(size, 0) for size in rows.sizes]
        ends = list(accumulate(sizes))
        bodies = [packed_bodies[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        hashes = [packed_hashes[at : at + _HASH_BYTES] for at in range(0, len(packed_hashes), _HASH_BYTES)]
        named: list[_Stream] = []
        before: list[bytes] = []
        for stream_id, hash_ in zip(rows.numbers, hashes, strict=True):
            stream = streams[stream_id]
            named.append(stream)
            before.append(stream.last)
            stream.last = hash_
        # Column by column: comprehensions cost less than one loop, and `hashlib` keeps the interpreter's lock anyway (below 2 KiB).
        digests = [each.hexdigest().encode() for each in map(sha256, bodies)]
        # ["<stream>",<version>,...,"<branch>","<payload's digest>"]
        texts = map(
            b"".join, zip(before, [stream.opening for stream in named], rows.covered, digests, repeat(b'"]', len(named)), strict=True)
        )
        sums = [each.digest() for each in map(sha256, texts)]
        if sums == hashes and rows.sizes is sizes and not self._elsewhere and self._all_plain(rows.tags):
            return Page(
                [
                    (position, stream.name, tag, body[PAYLOAD_AT:])
                    for position, stream, tag, body in zip(rows.positions, named, rows.tags, bodies, strict=True)
                ],
                [],
            )
        return self._one_by_one(rows, named, bodies, [sum_ == hash_ for sum_, hash_ in zip(sums, hashes, strict=True)])

    def _all_plain(self, tags: Iterable[str]) -> bool:
        return all(tag and tag in self._plain for tag in set(tags))

    def _one_by_one(self, rows: Packed, named: Sequence[_Stream], bodies: Sequence[bytes], sound: Sequence[bool]) -> Page:
        """Of a page in which not everything is a state event that can be taken as it is."""
        facts: list[Fact] = []
        doubtful: list[tuple[int | None, int, str]] = []
        for position, stream, size, body, tag, covered, is_sound in zip(
            rows.positions, named, rows.sizes, bodies, rows.tags, rows.covered, sound, strict=True
        ):
            if size < 0 or not is_sound:
                doubtful.append((len(facts) if tag else None, position, stream.name))
            if tag:
                clear = size >= 0 and tag in self._plain and not stream.elsewhere
                facts.append((position, stream.name, tag, body[PAYLOAD_AT:] if clear else None))
            elif _FORKED in covered:
                _add_fork(facts, position, stream, covered)
                self._elsewhere = True
        return Page(facts, doubtful)

    def check(self, connection: SqliteConnection, page: Page) -> None:
        """Read the doubtful ones alone and in the ordinary way; what stands there then is the payload.

        Raises:
            CorruptLogError: one does not verify; names it.
        """
        for index, position, name in page.doubtful:
            event = self._check_alone(connection, position, name)
            if index is not None and page.facts[index][3] is not None:
                page.facts[index] = (*page.facts[index][:3], bytes(event.payload))

    def by_rows(self, connection: SqliteConnection) -> list[Fact]:
        """The next rows one by one.

        Raises:
            CorruptLogError: an event does not verify; names it.
        """
        facts: list[Fact] = in_snapshot(connection, lambda: self._by_rows(connection))
        return facts

    def _by_rows(self, connection: SqliteConnection) -> list[Fact]:
        try:
            rows = connection.execute(_SELECT, (self.position, _ROWS_APART)).fetchall()
        except SqliteError:
            self._name_damage(connection)
            raise
        facts: list[Fact] = []
        plain = self._plain
        for position, stream_id, hash_, body, tag, covered in rows:
            stream = self._streams.get(stream_id) or self._named(connection, stream_id)
            sound = False
            if body is not None:
                # SQLite's array begins with [ and ends in ,""].
                text = b"".join((stream.last, stream.opening, covered[1:-2], sha256(body).hexdigest().encode(), b'"]'))
                sound = sha256(text).digest() == hash_
            if not sound:
                self._check_alone(connection, position, stream.name)
            stream.last = hash_
            if tag is not None:
                clear = body is not None and tag in plain and not stream.elsewhere
                facts.append((position, stream.name, tag, body[PAYLOAD_AT:] if clear else None))
            elif _FORKED in covered:
                _add_fork(facts, position, stream, covered)
        if rows:
            self.position = rows[-1][0]
        return facts

    def _named(self, connection: SqliteConnection, stream_id: int) -> _Stream:
        """All that are new at once: a shard has far fewer streams than events."""
        for number, name, base_version in connection.execute("SELECT id, name, base_version FROM streams").fetchall():
            if number not in self._streams:
                self._streams[number] = _Stream(StreamId(name), bool(base_version))
                self._elsewhere = self._elsewhere or bool(base_version)
        # An event of no stream is damaged; reading it alone says so.
        self._elsewhere = self._elsewhere or stream_id not in self._streams
        return self._streams.setdefault(stream_id, _Stream(StreamId(""), elsewhere=True))

    def _name_damage(self, connection: SqliteConnection) -> None:
        """Of the next rows: a flipped bit can make bytes of a text, which SQLite's JSON refuses without saying where."""
        position = self.position
        while position < self.position + _ROWS_APART and (events := read_page(connection, self.shard, position, PAGE_EVENTS_MAX)):
            position = events[-1].position

    def _check_alone(self, connection: SqliteConnection, position: int, name: str) -> RecordedEvent:
        event = read_at(connection, self.shard, position)
        if event is None:
            raise CorruptLogError(
                f"event {self.shard}:{position} of {name or 'no stream'} cannot be read. Run: cuebook verify",
                shard=self.shard, position=position, stream=name,
            )  # fmt: skip
        return event
