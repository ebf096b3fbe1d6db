"""An independent judge of a bank's log: reads the SQLite files itself and shares no code with Cuebook.

What it knows is written down elsewhere: the tables of FORMAT.md, the hash of S27, the shard function of S8, the inbox of S24. It compares
the log with a ledger that the caller kept: what was asked, and what was answered.
"""

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One command with an id, and its only answer: the balance, or None if it was refused."""

    stream: str
    command_id: str
    method: str
    cents: int
    balance: int | None


class Stored(NamedTuple):
    """One row of `events`, with the name of its stream."""

    shard: int
    position: int
    prev_position: int
    stream: str
    version: int
    time: int
    event_id: str
    tag: str
    kind: str
    command_id: str | None
    sender: str | None
    epoch: int
    payload: dict[str, Any]
    hash: bytes


def fnv1a(text: str) -> int:
    digest = 2166136261
    for byte in text.encode():
        digest = (digest ^ byte) * 16777619 % 2**32
    return digest


class Checker:
    """`problems` says all that is wrong; empty = nothing lost, doubled or out of order."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self.events: list[Stored] = []
        self.inbox: list[tuple[str, str, str, str, int | None, bytes | None]] = []
        """(stream, command id, method, status, code, reply)"""
        self.unsent = 0
        described = json.loads((folder / "log.json").read_text())
        self._shards: int = described["shards"]
        for shard in range(self._shards):
            path = folder / f"shard-{shard}.db"
            if not path.exists():
                self._wrong(f"{path.name} is missing")
                continue
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                self._read_shard(connection, shard, described["incarnation"])
        doubled = [name for name, times in Counter(event.event_id for event in self.events).items() if times > 1]
        if doubled:
            self._wrong(f"event ids stand twice: {doubled[:3]}")
        self._check_pairs()

    def _wrong(self, text: str) -> None:
        self.problems.append(text)

    # -- one shard file -----------------------------------------------------------------------------------------------------------

    def _read_shard(self, connection: sqlite3.Connection, shard: int, incarnation: str) -> None:
        if connection.execute("SELECT incarnation, shard, shards FROM identity").fetchall() != [(incarnation, shard, self._shards)]:
            self._wrong(f"shard {shard}: the file belongs elsewhere")
        names: dict[int, str] = dict(connection.execute("SELECT id, name FROM streams"))
        for name in names.values():
            if fnv1a(name.replace("/", "", 1)) % self._shards != shard:
                self._wrong(f"{name} does not belong to shard {shard}")
        self._read_events(connection, shard, names)
        for stream, command_id, method, status, code, reply in connection.execute(
            "SELECT stream_id, command_id, method, status, code, reply FROM inbox ORDER BY id"
        ):
            self.inbox.append((names.get(stream, f"?{stream}"), command_id, method, status, code, reply))
        self.unsent += connection.execute("SELECT count(*) FROM outbox").fetchone()[0]

    def _read_events(self, connection: sqlite3.Connection, shard: int, names: Mapping[int, str]) -> None:
        flushed = dict(connection.execute("SELECT position, rolling_hash FROM heads"))
        (owner_epoch,) = connection.execute("SELECT epoch FROM owner").fetchone()
        rolling, last_position, last_time, last_epoch = bytes(32), 0, 0, 0
        heads: dict[int, tuple[int, int, bytes]] = defaultdict(lambda: (0, 0, bytes(32)))
        columns = (
            "position, prev_position, stream_id, version, time, event_id, type, schema_version, kind, recorded_at_us, command_id, "
            "causation_id, correlation_id, sender, branch, salt, CAST(payload AS BLOB), hash, owner_epoch"
        )
        for row in connection.execute(f"SELECT {columns} FROM events ORDER BY position"):
            position, previous, stream_id, version, time, event_id, tag, schema, kind, at_us, command_id = row[:11]
            causation_id, correlation_id, sender, branch, salt, payload, digest, epoch = row[11:]
            stream = names.get(stream_id, f"?{stream_id}")
            where = f"{stream} version {version} at {shard}:{position}"
            if position != last_position + 1:
                self._wrong(f"{where}: position {last_position + 1} is not there")
            if time <= last_time:
                self._wrong(f"{where}: its logical time does not follow the one before")
            if not last_epoch <= epoch <= owner_epoch:
                self._wrong(f"{where}: written in epoch {epoch} after {last_epoch}, the file is at {owner_epoch}")
            head_version, head_position, head_hash = heads[stream_id]
            if version != head_version + 1:
                self._wrong(f"{where}: follows version {head_version}")
            if previous != head_position:
                self._wrong(f"{where}: says it follows position {previous}, but that is {head_position}")
            fields = [
                stream, version, event_id, tag, schema, kind, at_us, time, command_id, causation_id, correlation_id, sender, branch,
                hashlib.sha256(salt + payload).hexdigest(),
            ]  # fmt: skip
            text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
            if hashlib.sha256(head_hash + text).digest() != digest:
                self._wrong(f"{where}: its hash is not that of its content after version {head_version}")
            rolling = hashlib.sha256(rolling + digest).digest()
            if flushed.get(position, rolling) != rolling:
                self._wrong(f"shard {shard}: the rolling hash of position {position} is another")
            heads[stream_id] = (version, position, digest)
            last_position, last_time, last_epoch = position, time, epoch
            self.events.append(
                Stored(
                    shard,
                    position,
                    previous,
                    stream,
                    version,
                    time,
                    event_id,
                    tag,
                    kind,
                    command_id,
                    sender,
                    epoch,
                    json.loads(payload),
                    digest,
                )
            )
        if max(flushed, default=0) > last_position:
            self._wrong(f"shard {shard} ends at {last_position}, but {max(flushed)} was written once")

    # -- inbox and outbox against events ------------------------------------------------------------------------------------------

    def _check_pairs(self) -> None:
        rows = Counter((stream, command_id) for stream, command_id, *_ in self.inbox)
        for (stream, command_id), times in rows.items():
            if times > 1:
                self._wrong(f"{stream}: {times} inbox rows of {command_id}")
        groups: dict[tuple[str, str], list[Stored]] = defaultdict(list)
        for event in self.events:
            if event.command_id is not None:
                groups[event.stream, event.command_id].append(event)
        for (stream, command_id), group in groups.items():
            versions = [event.version for event in group]
            if versions != list(range(versions[0], versions[0] + len(versions))):
                self._wrong(f"{stream}: the events of {command_id} are apart: versions {versions}")
            if (effects := sum(event.kind == "state" for event in group)) > 1:
                self._wrong(f"{stream}: {command_id} took effect {effects} times")
        for stream, command_id, method, status, code, _ in self.inbox:
            if status == "done" and code is None and method != "balance" and (stream, command_id) not in groups:
                self._wrong(f"{stream}: {command_id} ({method}) is done in the inbox, but left no event")
            if status in ("queued", "running"):
                self._wrong(f"{stream}: {command_id} ({method}) is still {status}")
        if self.unsent:
            self._wrong(f"{self.unsent} sends were never acknowledged")

    # -- the bank -----------------------------------------------------------------------------------------------------------------

    def balances(self) -> dict[tuple[str, str], int]:
        """The balance after each (stream, command id); of a stream in all under the empty id."""
        after: dict[tuple[str, str], int] = {}
        for event in sorted(self.events, key=lambda each: (each.stream, each.version)):
            if event.kind != "state":
                continue
            cents = event.payload["cents"] * (1 if event.tag == "account.deposited" else -1)
            total = after.get((event.stream, ""), 0) + cents
            if total < 0:
                self._wrong(f"{event.stream} is overdrawn at version {event.version}")
            after[event.stream, ""] = total
            if event.command_id is not None:
                after[event.stream, event.command_id] = total
        return after

    def compare(self, ledger: Iterable[Asked], *, complete: bool = True) -> None:
        """What was asked and answered against what is recorded. complete: nothing else was ever asked of this log."""
        after = self.balances()
        effects = {(event.stream, event.command_id): event for event in self.events if event.kind == "state"}
        rows = {(stream, command_id): (method, status, code, reply) for stream, command_id, method, status, code, reply in self.inbox}
        seen: set[tuple[str, str]] = set()
        for asked in ledger:
            key = (asked.stream, asked.command_id)
            seen.add(key)
            event = effects.get(key)
            if asked.balance is None:
                if event is not None:
                    self._wrong(f"{asked.stream}: {asked.command_id} was refused, but is in the log")
                continue
            if event is None:
                self._wrong(f"{asked.stream}: {asked.command_id} was answered, but is lost")
                continue
            tag = "account.withdrawn" if asked.method in ("withdraw", "transfer") else "account.deposited"
            if (event.tag, event.payload["cents"]) != (tag, asked.cents):
                self._wrong(
                    f"{asked.stream}: {asked.command_id} asked to {asked.method} {asked.cents}, recorded is {event.tag} {event.payload}"
                )
            if after[key] != asked.balance:
                self._wrong(f"{asked.stream}: {asked.command_id} was answered {asked.balance}, the log says {after[key]}")
            row = rows.get(key)
            if row is None or row[:3] != (asked.method, "done", None) or json.loads(row[3] or b"null") != asked.balance:
                self._wrong(f"{asked.stream}: the inbox says {row} of {asked.command_id}, answered was {asked.balance}")
        if complete:
            for stream, command_id in effects.keys() - seen:
                self._wrong(f"{stream}: nobody asked for {command_id}")


def unsent(folder: Path) -> int:
    """Sends that no receiver has acknowledged yet; the log may be in use."""
    total = 0
    for path in folder.glob("shard-*.db"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            total += connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
    return total


def check(folder: Path, ledger: Iterable[Asked] = (), *, complete: bool = True) -> list[str]:
    """All that is wrong with the log in `folder`, which nobody may be writing."""
    checker = Checker(folder)
    checker.compare(ledger, complete=complete)
    return checker.problems
