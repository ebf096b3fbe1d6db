"""Replay: the whole log of a shard folded to the state of every actor in it."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from events.clock import SystemClock, SystemEntropy
from events.errors import InvariantError
from events.log_directory import create_log
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.sqlite_library import open_reader
from events.sqlite.store_sqlite import SqliteShard
from ops.bench.case_names import SQLITE_REPLAY
from ops.bench.in_process import append_group
from ops.bench.limits import STREAMS, create_table, insert, plain_rows
from ops.bench.measure import Cases, Sample, Setting, sample
from ops.examples.bank import Account, Deposited, app
from runtime.past.replay import fold_shard

_PAYLOAD: Final = b'{"cents":1}'
_BATCH: Final = 1_000
_FETCH: Final = 10_000


@asynccontextmanager
async def replay_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Replay of one log, as often as it takes to fill the time; the log is longer where there is more time."""
    folder = setting.folder
    events = max(STREAMS, int(min(setting.seconds, 4.0) * setting.scale.replay_events_per_s) // _BATCH * _BATCH)
    await _write_log(folder / "replay", events)
    bare = folder / "bare-replay.sqlite"
    _write_table(bare, events)
    reader = await SqliteLogReader.open(folder / "replay")
    try:

        async def ours(seconds: float) -> Sample:
            count = 0
            start = now = time.perf_counter()
            while now - start < seconds or not count:
                _check(await fold_shard(reader, app.registry, 0), events)
                count += events
                now = time.perf_counter()
            return sample(count, now - start)

        async def limit(seconds: float) -> Sample:
            count = 0
            start = now = time.perf_counter()
            while now - start < seconds or not count:
                _check(_fold_table(bare), events)
                count += events
                now = time.perf_counter()
            return sample(count, now - start)

        yield {SQLITE_REPLAY: limit, "replay": ours}
    finally:
        await reader.close()


def _fold_table(path: Path) -> dict[str, Account]:
    connection = open_reader(path)
    decode = msgspec.json.Decoder(Deposited).decode
    states: dict[str, Account] = {}
    try:
        cursor = connection.execute("SELECT position, stream, version, type, payload FROM log ORDER BY position")
        while rows := cursor.fetchmany(_FETCH):
            for _, stream, _, _, payload in rows:
                state = states.get(stream)
                if state is None:
                    state = states[stream] = Account()
                decode(payload).apply(state)
    finally:
        connection.close()
    return states


def _check(states: Mapping[Any, Account], events: int) -> None:
    found = sum(state.cents for state in states.values())
    if found != events or len(states) != STREAMS:
        raise InvariantError(f"a replay of {events:,} events of {STREAMS:,} accounts gave {found:,} of {len(states):,}")


async def _write_log(directory: Path, events: int) -> None:
    clock, entropy = SystemClock(), SystemEntropy()
    create_log(directory, 1, clock=clock, entropy=entropy)
    store = await SqliteShard.open(directory, 0, clock=clock, entropy=entropy)
    try:
        await store.take("bench")
        for first in range(0, events, _BATCH):
            await store.append([append_group(n % STREAMS, n // STREAMS, _PAYLOAD) for n in range(first, first + _BATCH)])
    finally:
        await store.close()


def _write_table(path: Path, events: int) -> None:
    connection = create_table(path)
    rows = plain_rows(_PAYLOAD)
    try:
        for _ in range(0, events, _BATCH):
            insert(connection, [next(rows) for _ in range(_BATCH)])
    finally:
        connection.close()
