"""What the writer of a shard keeps in memory: where each recently used stream ends, and where the shard does.
 The optimistic lock of an append is this memory, guarded by one comparison inside the transaction: the owner's epoch
and token and the highest position of the file. Any foreign append changes the position, any takeover the epoch, so the
heads kept here are true whenever both still match; an index on (stream, version) would cost more than half of the
appends in a big log (facts/limits.md 2.4).
"""

from collections import Counter
from typing import Final

import msgspec

from events.envelope import GENESIS_HASH, rolling_hash
from events.errors import CorruptLogError
from events.limits import HEADS_FLUSH_EVENTS
from events.sqlite.anchor import Anchor
from events.sqlite.reads_sqlite import FoundHead
from events.sqlite.rows import flush_check, pair_check
from events.sqlite.sqlite_library import SqliteConnection

PairKey = tuple[str, str, str]
"""(sender, receiver, incarnation)"""
InboxKey = tuple[str, str]
"""(command id, stream)"""

CLEAN_HEADS_MAX: Final = 20_000
PAIRS_MAX: Final = 20_000


class Heads:
    """Stream heads: those that changed since the last flush (`dirty`, the truth), and others that were read lately
    (`clean`).

    Changed only on the database thread; `get` is safe from any thread, because a stream moves from clean to dirty by
    being put into dirty, which is looked at first, and from dirty to clean by one assignment of the whole dictionary
    before dirty is emptied.
    """

    def __init__(self) -> None:
        self.dirty: dict[str, FoundHead] = {}
        self.clean: dict[str, FoundHead] = {}

    def get(self, stream: str) -> FoundHead | None:
        """The head of `stream` if it is in memory; then it is the newest."""
        return self.dirty.get(stream) or self.clean.get(stream)

    def remember(self, stream: str, head: FoundHead) -> None:
        """Keep a head that was read from the file."""
        if len(self.clean) >= CLEAN_HEADS_MAX:
            self.clean = {}
        self.clean[stream] = head

    def flushed(self) -> None:
        """All dirty heads stand in the file now."""
        self.clean = self.dirty
        self.dirty = {}


class ShardMemory(msgspec.Struct, kw_only=True):
    """All that is known of the shard between two transactions. Rebuilt by `load_memory` whenever in doubt.

    time: highest logical time given or received. event_hash: hash of the event at `position`. eventless: commits
    without events.
    """

    position: int = 0
    time: int = 0
    rolling: bytes = GENESIS_HASH
    event_hash: bytes = GENESIS_HASH
    eventless: int = 0
    flushed_position: int = 0
    heads: Heads
    open_inbox: dict[InboxKey, int]
    next_inbox: int = 1
    next_stream: int = 1
    formats: set[tuple[str, str, int]]
    outbox_pairs: Counter[PairKey]
    outbox_total: int = 0
    sent: dict[PairKey, int]
    received: dict[PairKey, int]
    purge_after: int = 0
    purge_at_us: int = 0


def load_memory(connection: SqliteConnection, shard: int, path: str, anchor: Anchor | None) -> ShardMemory:
    """What the file holds, checked against the anchor. Call inside a transaction.

    Raises:
        CorruptLogError: the file is behind the anchor (S28), or its tail does not fit its own notes.
    """
    memory = ShardMemory(heads=Heads(), open_inbox={}, formats=set(), outbox_pairs=Counter(), sent={}, received={})
    flushes = []
    for *flush, check in connection.execute("SELECT position, rolling_hash, time, row_check FROM heads ORDER BY position DESC").fetchall():
        if flush_check(*flush) != check:
            raise CorruptLogError(f"{path}: the row of table heads for position {flush[0]} is damaged. Run: cuebook verify", path=path)
        flushes.append((flush[0], flush[1], flush[2]))
    newest = flushes[0] if flushes else (0, GENESIS_HASH, 0)
    # An anchor that lags one commit may lie before the newest flush: then its rolling hash is checked from the flush
    # before.
    start = newest
    if anchor is not None:
        start = next((flush for flush in (*flushes, (0, GENESIS_HASH, 0)) if flush[0] <= anchor.position), newest)
        if anchor.position < (flushes[-1][0] if len(flushes) > 1 else 0):
            start = newest
    memory.position, memory.rolling, memory.time = start
    memory.flushed_position = newest[0]
    _scan_tail(connection, shard, path, memory, newest, anchor)
    memory.eventless = connection.execute("SELECT eventless FROM owner").fetchall()[0][0]
    if anchor is not None:
        check_anchor(connection, path, memory.position, memory.eventless, anchor)
    if memory.position:
        memory.event_hash = _event_hash(connection, memory.position) or GENESIS_HASH
    _load_rest(connection, shard, memory)
    return memory


def _event_hash(connection: SqliteConnection, position: int) -> bytes | None:
    rows = connection.execute("SELECT hash FROM events WHERE position = ?", (position,)).fetchall()
    return rows[0][0] if rows else None


def _scan_tail(
    connection: SqliteConnection, shard: int, path: str, memory: ShardMemory, newest: tuple[int, bytes, int], anchor: Anchor | None
) -> None:
    """Heads and the rolling hash from the events after the last flush: at most HEADS_FLUSH_EVENTS and one commit, twice
    that for the anchor."""
    end = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchall()[0][0]
    if end < newest[0]:
        raise CorruptLogError(
            f"{path} ends at position {end}, but its own notes say {newest[0]}: its tail was removed. Restore a backup",
            shard=shard, path=path, expected=newest[0], found=end,
        )  # fmt: skip
    cursor = connection.execute(
        "SELECT e.position, e.version, e.hash, e.time, e.stream_id, s.name, s.status, s.head_version, "
        "s.head_position, s.base_version, s.base_hash"
        " FROM events e LEFT JOIN streams s ON s.id = e.stream_id WHERE e.position > ? ORDER BY e.position",
        (memory.position,),
    )
    # `start` may be the anchor's own position.
    _compare_rolling(path, memory, anchor)
    while rows := cursor.fetchmany(1_000):
        for position, version, hash_, time, stream_id, name, status, flushed_version, flushed_position, base_version, base_hash in rows:
            memory.rolling = rolling_hash(memory.rolling, hash_)
            memory.position, memory.time = position, time
            if position > newest[0]:
                known = memory.heads.dirty.get(name)
                before = known.version if known else max(flushed_version or 0, base_version or 0)
                if name is None or version != before + 1 or flushed_position > newest[0]:
                    raise CorruptLogError(
                        f"{path}: event {shard}:{position} is version {version} of {name}, expected {before + 1}. Run: cuebook verify",
                        shard=shard, position=position, stream=name, expected=before + 1, found=version,
                    )  # fmt: skip
                memory.heads.dirty[name] = FoundHead(stream_id, version, position, hash_, status, base_version, base_hash or GENESIS_HASH)
            elif position == newest[0] and memory.rolling != newest[1]:
                raise CorruptLogError(
                    f"{path}: the hash of all events up to {shard}:{position} differs from the one noted there. Run: cuebook verify",
                    shard=shard, position=position,
                )  # fmt: skip
            _compare_rolling(path, memory, anchor)


def _compare_rolling(path: str, memory: ShardMemory, anchor: Anchor | None) -> None:
    if anchor is not None and memory.position == anchor.position and memory.rolling != anchor.rolling_hash:
        raise CorruptLogError(
            f"{path} differs from its anchor: the events up to position {anchor.position} are not those that were committed. It was "
            "replaced by another copy, or damaged. Run: cuebook verify; then restore a backup",
            path=path, position=anchor.position, expected=anchor.rolling_hash.hex(), found=memory.rolling.hex(),
        )  # fmt: skip


def check_anchor(connection: SqliteConnection, path: str, position: int, eventless: int, anchor: Anchor) -> None:
    """Compare where the file ends with its anchor, which was read before (S28).

    Raises:
        CorruptLogError: it ends earlier, or with another event.
    """
    if position < anchor.position or eventless < anchor.eventless:
        raise CorruptLogError(
            f"{path} ends at position {position} (and {eventless} commits without events), but position {anchor.position} "
            f"(and {anchor.eventless}) had been committed: the tail of the log is lost, or an older copy was put here. "
            "Put the newest copy back, or restore a backup. If the machine lost power under durability = process, those commits are gone "
            f"for good: to go on without them, remove {path.removesuffix('.db')}.anchor and start again",
            path=path, expected=anchor.position, found=position,
        )  # fmt: skip
    if anchor.position and _event_hash(connection, anchor.position) != anchor.event_hash:
        raise CorruptLogError(
            f"{path} differs from its anchor: the event at position {anchor.position} is not the one that was committed. "
            "Run: cuebook verify",
            path=path, position=anchor.position, expected=anchor.event_hash.hex(),
        )  # fmt: skip


def _load_rest(connection: SqliteConnection, shard: int, memory: ShardMemory) -> None:
    # Unchecked: only where the row is and when it came. What it says is verified when it is used.
    for row_id, command_id, stream, received_time in connection.execute(
        "SELECT i.id, i.command_id, s.name, i.received_time FROM inbox i LEFT JOIN streams s ON s.id = i.stream_id "
        "WHERE i.status IN ('queued', 'running')"
    ).fetchall():
        memory.open_inbox[command_id, stream] = row_id
        # A command received before a crash must still be older than the events it will cause (S30).
        memory.time = max(memory.time, received_time)
    memory.next_inbox = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM inbox").fetchall()[0][0]
    memory.next_stream = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM streams").fetchall()[0][0]
    memory.formats = set(connection.execute("SELECT kind, name, version FROM formats").fetchall())
    for sender, receiver, incarnation, count in connection.execute(
        "SELECT sender, receiver, incarnation, count(*) FROM outbox GROUP BY sender, receiver, incarnation"
    ).fetchall():
        memory.outbox_pairs[sender, receiver, incarnation] = count
        memory.outbox_total += count


def read_pair(connection: SqliteConnection, table: str, key: PairKey) -> int:
    """The last number of a pair in `sent_heads` or `received_heads`, 0 if there was none. Raises CorruptLogError."""
    rows = connection.execute(f"SELECT n, row_check FROM {table} WHERE sender = ? AND receiver = ? AND incarnation = ?", key).fetchall()
    if not rows:
        return 0
    n: int = rows[0][0]
    if pair_check(*key, n) != rows[0][1]:
        raise CorruptLogError(
            f"the row of table {table} for {key[0]} -> {key[1]} is damaged. Run: cuebook verify", table=table, stream=key[1]
        )
    return n


def flush_is_due(memory: ShardMemory, position: int) -> bool:
    """True if the heads belong into the file with this commit."""
    return position - memory.flushed_position >= HEADS_FLUSH_EVENTS
