"""A new thread is not looked up in the file: its owner knows the names of all streams (S38)."""

from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from actors.graph import EventLogSaver, threads
from actors.graph import index_sqlite as index
from actors.graph.errors import StaleWriteOwnerError
from actors.graph.known_streams import STREAMS_MAX, KnownStreams


def at(thread: str) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


def put(saver: EventLogSaver, thread: str) -> None:
    saver.put(at(thread), empty_checkpoint(), {"source": "input"}, {})


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams that were looked up, from here on."""
    names: list[str] = []
    load = index.load

    def noted(connection: Any, shard: int, stream: Any, *rest: Any) -> Any:
        names.append(stream)
        return load(connection, shard, stream, *rest)

    monkeypatch.setattr(index, "load", noted)
    return names


def test_only_a_thread_that_may_be_there_is_looked_up(tmp_path: Path, looked_up: list[str]) -> None:
    with EventLogSaver.open(tmp_path) as saver:
        assert saver.get_tuple(at("t1")) is None
        put(saver, "t1")
        put(saver, "a thread: with a name of its own")
        assert looked_up == []
    with EventLogSaver.open(tmp_path) as saver:
        assert saver.get_tuple(at("t2")) is None
        saver.copy_thread("t1", "t3")
        assert looked_up == ["thread/t1"]
        for thread in ("t1", "t3", "a thread: with a name of its own"):
            assert saver.get_tuple(at(thread)) is not None
        assert looked_up[1] == "thread/t3", "a copy has been written, and is read"
        saver.delete_thread("t1")
    with EventLogSaver.open(tmp_path) as saver:
        assert saver.get_tuple(at("t1")) is None
        assert looked_up[-1] == "thread/t1", "it was there"


def test_with_more_streams_than_are_known_every_thread_is_looked_up(
    tmp_path: Path, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventLogSaver.open(tmp_path) as saver:
        for number in range(5):
            put(saver, f"t{number}")
    monkeypatch.setattr(threads, "STREAMS_MAX", 4)
    with EventLogSaver.open(tmp_path) as saver:
        assert saver.get_tuple(at("new")) is None
        assert looked_up == ["thread/new"]
        assert saver.get_tuple(at("t4")) is not None


def test_more_than_fit_are_not_known() -> None:
    streams = KnownStreams(f"thread/{number}" for number in range(STREAMS_MAX))
    assert streams.may_hold("thread/7")
    assert not streams.may_hold("thread/new")
    streams.add("thread/7")
    assert not streams.may_hold("thread/new")
    streams.add("thread/new")
    assert streams.may_hold("thread/newer"), "nothing is known any more"


def test_i3_a_saver_that_was_superseded_looks_every_thread_up(tmp_path: Path, looked_up: list[str]) -> None:
    """What the new owner writes is not among the names that the former one knows."""
    with EventLogSaver.open(tmp_path) as former, EventLogSaver.open(tmp_path) as owner:
        put(owner, "t")
        with pytest.raises(StaleWriteOwnerError):
            put(former, "other")
        assert former.get_tuple(at("t")) is not None
        assert looked_up == ["thread/t"]
