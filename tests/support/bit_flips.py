"""Single bits flipped anywhere in the files of a deployment, and what is served afterwards.

The image is what a killed process leaves: shard files that are partly checkpointed, with their write-ahead log and its index, anchors,
locks, ``log.json`` and the deployment's settings. After a flip everything that an owner, a reader or a program that starts would answer is
asked and compared with the answers of the image.
"""

import asyncio
import random
import shutil
from collections import Counter
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from actors.errors import ActorError
from events.errors import CuebookError
from events.ids import CommandId, StreamId, parse_stream_id, shard_of
from events.keeping.verify import verify
from events.log_directory import read_identity, shard_path
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.sqlite_library import library as sqlite
from events.sqlite.store_sqlite import SqliteShard
from ops.examples.bank import AccountActor, app
from ops.exits import CommandError
from ops.settings import load_settings, name_app
from ops.worker import load_app
from runtime.local import local_runtime
from runtime.ownership.lease import Lease, own_record
from runtime.turns.recovery import recover

SHARDS = 2
ACCOUNTS = [f"a{number}" for number in range(12)]
SERVED_BY = "ops.examples.bank:app"


class Outcome(StrEnum):
    """What a flip led to, from the best."""

    IDENTICAL = "identical answers, nothing to name"
    NAMED = "identical answers, and `verify` names the damage"
    ROW = "the damaged row named where it is needed, all else identical"
    SHARD = "only that shard refused, file and reason named"
    START = "the program refuses to start and names the file"
    WRONG = "WRONG"


class Flip(NamedTuple):
    """One bit of one file."""

    name: str
    offset: int
    bit: int


class Verdict(NamedTuple):
    """What became of a flip. details: the words in which the damage is named, or what is wrong."""

    outcome: Outcome
    details: list[str]


Answers = dict[str, Any]
"""What was asked to what was answered; a refusal is a `Refused`."""


class Refused(NamedTuple):
    """An answer that says what is damaged."""

    error: str
    message: str
    named: bool


async def make_image(folder: Path, *, killed: bool) -> None:
    """A deployment under `folder`, as a kill leaves it, or as an orderly end does: everything in the main files."""
    live = folder.parent / f"{folder.name}-live"
    log = live / "log"
    async with local_runtime(app, log, shards=SHARDS) as runtime:
        for number in range(240):
            account = ACCOUNTS[number % len(ACCOUNTS)]
            await runtime.ask(f"account/{account}", "deposit", cents=number + 1, command_id=f"d{number}")
            if number % 5 == 0:
                other = ACCOUNTS[(number + 7) % len(ACCOUNTS)]
                await runtime.ask(f"account/{account}", "transfer", cents=1, to=other, command_id=f"t{number}")
            if number == 120:
                for shard in range(SHARDS):
                    with closing(sqlite.connect(shard_path(log, shard))) as connection:
                        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        name_app(live, SERVED_BY)
        if killed:
            # Nothing is written now, so the copy is what a kill would leave.
            shutil.copytree(live, folder)
    if not killed:
        shutil.copytree(live, folder)
    for shard in range(SHARDS):
        lease = Lease.try_acquire(log / f"shard-{shard}.lock", own_record("worker-1", "shard"))
        assert lease is not None
        shutil.copy(log / f"shard-{shard}.lock", folder / "log")
        lease.release()


def flips(image: Path, count: int, seed: int) -> list[Flip]:
    """`count` flips: every file gets its turn, the large ones more often."""
    # Not a secret, and not the state of anybody else.
    chosen = random.Random(seed)
    files = sorted(path.relative_to(image) for path in image.rglob("*") if path.is_file() and path.stat().st_size)
    weights = [1 + min((image / name).stat().st_size / 20_000, 10) for name in files]
    picked = [*files, *chosen.choices(files, weights, k=count)][:count]
    return [Flip(str(name), chosen.randrange((image / name).stat().st_size), chosen.randrange(8)) for name in picked]


async def answers(data: Path) -> Answers:
    """Everything that a program on these files would answer."""
    found: Answers = {}
    log = data / "log"

    async def note(what: str, asking: Any) -> Any:
        try:
            found[what] = await asking
        except (CuebookError, ActorError) as error:
            found[what] = _refused(error, error.message)
        except CommandError as error:
            found[what] = _refused(error, f"{error.what}; {error.why}")
        return found[what]

    async def identity() -> int:
        # Its incarnation answers nobody: where it differs from that of the shard files they are refused.
        return read_identity(log).shards

    async def start() -> str | None:
        settings = load_settings({"data": data}).settings
        load_app(settings.app)
        return settings.app

    await note("settings", start())
    if isinstance(await note("log.json", identity()), Refused):
        return found
    for shard in range(SHARDS):
        await _ask_owner(log, shard, note)
    reader = await SqliteLogReader.open(log)
    try:
        for account in ACCOUNTS:
            await note(f"read account/{account}", _read(reader, StreamId(f"account/{account}")))
    finally:
        await reader.close()
    return found


def _refused(error: Exception, message: str) -> Refused:
    """named: the text says where: a file, a table, a row."""
    named = any(word in message for word in ("shard-", "log.json", "cuebook.toml", "table ", "position", "event ", "ops.", "bank", "app"))
    return Refused(type(error).__name__, message, named)


async def _ask_owner(log: Path, shard: int, note: Any) -> None:
    lease = Lease.try_acquire(log / f"shard-{shard}.lock", own_record("worker-2", "shard"))
    assert lease is not None, "a damaged lock file keeps its shard from being taken"
    lease.release()
    opened: list[SqliteShard] = []

    async def take() -> bool:
        opened.append(await SqliteShard.open(log, shard))
        await opened[0].take("judge")
        return True

    try:
        if isinstance(await note(f"owner {shard}", take()), Refused):
            return
        store = opened[0]
        for account in ACCOUNTS:
            stream = StreamId(f"account/{account}")
            if shard_of(*parse_stream_id(stream), SHARDS) == shard:
                await note(f"balance {account}", _balance(store, stream))
                await note(f"head {account}", _head(store, stream))
        for number in range(240):
            account = ACCOUNTS[number % len(ACCOUNTS)]
            stream = StreamId(f"account/{account}")
            if shard_of(*parse_stream_id(stream), SHARDS) == shard:
                await note(f"repeat d{number}", _repeat(store, stream, f"d{number}"))
                if number % 5 == 0:
                    await note(f"repeat t{number}", _repeat(store, stream, f"t{number}"))
        await note(f"unfinished {shard}", _unfinished(store))
    finally:
        for store in opened:
            await store.close()


async def _balance(store: SqliteShard, stream: StreamId) -> tuple[int, int]:
    kind = app.registry.type(AccountActor.__actor_name__ or "")
    snapshot, events = await store.tail(stream, kind.shape, kind.plain)
    recovered = recover(kind, snapshot, events)
    return recovered.version, recovered.state.cents


async def _head(store: SqliteShard, stream: StreamId) -> tuple[int, str] | None:
    head = await store.head(stream)
    return None if head is None else (head.version, head.hash.hex())


async def _repeat(store: SqliteShard, stream: StreamId, command_id: str) -> tuple[str, bytes | None] | None:
    entry = await store.inbox(stream, CommandId(command_id))
    return None if entry is None else (entry.status.value, entry.reply)


async def _unfinished(store: SqliteShard) -> tuple[int, int, int]:
    return len(await store.unfinished()), len(await store.unsent()), len(await store.timers())


async def _read(reader: SqliteLogReader, stream: StreamId) -> list[tuple[int, str, bytes]]:
    return [(event.version, event.hash, bytes(event.payload)) for event in await reader.read_stream(stream)]


def flipped(image: Path, copy: Path, flip: Flip) -> None:
    """`copy` becomes the image with that bit flipped."""
    shutil.copytree(image, copy)
    content = bytearray((copy / flip.name).read_bytes())
    content[flip.offset] ^= 1 << flip.bit
    (copy / flip.name).write_bytes(content)


def judge(image_answers: Answers, copy: Path) -> Verdict:
    """What is served from `copy`, against what the image answers. Owners write to the copy: it is used up."""
    found_by_verify: list[str] = []
    try:
        found_by_verify = [damage.message for damage in verify(copy / "log")]
    except CuebookError as error:
        found_by_verify = [error.message]
    told = asyncio.run(answers(copy))
    refusals = {what: answer for what, answer in told.items() if isinstance(answer, Refused)}
    wrong = [
        f"{what}: {answer!r} instead of {image_answers[what]!r}"
        for what, answer in told.items()
        if not isinstance(answer, Refused) and answer != image_answers[what]
    ]
    wrong += [f"{what}: refused without a name: {answer}" for what, answer in refusals.items() if not answer.named]
    if wrong:
        return Verdict(Outcome.WRONG, [*wrong[:5], f"verify: {found_by_verify[:3]}"])
    words = [*(answer.message for answer in refusals.values()), *found_by_verify]
    if {"settings", "log.json"} & refusals.keys():
        return Verdict(Outcome.START, words)
    refused_shards = [shard for shard in range(SHARDS) if f"owner {shard}" in refusals]
    if len(refused_shards) > 1:
        # A digit of the log's own name: then no file belongs to it.
        shared = all("another log" in refusals[f"owner {shard}"].message for shard in refused_shards)
        return Verdict(Outcome.START if shared else Outcome.WRONG, words)
    if refused_shards:
        return Verdict(Outcome.SHARD, words)
    if refusals:
        return Verdict(Outcome.ROW, words)
    return Verdict(Outcome.NAMED if found_by_verify else Outcome.IDENTICAL, words)


def counted(verdicts: list[tuple[Flip, Verdict]]) -> str:
    """A table of outcomes by file, for people."""
    by: Counter[tuple[str, Outcome]] = Counter((flip.name, verdict.outcome) for flip, verdict in verdicts)
    lines = [f"{count:5}  {name:22} {outcome}" for (name, outcome), count in sorted(by.items())]
    total = Counter(verdict.outcome for _, verdict in verdicts)
    return "\n".join([*lines, *(f"{count:5}  in all: {outcome}" for outcome, count in sorted(total.items()))])
