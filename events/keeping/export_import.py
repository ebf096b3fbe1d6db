"""`cuebook import`: an export becomes a log again, with as many shards as before or with others (S6). Blocks.

With as many shards it is the same log: same incarnation, positions and epochs, and its export has the same bytes. With another number the
hashes and versions of every stream stay, while positions are given anew in merged order and the log gets an incarnation of its own, because
the numbers of sends between two actors (S25) are not kept for pairs that shared a shard.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.envelope import GENESIS_HASH, RecordedEvent, chain_hash, payload_hash, rolling_hash, row_check
from events.errors import ConfigurationError, CorruptLogError, TransientError
from events.ids import StreamId, parse_stream_id, shard_of
from events.keeping import export_lines as lines
from events.keeping.backup import require_sound
from events.keeping.backup_folder import appearing, finish_shard
from events.limits import STREAM_PAGE_VERSIONS
from events.log_directory import LOG_FILE, LOG_FORMAT, SHARDS_MAX, LogIdentity, create_log, shard_path
from events.sqlite.rows import (
    EVENT_COLUMNS,
    INBOX_COLUMNS,
    OUTBOX_COLUMNS,
    PAIR_COLUMNS,
    UPSERT_TIMER,
    UPSERT_WAIT,
    InboxRow,
    event_check,
    flush_check,
    inbox_values,
    insert_rows,
    insert_sql,
    outbox_values,
    pair_check,
    stream_check,
    timer_values,
    wait_values,
)
from events.sqlite.sqlite_library import SqliteConnection, SqliteError, library

Say = Callable[[str], None]
_BATCH: Final = 1_000
_SAY_EVERY: Final = 100_000
_STREAM_COLUMNS: Final = (
    "id", "name", "type", "key", "status", "head_version", "head_position", "head_hash", "base_version", "base_hash", "row_check",
)  # fmt: skip
_STATUSES: Final = ("live", "archived", "erased")


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What the new log holds."""

    incarnation: str
    shards: int
    streams: int
    events: int


def import_log(
    file: Path, directory: Path, shards: int | None = None, say: Say = lambda _: None, *, clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> Imported:  # fmt: skip
    """Make the log of `file` in `directory`, which must be new or empty and appears when all of it is checked.

    shards: of the new log, None = as many as the exported one had.

    Raises:
        ConfigurationError: `file` is no export that this program reads, `directory` is in use, or `shards` is out of range.
        CorruptLogError: a line is damaged or missing; names its number. TransientError: the disk is full.
    """
    try:
        with appearing(directory) as folder, file.open("rb") as source:
            return _import(source, file, folder, shards, say, clock or SystemClock(), entropy or SystemEntropy())
    except SqliteError as error:
        raise TransientError(f"{directory} cannot be written: {error}", path=str(directory)) from error
    except OSError as error:
        raise ConfigurationError(f"{error.filename or file}: {error.strerror}", path=str(file)) from error


def _import(source: BinaryIO, file: Path, folder: Path, shards: int | None, say: Say, clock: Clock, entropy: Entropy) -> Imported:
    reader = _Lines(source, file)
    header = reader.header()
    same = shards is None or shards == header.shards
    count = header.shards if shards is None else shards
    if not 1 <= count <= SHARDS_MAX:
        raise ConfigurationError(f"a log has 1 to {SHARDS_MAX} shards, not {count}")
    identity = LogIdentity(
        format=LOG_FORMAT, incarnation=header.incarnation if same else entropy.token_bytes(16).hex(), shards=count,
        created=header.created if same else clock.wall_us(),
    )  # fmt: skip
    # Where `create_log` looks for the identity of an attempt that died half-way: it goes on from there, with this one.
    (folder / f"{LOG_FILE}.new").write_bytes(msgspec.json.encode(identity) + b"\n")
    create_log(folder, count)
    with ExitStack() as stack:
        targets = []
        for shard in range(count):
            # No journal: the folder is thrown away unless all goes well, and synced before it appears.
            connection = stack.enter_context(closing(library.connect(shard_path(folder, shard), isolation_level=None)))
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("BEGIN")
            targets.append(_Target(connection, shard))
        importer = _Importer(targets, keep_places=same)
        events = 0
        for line in reader:
            try:
                if isinstance(line, RecordedEvent):
                    importer.take_event(line)
                    events += 1
                    if events % _SAY_EVERY == 0:
                        say(f"{events:,} events")
                else:
                    importer.take_line(line)
            except (ValueError, TypeError, OverflowError, library.IntegrityError) as error:
                raise reader.damaged(str(error)) from error
        try:
            importer.finish()
        except (ValueError, TypeError, OverflowError, library.IntegrityError) as error:
            raise CorruptLogError(f"{file} holds rows that cannot stand in one log: {error}", path=str(file)) from error
    for shard in range(count):
        finish_shard(folder, identity, shard)
    say("verifying the new log")
    require_sound(folder)
    return Imported(incarnation=identity.incarnation, shards=count, streams=importer.streams, events=events)


class _Lines:
    """The lines of an export, each checked as far as it can be alone: that it is one of ours, and by the checksums that follow."""

    def __init__(self, source: BinaryIO, file: Path) -> None:
        self._source = source
        self._file = file
        self._sha = hashlib.sha256()
        self._checks: list[int] = []
        self._events = 0
        self.number = 0

    def damaged(self, why: str, number: int | None = None) -> CorruptLogError:
        number = self.number if number is None else number
        return CorruptLogError(f"line {number} of {self._file} is damaged: {why}", path=str(self._file), line=number)

    def _next(self) -> lines.AnyLine | RecordedEvent | None:
        raw = self._source.readline()
        if not raw:
            return None
        self.number += 1
        line = raw.removesuffix(b"\n")
        try:
            found = lines.decode_line.decode(line) if line.startswith(lines.TAG) else lines.decode_event.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.damaged(str(error)) from error
        if len(raw) == len(line):
            raise self.damaged("it has no end")
        if isinstance(found, lines.EndLine):
            self._check_end(found)
        elif isinstance(found, lines.ChecksLine):
            self._compare(found)
        else:
            self._checks.append(zlib.crc32(line))
        self._sha.update(raw)
        self._events += isinstance(found, RecordedEvent)
        return found

    def _compare(self, found: lines.ChecksLine) -> None:
        first = self.number - len(self._checks)
        if len(found.crc) != len(self._checks):
            raise self.damaged(f"{len(self._checks)} lines stand before it, not {len(found.crc)}")
        for index, (stored, computed) in enumerate(zip(found.crc, self._checks, strict=True)):
            if stored != computed:
                raise self.damaged("its checksum does not match", first + index)
        self._checks = []

    def _check_end(self, end: lines.EndLine) -> None:
        if self._checks or (end.lines, end.events) != (self.number - 1, self._events):
            raise self.damaged(f"it counts {end.lines} lines and {end.events} events, but {self.number - 1} and {self._events} are there")
        if end.sha256 != self._sha.hexdigest():
            raise self.damaged("the hash of all lines before it differs")

    def header(self) -> lines.HeaderLine:
        found = self._next()
        if not isinstance(found, lines.HeaderLine):
            raise ConfigurationError(f"{self._file} is no export of Cuebook: its first line is no header", path=str(self._file))
        if found.format > lines.EXPORT_FORMAT:
            raise ConfigurationError(
                f"{self._file} has format {found.format}; this program reads up to {lines.EXPORT_FORMAT}. Use a newer version of Cuebook"
            )
        if not 1 <= found.shards <= SHARDS_MAX or len(bytes.fromhex(found.incarnation)) != 16:
            raise self.damaged("shards or incarnation cannot be")
        return found

    def __iter__(self) -> Iterator[lines.StreamLine | lines.ExactLine | lines.Row | RecordedEvent]:
        while (found := self._next()) is not None:
            if isinstance(found, lines.EndLine):
                if self._source.read(1):
                    self.number += 1
                    raise self.damaged("it stands behind the end")
                return
            if isinstance(found, lines.HeaderLine):
                raise self.damaged("a second header")
            if not isinstance(found, lines.ChecksLine):
                yield found
        self.number += 1
        raise self.damaged("the file ends before its last line")


class _Stream(msgspec.Struct):
    id: int
    target: "_Target"
    name: str
    status: str = "live"
    version: int = 0
    position: int = 0
    hash: bytes = GENESIS_HASH
    time: int = 0
    base_version: int = 0
    base_hash: bytes | None = None


class _Target:
    """One shard of the new log."""

    def __init__(self, connection: SqliteConnection, shard: int) -> None:
        self.connection = connection
        self.shard = shard
        self.streams: list[_Stream] = []
        self.position = 0
        self.time = 0
        self.epoch = 0
        self.rolling = GENESIS_HASH
        self.next_inbox = 1
        self.formats: dict[tuple[str, str, int], int] = {}
        self.events: list[tuple[Any, ...]] = []
        self.pages: list[tuple[int, int, int]] = []
        self.inbox: list[tuple[Any, ...]] = []

    def write(self) -> None:
        insert_rows(self.connection, "events", EVENT_COLUMNS, self.events)
        insert_rows(self.connection, "inbox", INBOX_COLUMNS, self.inbox)
        self.connection.executemany("INSERT INTO stream_pages VALUES (?, ?, ?)", self.pages)
        self.events, self.inbox, self.pages = [], [], []

    def finish(self) -> None:
        self.write()
        rows = []
        for stream in self.streams:
            type_name, _, key = stream.name.partition("/")
            head = (stream.version if stream.position else 0, stream.position, stream.hash if stream.position else GENESIS_HASH)
            check = stream_check(stream.id, stream.name, stream.status, *head, stream.base_version, stream.base_hash)
            rows.append((stream.id, stream.name, type_name, key, stream.status, *head, stream.base_version, stream.base_hash, check))
        self.connection.executemany(insert_sql("streams", _STREAM_COLUMNS), rows)
        self.connection.executemany("INSERT INTO formats VALUES (?, ?, ?, ?)", [(*key, at) for key, at in self.formats.items()])
        self.connection.execute("UPDATE owner SET epoch = ?", (self.epoch,))
        if self.position:
            check = flush_check(self.position, self.rolling, self.time)
            self.connection.execute("INSERT INTO heads VALUES (?, ?, ?, ?)", (self.position, self.rolling, self.time, check))
        self.connection.execute("COMMIT")


class _Importer:
    """keep_places: the new log has as many shards as the exported one, so shard, position and epoch of each event stay."""

    def __init__(self, targets: list[_Target], *, keep_places: bool) -> None:
        self._targets = targets
        self._keep_places = keep_places
        self._streams: dict[str, _Stream] = {}
        self._exact: lines.ExactLine | None = None

    @property
    def streams(self) -> int:
        """Streams with events."""
        return sum(1 for stream in self._streams.values() if stream.version)

    def _stream(self, name: str) -> _Stream:
        stream = self._streams.get(name)
        if stream is None:
            type_name, key = parse_stream_id(StreamId(name))
            target = self._targets[shard_of(type_name, key, len(self._targets))]
            stream = self._streams[name] = _Stream(id=len(target.streams) + 1, target=target, name=name)
            target.streams.append(stream)
            target.formats.setdefault(("actor", type_name, 1), target.position)
        return stream

    def take_event(self, event: RecordedEvent) -> None:
        """Raises ValueError and the like if its hash, version or place does not hold."""
        exact, self._exact = self._exact, None
        payload = bytes(event.payload) if exact is None or exact.payload is None else exact.payload
        salt = None if event.salt is None else bytes.fromhex(event.salt)
        erased = exact is not None and exact.payload_digest is not None
        stream = self._stream(event.stream)
        target = stream.target
        if event.version != stream.version + 1:
            raise ValueError(f"version {event.version} of {event.stream} does not follow {stream.version}")
        if erased:
            digest = bytes.fromhex(exact.payload_digest) if exact is not None and exact.payload_digest is not None else b""
        elif salt is None:
            raise ValueError("an event without salt")
        else:
            digest = payload_hash(salt, payload)
        hash_ = chain_hash(
            stream.hash, stream=event.stream, version=event.version, event_id=event.event_id, type=event.type,
            schema_version=event.schema_version, kind=event.kind.value, recorded_at_us=event.recorded_at_us, time=event.time,
            command_id=event.command_id, causation_id=event.causation_id, correlation_id=event.correlation_id, sender=event.sender,
            branch=event.branch, payload_digest=digest,
        )  # fmt: skip
        if hash_.hex() != event.hash:
            raise ValueError(f"the hash of version {event.version} of {event.stream} does not match its content or its predecessor")
        position, epoch = self._place(event, stream)
        check = event_check(
            position, stream.position, epoch, event.duration_us, event.summary, event.error, event.traceparent, event.parent,
            event.code_version, event.key_id, event.state_hash,
        )  # fmt: skip
        target.events.append((
            position, stream.id, stream.position, event.time, event.version, event.event_id, event.type, event.schema_version,
            event.recorded_at_us, event.command_id, event.causation_id, event.correlation_id, event.traceparent, event.sender,
            event.branch, event.parent, event.kind.value, epoch, event.code_version, event.duration_us, event.summary, event.error,
            salt, event.key_id, event.state_hash, bytearray(hash_), check, digest if erased else None, payload.decode(),
        ))  # fmt: skip
        if event.version % STREAM_PAGE_VERSIONS == 0:
            target.pages.append((stream.id, event.version, position))
        target.formats.setdefault(("event", event.type, event.schema_version), position)
        target.rolling = rolling_hash(target.rolling, hash_)
        target.position, target.time, target.epoch = position, event.time, epoch
        stream.version, stream.position, stream.hash, stream.time = event.version, position, hash_, event.time
        if len(target.events) >= _BATCH:
            target.write()

    def _place(self, event: RecordedEvent, stream: _Stream) -> tuple[int, int]:
        target = stream.target
        # Two shards may have given one time to two events (S30). They are of different streams, and neither caused the other.
        if event.time < target.time or event.time <= stream.time:
            raise ValueError(f"its logical time {event.time} does not follow {max(target.time, stream.time)}")
        if not self._keep_places:
            # Epochs are counted per shard: the highest so far, so that they never decrease along the new one.
            return target.position + 1, max(target.epoch, event.owner_epoch)
        if event.shard != target.shard or event.position <= target.position or event.owner_epoch < target.epoch:
            raise ValueError(
                f"{event.shard}:{event.position} of epoch {event.owner_epoch} cannot follow "
                f"{target.shard}:{target.position} of epoch {target.epoch}"
            )
        return event.position, event.owner_epoch

    def take_line(self, line: lines.StreamLine | lines.ExactLine | lines.Row) -> None:
        """Raises ValueError and the like if it cannot be."""
        if self._exact is not None:
            raise ValueError("an event was expected here")
        match line:
            case lines.ExactLine():
                self._exact = line
            case lines.StreamLine():
                self._take_stream(line)
            case lines.InboxLine():
                stream = self._stream(line.stream)
                target = stream.target
                row = InboxRow(id=target.next_inbox, stream_id=stream.id, entry=lines.inbox_entry(line), received_time=line.received_time)
                target.next_inbox += 1
                target.inbox.append(inbox_values(row))
                if len(target.inbox) >= _BATCH:
                    target.write()
            case lines.SentLine() | lines.ReceivedLine():
                is_sent = isinstance(line, lines.SentLine)
                key = (line.sender, line.receiver, line.incarnation)
                target = self._stream(line.sender if is_sent else line.receiver).target
                sql = insert_sql("sent_heads" if is_sent else "received_heads", PAIR_COLUMNS)
                target.connection.execute(sql, (*key, line.n, pair_check(*key, line.n)))
            case lines.OutboxLine():
                target = self._stream(line.sender).target
                insert_rows(target.connection, "outbox", OUTBOX_COLUMNS, [outbox_values(lines.pending_send(line))])
            case lines.KeyLine():
                values = (line.stream, line.key_id, row_check(line.stream, line.key_id))
                self._stream(line.stream).target.connection.execute("INSERT INTO stream_keys VALUES (?, ?, ?)", values)
            case lines.TimerLine():
                self._stream(line.stream).target.connection.execute(UPSERT_TIMER, timer_values(lines.timer_entry(line)))
            case lines.WaitLine():
                self._stream(line.stream).target.connection.execute(UPSERT_WAIT, wait_values(lines.wait_entry(line)))

    def _take_stream(self, line: lines.StreamLine) -> None:
        if line.stream in self._streams or line.status not in _STATUSES or line.base_version < 0:
            raise ValueError(f"{line.stream} was seen before, or cannot be {line.status} from {line.base_version}")
        stream = self._stream(line.stream)
        stream.status = line.status
        if line.base_version:
            stream.base_version, stream.base_hash = line.base_version, bytes.fromhex(line.base_hash or "")
            stream.version, stream.hash = stream.base_version, stream.base_hash

    def finish(self) -> None:
        """Raises ValueError and the like, and SqliteError."""
        if self._exact is not None:
            raise ValueError("the event is missing that the last line is about")
        for target in self._targets:
            target.finish()
