"""The raw limits of a disk and of SQLite on it: the same library and settings as the log, a plain table, no code of ours around it."""

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from events.sqlite.sqlite_library import SqliteConnection, open_writer
from ops.bench.case_names import SQLITE_1, SQLITE_100
from ops.bench.measure import Case, Sample, sample

STREAMS: Final = 1_000
_TABLE: Final = """CREATE TABLE log (
    position INTEGER PRIMARY KEY, stream TEXT NOT NULL, version INTEGER NOT NULL, type TEXT NOT NULL, recorded_at_us INTEGER NOT NULL,
    command_id TEXT NOT NULL, payload BLOB NOT NULL, UNIQUE (stream, version))"""
_INSERT: Final = "INSERT INTO log (stream, version, type, recorded_at_us, command_id, payload) VALUES (?, ?, ?, ?, ?, ?)"
_PAYLOAD: Final = b'{"cents":500,"note":"' + b"x" * 140 + b'"}'
"""With its metadata a row of 240 bytes, as in facts/limits.md 2."""

Row = tuple[str, int, str, int, str, bytes]


def create_table(path: Path) -> SqliteConnection:
    """A new file with the plain table, open for writing with synchronous=FULL."""
    connection = open_writer(path, "disk", create=True)
    connection.execute(_TABLE)
    return connection


def insert(connection: SqliteConnection, rows: list[Row]) -> None:
    """One transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, rows)
    connection.execute("COMMIT")


def plain_rows(payload: bytes = _PAYLOAD) -> Iterator[Row]:
    """Rows for ever, of all streams in turn."""
    names = [f"account/{number}" for number in range(STREAMS)]
    version = 0
    while True:
        version += 1
        for name in names:
            yield name, version, "account.deposited", 1_700_000_000_000_000 + version, "00000000000000-0123456789abcdef-1", payload


def sqlite_cases(folder: Path) -> dict[str, Case]:
    """Appends without anything else: one event, and a hundred, per commit."""
    return {SQLITE_1: _appends(folder, 1), SQLITE_100: _appends(folder, 100)}


def _appends(folder: Path, batch: int) -> Case:
    async def run(seconds: float) -> Sample:
        # A new file each time, which favours the limit: ours grows from round to round.
        path = folder / f"bare-{batch}.sqlite"
        rows = plain_rows()
        connection = create_table(path)
        try:
            count = 0
            start = now = time.perf_counter()
            while now - start < seconds or not count:
                insert(connection, [next(rows) for _ in range(batch)])
                count += batch
                now = time.perf_counter()
        finally:
            connection.close()
            path.unlink()
        return sample(count, now - start)

    return run


def fsync_us(folder: Path, tries: int = 50) -> float:
    """How long the disk under `folder` takes to make 4 KiB at the end of a file durable: the median, in microseconds."""
    path = folder / "fsync"
    took: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(tries):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(took) * 1e6
