"""Cold start: the first command to an actor that has a past and is not in memory, with the snapshot that it has by then and without one."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from events.clock import SystemClock, SystemEntropy
from events.envelope import NewEvent
from events.errors import InvariantError
from events.ids import CommandId, StreamId, Version
from events.limits import SNAPSHOT_EVENTS
from events.log_directory import create_log
from events.sqlite.sqlite_library import SqliteConnection, open_reader
from events.sqlite.store_sqlite import SqliteShard
from events.store import Append, Snapshot
from ops.bench.limits import Row, create_table, insert
from ops.bench.measure import Case, Cases, Sample, Setting, sample
from ops.examples.bank import Account, Deposited, app
from runtime.local import local_runtime

_PER_VISIT: Final = 10
"""Events of one stream that stand together: an actor is used in bursts, and its past lies all over the file."""
_PAYLOAD: Final = b'{"cents":1}'


@asynccontextmanager
async def cold_cases(setting: Setting) -> AsyncIterator[Cases]:
    """One balance of each cold actor, one after another, on a runtime that has just been opened; beside the same rows read and folded by
    hand. An actor has a snapshot every `SNAPSHOT_EVENTS` events, so its newest is as far behind as chance will have it: here evenly from
    none of these events to nearly all. The other case is what is left if none can be used: the fold of everything."""
    actors, events = setting.scale.cold_actors, setting.scale.cold_events
    await _write_log(setting.folder / "cold", actors, events, snapshots=True)
    await _write_log(setting.folder / "cold-all", actors, events, snapshots=False)
    bare = setting.folder / "cold.sqlite"
    _write_table(bare, actors, events)

    def ours(log: str) -> Case:
        async def run(seconds: float) -> Sample:
            latencies: list[float] = []
            while sum(latencies) < seconds or not latencies:
                async with local_runtime(app, setting.folder / log) as runtime:
                    for number in range(actors):
                        began = time.perf_counter()
                        balance = await runtime.ask(f"account/{number}", "balance")
                        latencies.append(time.perf_counter() - began)
                        _check(balance, events)
            return sample(len(latencies), sum(latencies), latencies)

        return run

    async def limit(seconds: float) -> Sample:
        latencies: list[float] = []
        while sum(latencies) < seconds or not latencies:
            connection = open_reader(bare)
            for number in range(actors):
                began = time.perf_counter()
                state = _fold(connection, f"account/{number}")
                latencies.append(time.perf_counter() - began)
                _check(state.cents, events)
            connection.close()
        return sample(len(latencies), sum(latencies), latencies)

    yield {"sqlite-stream": limit, "cold-start": ours("cold"), "cold-start-all": ours("cold-all")}


def _check(balance: int, events: int) -> None:
    if balance != events:
        raise InvariantError(f"{events:,} deposits of one cent gave a balance of {balance:,}")


def _fold(connection: SqliteConnection, stream: str) -> Account:
    decode, state = msgspec.json.Decoder(Deposited).decode, Account()
    rows = connection.execute("SELECT version, type, payload FROM log WHERE stream = ? ORDER BY version", (stream,)).fetchall()
    for _, _, payload in rows:
        decode(payload).apply(state)
    return state


async def _write_log(directory: Path, actors: int, events: int, *, snapshots: bool) -> None:
    clock, entropy = SystemClock(), SystemEntropy()
    create_log(directory, 1, clock=clock, entropy=entropy)
    store = await SqliteShard.open(directory, 0, clock=clock, entropy=entropy, durability="process")
    one = NewEvent(type="account.deposited", payload=_PAYLOAD)
    try:
        await store.take("bench")
        for version in range(0, events, _PER_VISIT):
            await store.append([
                Append(
                    stream=StreamId(f"account/{number}"), expected_version=Version(version),
                    command_id=CommandId(f"{version:014x}-{number:x}"), events=(one,) * min(_PER_VISIT, events - version),
                    snapshot=_snapshot(number, actors, events) if snapshots and version + _PER_VISIT >= events else None,
                )
                for number in range(actors)
            ])  # fmt: skip
    finally:
        await store.close()


def _snapshot(number: int, actors: int, events: int) -> Snapshot:
    """The newest of account `number`."""
    kind = app.registry.type("account")
    version = events - number * min(SNAPSHOT_EVENTS, events) // actors
    state = kind.encode_state(Account(cents=version))
    return Snapshot(stream=StreamId(f"account/{number}"), version=Version(version), shape=kind.shape, state=state)


def _write_table(path: Path, actors: int, events: int) -> None:
    connection = create_table(path)
    try:
        for first in range(0, events, _PER_VISIT):
            insert(connection, [
                _row(number, version)
                for number in range(actors)
                for version in range(first + 1, min(first + _PER_VISIT, events) + 1)
            ])  # fmt: skip
    finally:
        connection.close()


def _row(number: int, version: int) -> Row:
    return f"account/{number}", version, "account.deposited", 1_700_000_000_000_000 + version, "00000000000000-0123456789abcdef-1", _PAYLOAD
