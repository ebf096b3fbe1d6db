"""Checkpoints newest first: of one thread from memory, of all threads along the index, page by page."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from actors.graph import index_sqlite as index
from actors.graph.thread_state import Checkpoint, ThreadState
from actors.graph.threads import Steps, Threads
from actors.graph.tuples import tuple_of

PAGE: Final = 256
_END: Final = 2**62
Made = Callable[[], CheckpointTuple]


class Wanted:
    """Which checkpoints of a thread a listing asks for."""

    def __init__(self, config: RunnableConfig | None, filter: dict[str, Any] | None, before: RunnableConfig | None) -> None:
        configurable = {} if config is None else config.get("configurable", {})
        self.ns: str | None = configurable.get("checkpoint_ns")
        self._checkpoint_id: str | None = configurable.get("checkpoint_id")
        self._filter = filter or {}
        self._before: dict[str, Any] = {} if before is None else before.get("configurable", {})

    def takes(self, state: ThreadState, each: Checkpoint) -> bool:
        if self.ns is not None and each.ns != self.ns:
            return False
        if self._checkpoint_id is not None and each.id != self._checkpoint_id:
            return False
        before_id = self._before.get("checkpoint_id")
        if before_id is not None:
            mark = state.any(self._before.get("checkpoint_ns", each.ns), before_id)
            if (each.order >= mark.order) if mark is not None else (each.id >= before_id):
                return False
        return all(self._metadata(state, each, key) == value for key, value in self._filter.items())

    @staticmethod
    def _metadata(state: ThreadState, each: Checkpoint, key: str) -> Any:
        text = each.metadata.get(key)
        return None if text is None else state.packer.value(text)

    def newest_first(self, state: ThreadState) -> list[Checkpoint]:
        """Those of one thread that are wanted."""
        found = [each for ns in state.namespaces() if self.ns in (None, ns) for each in state.checkpoints(ns)]
        return sorted((each for each in found if self.takes(state, each)), key=lambda each: -each.order)


class Listing:
    """One pass over checkpoints. What was there when its page was read is given; a tuple is only made when it is asked for."""

    def __init__(
        self, threads: Threads, config: RunnableConfig | None, filter: dict[str, Any] | None, before: RunnableConfig | None,
        limit: int | None,
    ) -> None:  # fmt: skip
        configurable = {} if config is None else config.get("configurable", {})
        self._threads = threads
        self._thread_id: Any = configurable.get("thread_id")
        self._wanted = Wanted(config, filter, before)
        self._left = _END if limit is None else limit
        self._position = _END
        self._done = False

    def next_page(self) -> Steps[Sequence[Made]]:
        """At least one more, or none if that was all."""
        while not self._done and self._left > 0:
            page: list[Made] = (yield from self._of_thread()) if self._thread_id is not None else (yield from self._of_all())
            page = page[: self._left]
            self._left -= len(page)
            if page:
                return page
        return []

    def _of_thread(self) -> Steps[list[Made]]:
        self._done = True
        state = yield from self._threads.settled(str(self._thread_id))
        with self._threads.guard:
            return [self._made(state, each, self._thread_id) for each in self._wanted.newest_first(state)]

    def _of_all(self) -> Steps[list[Made]]:
        rows = yield self._threads.shard.read(index.newest_rows, self._position, PAGE)
        if not rows:
            self._done = True
            return []
        self._position = rows[-1].position
        made: list[Made] = []
        for row in rows:
            thread_id = thread_of(row.stream, row.thread)
            state = yield from self._threads.settled(thread_id)
            with self._threads.guard:
                made += [self._made(state, each, thread_id) for each in candidates(state, row) if self._wanted.takes(state, each)]
        return made

    @staticmethod
    def _made(state: ThreadState, each: Checkpoint, thread_id: Any) -> Made:
        return partial(tuple_of, state.packer, each, dict(state.writes(each.ns, each.id)), thread_id)


def thread_of(stream: str, name: str | None) -> str:
    """The id of the thread that is stored in `stream`."""
    return name if name is not None else stream.partition("/")[2]


def candidates(state: ThreadState, row: index.Row) -> list[Checkpoint]:
    """The checkpoints that are shown and that `row` of the index stands for, newest first."""
    found = [each for ns, checkpoint_id in state.at_home(row.version) if (each := state.find(ns, checkpoint_id)) is not None]
    return sorted(found, key=lambda each: -each.order)
