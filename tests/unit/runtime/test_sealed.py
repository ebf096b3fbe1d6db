"""Sealed actors (S29) and erasure (I-22) in one process: what stands in the files, what can be read back, what is left afterwards."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import structlog

from actors.errors import ActorError, BadPayload, Gone, HandlerFailed, Rejected, Unavailable
from events.codec import args_hash
from events.envelope import RecordedEvent
from events.errors import ConfigurationError, CorruptLogError, UnreadablePayloadError
from events.ids import CommandId, StreamId, parse_stream_id, shard_of
from events.keeping.backup import back_up
from events.keeping.export import export
from events.keeping.export_import import import_log
from events.keeping.verify import verify
from events.log_directory import shard_path
from events.sealed.erasure import erase
from events.sealed.sealed_reader import SealedReader
from events.sealed.sealing import is_sealed
from events.sqlite.reader_sqlite import SqliteLogReader
from events.store import Arrival, InboxEntry, InboxStatus
from runtime.local import LocalRuntime, local_runtime
from runtime.past.states import state_at
from runtime.sealed import open_sealer
from runtime.sealer_aesgcm import AesGcmSealer
from runtime.shard import Shard
from tests.support.eventually import eventually, until
from tests.support.logs import without_guards
from tests.support.sealed_app import app

CANARY = "canary-5e1d"
SHARDS = 2
P = StreamId("patient/p1")
OTHER = StreamId("patient/p2")
PLAIN = StreamId("board/b1")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "data" / "log"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@asynccontextmanager
async def running(log: Path, keys: Path | None) -> AsyncIterator[LocalRuntime]:
    async with local_runtime(app, log, shards=SHARDS, keys=keys) as runtime:
        yield runtime


def hits(*folders: Path) -> list[str]:
    """Every file that holds the canary, in whatever table, page, log or leftover."""
    files = [path for folder in folders for path in ([folder] if folder.is_file() else sorted(folder.rglob("*"))) if path.is_file()]
    return [path.name for path in files if CANARY.encode() in path.read_bytes()]


async def say_everything(runtime: LocalRuntime, stream: str) -> None:
    """The canary through argument, reply, event, step, error, summary, chunk, timer, refusal, failure, tell and dead letter."""
    await runtime.ask(stream, "note", command_id="c1", text=CANARY)
    await runtime.ask(stream, "step_through", command_id="c2", text=CANARY)
    with pytest.raises(Rejected):
        await runtime.ask(stream, "refuse", command_id="c3", text=CANARY)
    with pytest.raises(HandlerFailed):
        await runtime.ask(stream, "break_down", command_id="c4", text=CANARY)
    with pytest.raises(HandlerFailed):
        await runtime.ask(stream, "wrong", text=CANARY)
    await tell(runtime, stream, "note", "t1")
    await tell(runtime, stream, "refuse", "t2")
    await runtime.ask(stream, "pass_on", to="p2", text="nothing special")


async def accept(runtime: LocalRuntime, stream: str, method: str, command_id: str) -> Shard:
    """Tell it, without waiting for what becomes of that."""
    shard = runtime.shards[shard_of(*parse_stream_id(stream), SHARDS)]
    args = msgspec.json.encode({"text": CANARY})
    entry = InboxEntry(
        stream=StreamId(stream), command_id=CommandId(command_id), method=method, args_hash=args_hash(method, args),
        status=InboxStatus.QUEUED, args=args, source="js:tells:1",
    )  # fmt: skip
    await shard.accept([Arrival(entry=entry)])
    return shard


async def tell(runtime: LocalRuntime, stream: str, method: str, command_id: str) -> None:
    shard = await accept(runtime, stream, method, command_id)
    while (found := await shard.store.inbox(StreamId(stream), CommandId(command_id))) is None or found.status is InboxStatus.QUEUED:
        await asyncio.sleep(0)


async def stored(log: Path, stream: StreamId) -> list[RecordedEvent]:
    reader = await SqliteLogReader.open(log)
    try:
        return list(await reader.read_stream(stream))
    finally:
        await reader.close()


async def test_s29_nothing_that_a_sealed_actor_says_or_is_told_is_readable_in_the_files(log: Path, keys: Path, tmp_path: Path) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, P)
        # While it is under way, and in the write-ahead log.
        assert hits(log) == []
    assert hits(log) == []
    back_up(log, tmp_path / "backup")
    export(log, tmp_path / "x.jsonl")
    assert hits(tmp_path / "backup", tmp_path / "x.jsonl") == []
    assert verify(log) == []
    events = await stored(log, P)
    assert {event.key_id for event in events} != {None}
    assert len({event.key_id for event in events}) == 1
    assert all(is_sealed(event) and (event.summary, event.error, event.state_hash) == (None, None, None) for event in events)


@pytest.fixture
def console() -> Iterator[None]:
    """Log lines go to the console, whatever a test before has configured; loggers remember that from their first use on."""
    before = structlog.get_config()

    def forget() -> None:
        for module in list(sys.modules.values()):
            getattr(getattr(module, "log", None), "__dict__", {}).pop("bind", None)

    structlog.reset_defaults()
    forget()
    yield
    structlog.configure(**before)
    forget()


@pytest.mark.usefixtures("console")
async def test_s29_the_log_lines_of_a_sealed_actor_name_the_failure_and_not_its_text(
    log: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, P)
        with pytest.raises(ActorError):
            await runtime.ask(P, "note", text={"not": CANARY})
        await tell(runtime, P, "no_such_method", "t8")
        lines = "".join(capsys.readouterr())
        assert "turn_failed" in lines
        assert "RuntimeError" in lines
        assert CANARY not in lines
        await say_everything(runtime, PLAIN)
        assert CANARY in "".join(capsys.readouterr())


async def test_a_sealed_actor_works_as_any_other_across_restarts_and_imports(log: Path, keys: Path, tmp_path: Path) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, P)
        texts = await runtime.ask(P, "all")
        assert texts == [CANARY, f"fail #1: ValueError: cannot {CANARY}", CANARY] or len(texts) == 3
    async with running(log, keys) as runtime:
        assert await runtime.ask(P, "all") == texts
        # S24: a remembered id gets the original reply, and another command under it is refused.
        assert await runtime.ask(P, "note", command_id="c1", text=CANARY) == CANARY
        with pytest.raises(ActorError, match="another command"):
            await runtime.ask(P, "note", command_id="c1", text="else")
    export(log, tmp_path / "x.jsonl")
    import_log(tmp_path / "x.jsonl", tmp_path / "data3" / "log", 3)
    export(tmp_path / "data3" / "log", tmp_path / "3.jsonl")
    import_log(tmp_path / "3.jsonl", tmp_path / "again")
    export(tmp_path / "again", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "3.jsonl").read_bytes()
    async with local_runtime(app, tmp_path / "data3" / "log", keys=keys) as runtime:
        assert await runtime.ask(P, "all") == texts
        assert await runtime.ask(P, "note", command_id="c1", text=CANARY) == CANARY


async def test_without_its_key_a_stream_says_so_and_the_others_go_on(log: Path, keys: Path, tmp_path: Path) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, P)
    (key_id,) = {event.key_id for event in await stored(log, P)}
    assert key_id is not None
    hidden = tmp_path / "hidden"
    (keys / key_id[:2] / key_id).rename(hidden)
    async with running(log, keys) as runtime:
        with pytest.raises(Unavailable, match="sealed") as refused:
            await runtime.ask(P, "note", text="x")
        assert refused.value.fields["reason"] == "unreadable"
        assert await runtime.ask(OTHER, "note", text="x") == "x"
        assert await runtime.ask(PLAIN, "note", text="x") == "x"
    hidden.rename(keys / key_id[:2] / key_id)
    async with running(log, keys) as runtime:
        assert CANARY in await runtime.ask(P, "all")


async def test_readers_show_what_is_sealed_where_the_key_is_and_else_say_that_it_is_not(log: Path, keys: Path) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, P)
        texts = await runtime.ask(P, "all")
    reader = await SqliteLogReader.open(log)
    sealer = open_sealer(keys, log, app.registry)
    assert sealer is not None
    try:
        clear = await SealedReader(reader, sealer).read_stream(P)
        assert CANARY in str(bytes(clear[0].payload))
        assert [event.hash for event in clear] == [event.hash for event in await reader.read_stream(P)]
        assert (await state_at(SealedReader(reader, sealer), app.registry, P)).state == {"texts": texts}
        assert "is sealed (key not here)" in ((await state_at(reader, app.registry, P)).note or "")
        for event in clear:
            sealer.destroy(event.key_id or "")
        assert [is_sealed(event) for event in await SealedReader(reader, sealer).read_stream(P)] == [True] * len(clear)
    finally:
        await reader.close()


@pytest.mark.parametrize("column", ["stream_id", "version", "payload"])
async def test_a_ciphertext_cannot_be_moved_to_where_another_one_stood(log: Path, keys: Path, column: str) -> None:
    """Even by somebody who makes every hash and checksum anew: the ciphertext itself is bound to its place."""
    async with running(log, keys) as runtime:
        await runtime.ask(P, "note", text="one")
        await runtime.ask(P, "note", text="two")
        await runtime.ask(OTHER, "note", text="three")
    sealer = AesGcmSealer(keys)
    first, second = await stored(log, P)
    (other,) = await stored(log, OTHER)
    moved = {
        "stream_id": msgspec.structs.replace(other, stream=P, key_id=other.key_id),
        "version": msgspec.structs.replace(first, version=second.version),
        "payload": msgspec.structs.replace(second, payload=first.payload),
    }[column]
    from events.sealed.sealing import unsealed_event

    assert not is_sealed(unsealed_event(sealer, first))
    with pytest.raises(CorruptLogError):
        unsealed_event(sealer, moved)


async def test_s29_erase_while_running_leaves_nothing_and_answers_410(log: Path, keys: Path, tmp_path: Path) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, P)
        await runtime.ask(OTHER, "note", text="kept")
        key_id = (await stored(log, P))[0].key_id
        assert key_id is not None
        back_up(log, tmp_path / "before")
        with pytest.raises(BadPayload, match="confirmed by its name"):
            await runtime.ask(P, "_erase", confirm="patient/p2")
        done = await runtime.ask(P, "_erase", confirm=P, by="test")
        assert (done["status"], done["key_ids"]) == ("erased", [key_id])
        assert not (keys / key_id[:2] / key_id).exists()
        for attempt in range(2):
            with pytest.raises(Gone, match="is erased"):
                await runtime.ask(P, "note", command_id="c1", text=f"{attempt}")
        with pytest.raises(Gone):
            await runtime.ask(P, "all")
        await tell(runtime, P, "note", "late")
        assert (await runtime.ask(P, "_erase", confirm=P))["already"] is True
        assert sorted(await runtime.ask(OTHER, "all")) == ["kept", "nothing special"]
        assert await runtime.shards[0].store.erasures() == await runtime.shards[1].store.erasures() == []
    assert hits(log) == []
    assert verify(log) == []
    # A backup from before holds ciphertext, which nothing opens any more.
    assert hits(tmp_path / "before") == []
    async with local_runtime(app, tmp_path / "before" / "log", keys=keys) as runtime:
        with pytest.raises(Unavailable, match="sealed"):
            await runtime.ask(P, "all")
        assert sorted(await runtime.ask(OTHER, "all")) == ["kept", "nothing special"]


@pytest.mark.parametrize("stream", [P, PLAIN])
async def test_s29_a_tell_that_waits_for_its_next_try_ends_when_its_stream_is_erased(log: Path, keys: Path, stream: StreamId) -> None:
    async with running(log, keys) as runtime:
        await runtime.ask(stream, "note", text="kept")
        shard = await accept(runtime, stream, "break_down", "t1")
        await until(lambda: len(shard.tries) > 0, "it waits for its next try")
        await runtime.ask(stream, "_erase", confirm=stream)
        assert len(shard.tries) > 0, "the next try comes after the erasure"
        await until(lambda: len(shard.tries) == 0, "it is tried")
        await until(lambda: all(cell.idle for cell in shard.cells.values()), "nothing is left of it")
        assert not shard.tries
    assert hits(log) == []
    assert verify(log) == []


async def test_s5_an_actor_that_cannot_be_recovered_holds_no_drain_up(log: Path, keys: Path) -> None:
    """Its key is away, so that the tell in its inbox is tried again and again."""
    async with running(log, keys) as runtime:
        await runtime.ask(P, "note", text="kept")
    (key_id,) = {event.key_id for event in await stored(log, P)}
    assert key_id is not None
    (keys / key_id[:2] / key_id).rename(keys.parent / "away")
    async with running(log, keys) as runtime:
        shard = await accept(runtime, P, "note", "t1")
        await until(lambda: len(shard.tries) > 0, "it is tried again later")
        async with asyncio.timeout(20):
            assert await shard.drain(3_600)
    (keys.parent / "away").rename(keys / key_id[:2] / key_id)
    async with running(log, keys) as runtime:

        async def done() -> bool:
            return bool(await runtime.ask(P, "all") == ["kept", CANARY])

        await eventually(done, "the next owner does it")


async def test_s24_what_was_told_under_another_key_is_done_once_the_first_key_is_back(log: Path, keys: Path) -> None:
    """Ten streams, since the order of two keys is by chance: the row of a tell is marked under the one, its stream goes on under either."""
    streams = [StreamId(f"patient/p{number}") for number in range(10)]
    async with running(log, keys) as runtime:
        for stream in streams:
            await runtime.ask(stream, "note", text="kept")
    keys.rename(keys.parent / "away")
    async with running(log, keys) as runtime:
        for stream in streams:
            await accept(runtime, stream, "note", "t1")
    for key in (file for file in (keys.parent / "away").rglob("*") if file.is_file()):
        (keys / key.parent.name).mkdir(exist_ok=True)
        key.rename(keys / key.parent.name / key.name)
    async with running(log, keys) as runtime:
        for stream in streams:

            async def done(stream: StreamId = stream) -> bool:
                return bool(await runtime.ask(stream, "all") == ["kept", CANARY])

            await eventually(done, f"{stream} was told")
            shard = runtime.shards[shard_of(*parse_stream_id(stream), SHARDS)]
            found = await shard.store.inbox(stream, CommandId("t1"))
            assert found is not None
            assert (found.status, found.reply) == (InboxStatus.DONE, msgspec.json.encode(CANARY))
    assert verify(log) == []


@pytest.mark.parametrize("online", [True, False])
async def test_s29_erasing_a_plain_stream_removes_every_byte_of_it(log: Path, keys: Path, tmp_path: Path, online: bool) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, PLAIN)
        await runtime.ask("board/b2", "note", text="kept")
        assert hits(log)
        if online:
            await runtime.ask(PLAIN, "_erase", confirm=PLAIN)
            assert hits(log) == []
    if not online:
        assert hits(log)
        assert (await erase(log, PLAIN, "test", None)).status == "erased"
    assert hits(log) == []
    assert verify(log) == []
    back_up(log, tmp_path / "backup")
    export(log, tmp_path / "x.jsonl")
    assert hits(tmp_path / "backup", tmp_path / "x.jsonl") == []
    import_log(tmp_path / "x.jsonl", tmp_path / "again", 3)
    assert verify(tmp_path / "again") == []
    async with running(log, keys) as runtime:
        with pytest.raises(Gone):
            await runtime.ask(PLAIN, "note", text="x")
        assert await runtime.ask("board/b2", "all") == ["kept"]


async def test_an_erasure_that_a_former_owner_left_is_completed_at_take(log: Path, keys: Path) -> None:
    async with running(log, keys) as runtime:
        await say_everything(runtime, P)
        key_id = (await stored(log, P))[0].key_id
        shard = runtime.shards[shard_of("patient", "p1", SHARDS)]
        await shard.store.erase(P, "test")  # and it dies here
    assert key_id is not None
    assert (keys / key_id[:2] / key_id).exists()
    async with running(log, keys) as runtime:
        shard = runtime.shards[shard_of("patient", "p1", SHARDS)]
        while await shard.store.erasures():
            await asyncio.sleep(0)
    assert not (keys / key_id[:2] / key_id).exists()


async def test_s24_archive_while_running(log: Path, keys: Path) -> None:
    async with running(log, keys) as runtime:
        await runtime.ask(P, "note", command_id="c1", text="kept")
        await runtime.ask(P, "step_through", text="kept")
        done = await runtime.ask(P, "_archive")
        assert (done["status"], done["already"]) == ("archived", False)
        assert await runtime.ask(P, "note", command_id="c1", text="kept") == "kept"
        with pytest.raises(Gone, match="is archived"):
            await runtime.ask(P, "note", command_id="c9", text="x")
        with pytest.raises(Gone):
            await runtime.ask(P, "note", text="x")
        assert (await runtime.ask(P, "_archive"))["already"] is True
        version = done["version"]
    async with running(log, keys) as runtime:
        assert await runtime.ask(P, "note", command_id="c1", text="kept") == "kept"
        with pytest.raises(Gone, match="is archived"):
            await runtime.ask(P, "note", text="x")
        await tell(runtime, P, "note", "late")
    assert len(await stored(log, P)) == version


async def test_an_actor_that_is_sealed_no_more_still_reads_what_it_said(log: Path, keys: Path) -> None:
    from runtime import App
    from tests.support.sealed_app import Board, _Keeper

    class Opened(_Keeper, name="patient"):
        """The same actor, without sealed=True."""

    async with running(log, keys) as runtime:
        await runtime.ask(P, "note", command_id="c1", text="before")
    async with local_runtime(App(actors=[Opened, Board]), log, keys=keys) as runtime:
        await runtime.ask(P, "note", text="after")
        assert await runtime.ask(P, "all") == ["before", "after"]
        assert await runtime.ask(P, "note", command_id="c1", text="before") == "before"
    assert [event.key_id is None for event in await stored(log, P)] == [False, True]
    # Erasing such a stream takes both: the key, and the clear text.
    async with running(log, keys) as runtime:
        await runtime.ask(P, "_erase", confirm=P)
    assert b"after" not in shard_path(log, shard_of("patient", "p1", SHARDS)).read_bytes()


def test_a_sealed_app_does_not_start_without_a_place_for_keys_or_with_one_inside_the_data(log: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder for keys"):
        open_sealer(None, log, app.registry)
    with pytest.raises(ConfigurationError, match="inside the data folder"):
        open_sealer(log.parent / "keys", log, app.registry)


async def test_keys_are_private_files_and_an_unused_one_does_not_stay(keys: Path) -> None:
    sealer = AesGcmSealer(keys)
    used = await sealer.fresh_key()
    path = keys / used[:2] / used
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777, path.stat().st_size) == (0o600, 0o700, 32)
    made = [found for found in keys.rglob("*") if found.is_file()]
    assert len(made) > 1
    sealer.close()
    assert [found for found in keys.rglob("*") if found.is_file()] == [path]
    keys.chmod(0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        await AesGcmSealer(keys).fresh_key()


@pytest.mark.parametrize("key_id", ["", "../../etc/passwd", "A" * 32, "0" * 31])
def test_a_name_from_a_log_never_leads_out_of_the_keys_folder(keys: Path, key_id: str) -> None:
    sealer = AesGcmSealer(keys)
    assert not sealer.has(key_id)
    with pytest.raises(UnreadablePayloadError):
        sealer.unseal(key_id, b"x" * 40, b"")


async def test_a_changed_ciphertext_stops_its_actor_only(log: Path, keys: Path) -> None:
    async with running(log, keys) as runtime:
        await runtime.ask(P, "note", text="one")
        await runtime.ask(PLAIN, "note", text="two")
    path = shard_path(log, shard_of("patient", "p1", SHARDS))
    without_guards(path, "UPDATE events SET payload = replace(payload, substr(payload, 20, 1), '') WHERE key_id IS NOT NULL")
    async with running(log, keys) as runtime:
        with pytest.raises(Unavailable) as refused:
            await runtime.ask(P, "all")
        assert refused.value.fields["reason"] == "quarantined"
        assert await runtime.ask(PLAIN, "all") == ["two"]
