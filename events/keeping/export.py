"""`cuebook export`: a log as JSON Lines that any language reads and `import` turns back into the same log (FORMAT.md 8, S6). Blocks."""

import hashlib
import heapq
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from events.crash_points import CrashPoint, reached
from events.envelope import GENESIS_HASH, RecordedEvent, payload_hash, row_check
from events.errors import ConfigurationError, CorruptLogError, CuebookError, TransientError, UnknownStreamError
from events.folder_sync import sync_folder
from events.keeping.backup_folder import ShardCut, cut
from events.keeping.export_lines import (
    CHECKED_LINES,
    EXPORT_FORMAT,
    NO_BODY,
    ChecksLine,
    EndLine,
    ExactLine,
    HeaderLine,
    InboxLine,
    KeyLine,
    Line,
    OutboxLine,
    ReceivedLine,
    SentLine,
    StreamLine,
    TimerLine,
    WaitLine,
    encode,
    fits_a_line,
    inbox_line,
    one_line,
    outbox_line,
    timer_line,
    wait_line,
)
from events.keeping.redact import Redactor
from events.sqlite.rows import (
    PAIR_COLUMNS,
    SELECT_EVENTS,
    SELECT_INBOX,
    SELECT_OUTBOX,
    SELECT_TIMERS,
    SELECT_WAITS,
    Row,
    inbox_row,
    outbox_send,
    pair_check,
    stream_check,
    timer_entry,
    verified_event,
    wait_entry,
)
from events.sqlite.schema import has_keys
from events.sqlite.sqlite_library import SqliteError, translated

Say = Callable[[str], None]
_PAGE = 1_000
_SAY_EVERY = 100_000
_SELECT_STREAMS = "SELECT id, name, status, head_version, head_position, head_hash, base_version, base_hash, row_check FROM streams"


class UnknownConversationError(CuebookError):
    """The log has no event and no command of the correlation id that was asked for."""

    code = "unknown_conversation"


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What a bug report takes of a log: every stream that the conversation touched, from its beginning, without which no state can be
    folded, to the conversation's last event in it; and of all other rows only the conversation's own.

    redactor: makes what redacts this part, from its events and its commands.
    """

    correlation_id: str
    redactor: Callable[[Iterable[RecordedEvent], Iterable[InboxLine]], Redactor]


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. exact: all shards as of one instant, see `backup_folder.cut`. redacted: places where a value was taken out.
    others: events of other conversations that came along because they lie before in the same streams."""

    streams: int
    events: int
    lines: int
    bytes: int
    sha256: str
    exact: bool
    redacted: int = 0
    others: int = 0


def export(
    directory: Path, file: Path, streams: Collection[str] = (), say: Say = lambda _: None, conversation: Conversation | None = None
) -> Exported:
    """Write the log in `directory`, or only `streams` of it, or one `conversation`, to `file`, in merged order. The owners of the shards
    go on writing.

    Every event is verified on its way (I-20). `file` appears when it is complete; the same log gives the same bytes.

    Raises:
        ConfigurationError: there is no log, or `file` exists. UnknownStreamError: the log lacks one of `streams`.
        UnknownConversationError: it has nothing of `conversation`. CorruptLogError: a row does not verify. TransientError: the disk is
            full.
    """
    file = file.absolute()
    if file.exists():
        raise ConfigurationError(f"{file} exists. Name another file, or remove it", path=str(file))
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    wanted = frozenset(streams)
    try:
        with cut(directory) as now, partial.open("wb") as out:
            redact: _Redact | None = None
            if conversation is not None:
                first = [_ShardReader(shard, wanted, conversation.correlation_id) for shard in now.shards]
                if not any(reader.names for reader in first):
                    raise UnknownConversationError(f"the log has no conversation {conversation.correlation_id}")
                events = (event for reader in first for event, _ in reader.events())
                commands = (line for reader in first for line in reader.rows() if isinstance(line, InboxLine))
                redact = _Redact(conversation.redactor(events, commands))
            correlation_id = None if conversation is None else conversation.correlation_id
            readers = [_ShardReader(shard, wanted, correlation_id) for shard in now.shards]
            missing = sorted(wanted.difference(*(reader.names.values() for reader in readers)))
            if missing:
                raise UnknownStreamError(f"the log has no stream {missing[0]}", stream=missing[0])
            writer = _Writer(out, say)
            writer.put(
                HeaderLine(
                    format=EXPORT_FORMAT, incarnation=now.identity.incarnation, shards=now.identity.shards,
                    created=now.identity.created, streams=sorted(wanted) or None, conversation=correlation_id,
                )
            )  # fmt: skip
            for special in sorted((line for reader in readers for line in reader.special), key=lambda line: line.stream):
                writer.put(special)
            others = 0
            for event, exact in heapq.merge(*(reader.events() for reader in readers), key=_order):
                others += correlation_id is not None and event.correlation_id != correlation_id
                event, exact = (event, exact) if redact is None else redact.event(event, exact)
                if exact is not None:
                    writer.put(exact)
                writer.put_event(event)
            for reader in readers:
                for line in reader.rows():
                    writer.put(line if redact is None else redact.row(line))
            end = writer.finish()
            exported = Exported(
                streams=sum(len(reader.heads) for reader in readers), events=end.events, lines=end.lines + 1, bytes=out.tell(),
                sha256=end.sha256, exact=now.exact, others=others, redacted=0 if redact is None else redact.count,
            )  # fmt: skip
            os.fsync(out.fileno())
        reached(CrashPoint.EXPORT_WRITTEN)
        # Not `rename`, which would replace a file that came meanwhile.
        os.link(partial, file)
    except FileExistsError as error:
        raise ConfigurationError(f"{file} exists. Name another file, or remove it", path=str(file)) from error
    except OSError as error:
        raise TransientError(f"{file} cannot be written: {error.strerror}", path=str(file)) from error
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(file.parent)
    return exported


def _order(item: tuple[RecordedEvent, ExactLine | None]) -> tuple[int, int, int]:
    event = item[0]
    return event.time, event.shard, event.position


class _Writer:
    def __init__(self, out: BinaryIO, say: Say) -> None:
        self._out = out
        self._say = say
        self._sha = hashlib.sha256()
        self._checks: list[int] = []
        self._lines = 0
        self._events = 0

    def _write(self, line: bytes) -> None:
        self._out.write(line + b"\n")
        self._sha.update(line + b"\n")
        self._lines += 1

    def put(self, line: Line | RecordedEvent) -> None:
        encoded = encode(line)
        self._write(encoded)
        self._checks.append(zlib.crc32(encoded))
        if len(self._checks) == CHECKED_LINES:
            self._put_checks()

    def put_event(self, event: RecordedEvent) -> None:
        self.put(event)
        self._events += 1
        if self._events % _SAY_EVERY == 0:
            self._say(f"{self._events:,} events")

    def _put_checks(self) -> None:
        self._write(encode(ChecksLine(crc=self._checks)))
        self._checks = []

    def finish(self) -> EndLine:
        if self._checks:
            self._put_checks()
        end = EndLine(events=self._events, lines=self._lines, sha256=self._sha.hexdigest())
        self._write(encode(end))
        self._out.flush()
        return end


class _ShardReader:
    """One shard of a cut, in the order of the export. names: the streams of the shard that are wanted, by id."""

    def __init__(self, shard: ShardCut, wanted: Collection[str], correlation_id: str | None = None) -> None:
        self._shard = shard
        self._correlation_id = correlation_id
        self._commands: set[str] = set()
        self._upto = {} if correlation_id is None else self._touched(correlation_id)
        self.names: dict[int, str] = {}
        self.special: list[StreamLine] = []
        self.heads: dict[int, bytes] = {}
        self._versions: dict[int, int] = {}
        self._all = not wanted and correlation_id is None
        cursor = self._rows(_SELECT_STREAMS)
        for stream_id, name, status, version, position, hash_, base_version, base_hash, check in cursor:
            if stream_check(stream_id, name, status, version, position, hash_, base_version, base_hash) != check:
                raise CorruptLogError(f"the row of {name} in table streams is damaged. Run: cuebook verify", table="streams", stream=name)
            if (wanted and name not in wanted) or (correlation_id is not None and stream_id not in self._upto):
                continue
            self.names[stream_id] = name
            if status != "live" or base_version:
                base = None if base_hash is None else base_hash.hex()
                self.special.append(StreamLine(stream=name, status=status, base_version=base_version, base_hash=base))
            if base_version:
                self.heads[stream_id], self._versions[stream_id] = base_hash, base_version

    def _touched(self, correlation_id: str) -> dict[int, int]:
        """The streams of the conversation, by id, with the last version that belongs to it; 0 where it has only sent a command there."""
        sql = "SELECT stream_id, max(version) FROM events WHERE correlation_id = ? GROUP BY stream_id"
        found = dict.fromkeys((row[0] for row in self._rows("SELECT stream_id FROM inbox WHERE correlation_id = ?", (correlation_id,))), 0)
        return found | {row[0]: row[1] for row in self._rows(sql, (correlation_id,))}

    def _rows(self, sql: str, parameters: tuple[int | str, ...] = ()) -> Iterator[Row]:
        try:
            cursor = self._shard.connection.execute(sql, parameters)
            while rows := cursor.fetchmany(_PAGE):
                yield from rows
        except SqliteError as error:
            raise translated(error, self._shard.path) from error

    def events(self) -> Iterator[tuple[RecordedEvent, ExactLine | None]]:
        # A left join, so that an event of a lost stream row is found and not skipped.
        sql = SELECT_EVENTS.replace(" JOIN ", " LEFT JOIN ") + " ORDER BY e.position"
        for row in self._rows(sql):
            stream_id = row[1]
            if not self._all and stream_id not in self.names:
                continue
            if self._correlation_id is not None and row[4] > self._upto[stream_id]:
                continue
            event = verified_event(self._shard.shard, row, self.heads.get(stream_id, GENESIS_HASH))
            if event.version != self._versions.get(stream_id, 0) + 1:
                raise CorruptLogError(
                    f"event {event.shard}:{event.position} is version {event.version} of {event.stream}, which does not follow the one "
                    "before. Run: cuebook verify",
                    shard=event.shard, position=event.position, stream=event.stream, version=event.version,
                )  # fmt: skip
            self.heads[stream_id], self._versions[stream_id] = row[25], event.version
            if event.correlation_id == self._correlation_id and event.command_id is not None:
                self._commands.add(event.command_id)
            yield _exported(event, row)

    def rows(self) -> Iterator[Line]:
        """What else decides an answer: of the wanted streams, in an order that depends on nothing but the rows."""
        if self._correlation_id is not None:
            yield from self._own_rows(self._correlation_id)
            return
        names, number, every = set(self.names.values()), self._shard.shard, self._all
        for row in self._rows(f"{SELECT_INBOX} ORDER BY i.id"):
            command = inbox_row(number, row)
            if every or command.entry.stream in names:
                yield inbox_line(command)
        yield from self._pairs("sent_heads", 0, SentLine)
        yield from self._pairs("received_heads", 1, ReceivedLine)
        for row in self._rows(f"{SELECT_OUTBOX} ORDER BY sender, receiver, incarnation, n"):
            send = outbox_send(number, row)
            if every or send.sender in names:
                yield outbox_line(send)
        for row in self._rows(f"{SELECT_TIMERS} ORDER BY stream, timer_id"):
            timer = timer_entry(number, row)
            if every or timer.stream in names:
                yield timer_line(timer)
        for row in self._rows(f"{SELECT_WAITS} ORDER BY stream, wait_id"):
            wait = wait_entry(number, row)
            if every or wait.stream in names:
                yield wait_line(wait)
        yield from self._keys()

    def _own_rows(self, correlation_id: str) -> Iterator[Line]:
        """The rows of one conversation. How far pairs of actors have counted (S25) is no part of it."""
        number = self._shard.shard
        for row in self._rows(f"{SELECT_INBOX} WHERE i.correlation_id = ? ORDER BY i.id", (correlation_id,)):
            yield inbox_line(inbox_row(number, row))
        for row in self._rows(f"{SELECT_OUTBOX} WHERE correlation_id = ? ORDER BY sender, receiver, incarnation, n", (correlation_id,)):
            yield outbox_line(outbox_send(number, row))
        for row in self._rows(f"{SELECT_TIMERS} WHERE correlation_id = ? ORDER BY stream, timer_id", (correlation_id,)):
            yield timer_line(timer_entry(number, row))
        for row in self._rows(f"{SELECT_WAITS} ORDER BY stream, wait_id"):
            if (wait := wait_entry(number, row)).command_id in self._commands:
                yield wait_line(wait)
        yield from self._keys()

    def _keys(self) -> Iterator[Line]:
        """Which key a sealed stream is under (S29); the keys themselves are never in a log."""
        if not has_keys(self._shard.connection):
            return
        names = set(self.names.values())
        for stream, key_id, check in self._rows("SELECT stream, key_id, row_check FROM stream_keys ORDER BY stream, key_id"):
            if row_check(stream, key_id) != check:
                raise CorruptLogError(f"a row of table stream_keys for {stream} is damaged. Run: cuebook verify", stream=stream)
            if self._all or stream in names:
                yield KeyLine(stream=stream, key_id=key_id)

    def _pairs(self, table: str, owner: int, kind: type[SentLine] | type[ReceivedLine]) -> Iterable[Line]:
        names = set(self.names.values())
        for row in self._rows(f"SELECT {', '.join(PAIR_COLUMNS)} FROM {table} ORDER BY sender, receiver, incarnation"):
            if pair_check(*row[:4]) != row[4]:
                raise CorruptLogError(f"the row of table {table} for {row[0]} -> {row[1]} is damaged. Run: cuebook verify", table=table)
            if self._all or row[owner] in names:
                yield kind(sender=row[0], receiver=row[1], incarnation=row[2], n=row[3])


class _Redact:
    """Takes out of lines what a `Redactor` finds. The chain still verifies: of a redacted event it holds the digest, as of an erased one,
    and the salt goes, so that nobody can try values against it."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._changed: set[str] = set()

    @property
    def count(self) -> int:
        return self._redactor.count

    def event(self, event: RecordedEvent, exact: ExactLine | None) -> tuple[RecordedEvent, ExactLine | None]:
        if event.key_id is not None:
            return event, exact  # a ciphertext says nothing, and would not open once changed
        stored = bytes(event.payload) if exact is None or exact.payload is None else exact.payload
        payload = self._redactor.body(stored)
        if payload != stored:
            self._changed.add(event.stream)
            if exact is None or exact.payload_digest is None:
                digest = payload_hash(bytes.fromhex(event.salt or ""), stored).hex()
                exact = ExactLine(payload_digest=digest, payload=None)
            else:
                exact = msgspec.structs.replace(exact, payload=None)
            event = msgspec.structs.replace(event, payload=msgspec.Raw(payload), salt=None)
        return msgspec.structs.replace(
            event,
            summary=None if event.summary is None else self._redactor.text(event.summary),
            error=None if event.error is None else self._redactor.text(event.error),
            # What is folded from redacted payloads has another hash.
            state_hash=None if event.stream in self._changed else event.state_hash,
        ), exact

    def row(self, line: Line) -> Line:
        match line:
            case InboxLine():
                return msgspec.structs.replace(line, args=self._body(line.args), reply=self._body(line.reply))
            case OutboxLine() | TimerLine():
                return msgspec.structs.replace(line, args=self._body(line.args))
            case WaitLine():
                return msgspec.structs.replace(line, schema=self._body(line.schema))
            case _:
                return line

    def _body(self, body: msgspec.Raw) -> msgspec.Raw:
        return NO_BODY if not bytes(body) else msgspec.Raw(self._redactor.body(bytes(body)))


def _exported(event: RecordedEvent, row: Row) -> tuple[RecordedEvent, ExactLine | None]:
    payload: bytes = row[28]
    digest: bytes | None = row[27]
    if digest is None and fits_a_line(payload):
        return event, None
    line = ExactLine(payload_digest=None if digest is None else digest.hex(), payload=None if fits_a_line(payload) else payload)
    return msgspec.structs.replace(event, payload=one_line(payload, f"event {event.shard}:{event.position}")), line
