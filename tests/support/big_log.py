"""A big log for measurements: many streams, many conversations, written through the store as a worker would.

    python -m tests.support.big_log FOLDER [EVENTS] [STREAMS]

makes a data folder with 1,000,000 events in 20,000 streams, whose app is `tests.support.big_log:app`. Same arguments, same log.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors import Actor, Event, State, command
from events.envelope import Kind, NewEvent
from events.ids import CommandId, StreamId, Version, parse_stream_id, shard_of
from events.log_directory import create_log
from events.sqlite.store_sqlite import SqliteShard
from events.store import Append, Committed
from ops.settings import name_app
from runtime.app import App
from tests.support.logs import START_US, ManualClock, SeededEntropy

BATCH = 500
TURNS_PER_CONVERSATION = 8
WORDS = ("plan", "read", "judge", "write", "test", "ask", "answer", "fix", "merge", "wait")


class Desk(State):
    notes: int = 0
    last: str = ""
    by_word: dict[str, int] = {}


class Noted(Event[Desk], tag="desk.noted"):
    word: str
    text: str

    def apply(self, state: Desk) -> None:
        state.notes += 1
        state.last = self.word
        state.by_word[self.word] = state.by_word.get(self.word, 0) + 1


class DeskActor(Actor[Desk], name="desk"):
    @command
    async def note(self, word: str, text: str) -> int:
        self.emit(Noted(word=word, text=text))
        return self.state.notes


app = App(actors=[DeskActor])


def conversation(
    number: int, streams: int, draw: random.Random
) -> Iterator[tuple[StreamId, str, str | None, StreamId | None, list[NewEvent]]]:
    """(stream, command id, cause, sender, events) of each turn of one conversation: one actor after the other, each sending to the next."""
    cause: str | None = None
    sender: StreamId | None = None
    for turn in range(TURNS_PER_CONVERSATION):
        stream, command_id = StreamId(f"desk/d{draw.randrange(streams):05}"), f"c{number}-{turn}"
        word = WORDS[draw.randrange(len(WORDS))]
        noted = NewEvent(type="desk.noted", payload=msgspec.json.encode({"word": word, "text": f"{word} {number} " * 12}))
        if draw.randrange(200) == 0:
            failed = {"method": "note", "type": "ValueError", "message": f"{word} went wrong"}
            yield (
                stream,
                command_id,
                cause,
                sender,
                [NewEvent(type="turn.failed", kind=Kind.CONTROL, error="ValueError", payload=msgspec.json.encode(failed))],
            )
        else:
            sent = {"receiver": "desk/next", "method": "note", "command_id": f"c{number}-{turn + 1}", "arguments": {"word": word}}
            yield (
                stream,
                command_id,
                cause,
                sender,
                [noted, NewEvent(type="message.sent", kind=Kind.MESSAGE, payload=msgspec.json.encode(sent))],
            )
        cause, sender = command_id, stream


async def make(data: Path, events: int = 1_000_000, streams: int = 20_000, *, seed: int = 0, shards: int = 4) -> int:
    """Write the log into `data`/log; returns how many events it has, at least `events`."""
    clock, entropy, draw = ManualClock(START_US), SeededEntropy(seed), random.Random(seed)
    create_log(data / "log", shards, clock=clock, entropy=entropy)
    name_app(data, "tests.support.big_log:app")
    stores = [await SqliteShard.open(data / "log", shard, durability="process", clock=clock, entropy=entropy) for shard in range(shards)]
    try:
        for store in stores:
            await store.take("big-log")
        versions: dict[StreamId, int] = {}
        waiting: list[list[Append]] = [[] for _ in range(shards)]
        done = number = 0
        while done < events:
            for stream, command_id, cause, sender, found in conversation(number, streams, draw):
                shard = shard_of(*parse_stream_id(stream), shards)
                version = versions.get(stream, 0)
                waiting[shard].append(
                    Append(
                        stream=stream, expected_version=Version(version), command_id=CommandId(command_id), events=found,
                        causation_id=cause or command_id, correlation_id=f"c{number}-0", sender=sender,
                    )
                )  # fmt: skip
                versions[stream] = version + len(found)
                done += len(found)
                clock.advance(0.001)
                if len(waiting[shard]) >= BATCH:
                    await _flush(stores[shard], waiting[shard])
            number += 1
        for store, groups in zip(stores, waiting, strict=True):
            await _flush(store, groups)
        return done
    finally:
        for store in stores:
            await store.close()


async def _flush(store: SqliteShard, groups: list[Append]) -> None:
    outcomes = await store.append(groups)
    wrong = [outcome for outcome in outcomes if not isinstance(outcome, Committed)]
    if wrong:
        raise RuntimeError(f"not committed: {wrong[0]}")
    groups.clear()


if __name__ == "__main__":
    began = time.monotonic()
    count = asyncio.run(make(Path(sys.argv[1]), *map(int, sys.argv[2:4])))
    print(f"{count:,} events in {time.monotonic() - began:.0f} s")
