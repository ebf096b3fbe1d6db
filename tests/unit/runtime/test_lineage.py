"""S33, the reading side: a fork is read from its parent up to where it branched off, and from itself after that."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from events.envelope import Kind, NewEvent
from events.ids import StreamId, Version
from events.store import Base, LogReader
from ops.__main__ import main
from ops.settings import name_app
from runtime.branches.lineage import origin, read_lineage
from runtime.past.history import blame, version_at, walk
from runtime.past.inspection import verify_state
from runtime.past.states import code_of, state_at
from runtime.turns.recovery import recover
from tests.support.big_log import app
from tests.support.logs import LogUnderTest, append_one, group, log_under_test

P, F, G = StreamId("desk/parent"), StreamId("desk/fork"), StreamId("desk/grandchild")


def noted(word: str) -> NewEvent:
    return NewEvent(type="desk.noted", payload=msgspec.json.encode({"word": word, "text": word}))


async def fork(log: LogUnderTest, parent: StreamId, version: int, child: StreamId, state: dict[str, object], edit: object = None) -> None:
    """As the verb does it: one control event at version + 1, whose chain continues from the parent's hash."""
    reader = await log.reader()
    at = (await read_lineage(reader, parent, after=version - 1, limit=1))[0]
    payload = {"parent": parent, "version": version, "hash": at.hash, "state": state, "edit": edit, "branch": child}
    event = NewEvent(type="stream.forked", kind=Kind.CONTROL, payload=msgspec.json.encode(payload))
    base = Base(version=Version(version), hash=bytes.fromhex(at.hash))
    store = await log.shard(0)
    await store.append([group(child, version, event, base=base, parent=f"{parent}@{version}", branch=child.partition("/")[2])])
    log.clock.advance(1)


async def fill(log: LogUnderTest) -> None:
    store = await log.shard(0)
    for version, word in enumerate(("a", "b", "c", "d")):
        await append_one(store, P, version, noted(word))
        log.clock.advance(1)
    await fork(log, P, 2, F, {"notes": 2, "last": "b", "by_word": {"a": 1, "b": 1}})
    store = await log.shard(0)
    await append_one(store, F, 3, noted("x"))
    await fork(log, F, 4, G, {"notes": 99, "last": "x", "by_word": {}}, [{"op": "replace", "path": "/notes", "value": 99}])
    store = await log.shard(0)
    await append_one(store, G, 5, noted("y"))


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[LogReader]:
    log = log_under_test("sqlite", 1, tmp_path / "log")
    await fill(log)
    yield await log.reader()
    await log.close()


async def test_s33_a_fork_is_read_through_its_parents(reader: LogReader) -> None:
    found, version = [], 0
    while page := await read_lineage(reader, G, after=version, limit=1_000):
        found += [(event.stream, event.version) for event in page]
        version = page[-1].version
    assert found == [(P, 1), (P, 2), (F, 3), (F, 4), (G, 5), (G, 6)]
    base = await origin(reader, G)
    assert base is not None
    assert (base.parent, base.version) == (F, 4)
    assert await origin(reader, P) is None


async def test_s33_its_state_at_each_version_is_the_parents_then_its_own(reader: LogReader) -> None:
    for version, notes in ((0, 0), (1, 1), (2, 2), (3, 2), (4, 3)):
        view = await state_at(reader, app.registry, F, version)
        assert (view.state["notes"], view.mismatch) == (notes, None), version
    assert (await state_at(reader, app.registry, G)).state["notes"] == 100
    steps = [step async for step in walk(reader, code_of(app.registry, G), G)]
    assert [step.after["notes"] for step in steps] == [1, 2, 2, 3, 99, 100]
    assert all(step.mismatch is None for step in steps)


async def test_s33_a_fork_that_began_with_another_state_than_this_code_folds_says_so(tmp_path: Path) -> None:
    log = log_under_test("sqlite", 1, tmp_path / "log")
    try:
        store = await log.shard(0)
        for version, word in enumerate(("a", "b")):
            await append_one(store, P, version, noted(word))
        await fork(log, P, 2, F, {"notes": 7, "last": "b", "by_word": {}})
        steps = [step async for step in walk(await log.reader(), code_of(app.registry, F), F)]
        assert [step.mismatch is not None for step in steps] == [False, False, True]
    finally:
        await log.close()


async def test_blame_of_a_shared_value_names_the_event_of_the_parent(reader: LogReader) -> None:
    shared = (await blame(reader, app.registry, F, "/by_word/b")).changes[-1]
    assert (shared.event.stream, shared.event.version) == (P, 2)
    own = (await blame(reader, app.registry, F, "/last")).changes[-1]
    assert (own.event.stream, own.event.version, own.new) == (F, 4, "x")
    edit = (await blame(reader, app.registry, G, "/notes", at=5)).changes[-1]
    assert (edit.event.type, edit.new) == ("stream.forked", 99)
    moment = (await reader.read_stream(P))[0]
    assert await version_at(reader, F, moment.event_id) == 1


async def test_verify_and_recovery_begin_a_fork_with_the_state_that_it_was_forked_with(reader: LogReader) -> None:
    check = await verify_state(reader, app.registry, G)
    assert (check.difference, check.version) == (None, 6)
    kind = code_of(app.registry, G)
    assert kind is not None
    found = recover(kind, None, await reader.read_stream(G))
    assert (found.version, found.state.notes) == (6, 100)


async def _write(folder: Path) -> None:
    log = log_under_test("sqlite", 1, folder)
    await fill(log)
    await log.close()


def test_the_verbs_read_forks(tmp_path: Path, no_settings: None, capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio

    asyncio.run(_write(tmp_path / "log"))
    name_app(tmp_path, "tests.support.big_log:app")

    def rows(*arguments: str) -> list[dict[str, object]]:
        assert main([*arguments, "--data", str(tmp_path)]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [row["stream"] for row in rows("branches", P)] == [F, G]
    assert rows("diff", F, "1", "4")[0]["patch"]
    assert [row["difference"] for row in rows("replay", "--verify")] == [None] * 3
    assert [row["stream"] for row in rows("replay", G, "--step")] == [P, P, F, F, G, G]
