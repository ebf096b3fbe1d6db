"""LangGraph's checkpoints in an event log (S38).

    async with EventLogSaver.open("threads") as saver:
        graph = builder.compile(checkpointer=saver)
        await graph.ainvoke(inputs, {"configurable": {"thread_id": "t1"}})

Every thread is a stream of the log in that folder: ``cuebook log --data threads``, ``show``, ``verify`` and the rest read it like any
other. No deployment, no server, no NATS is needed.
"""

import copy
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.base import Checkpoint as LangGraphCheckpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import IndexConfig

from actors.graph import recorded
from actors.graph.difference import saved, writes
from actors.graph.errors import StaleWriteOwnerError
from actors.graph.items import ItemsState
from actors.graph.listing import Listing
from actors.graph.opening import Opening
from actors.graph.places import config_of, place_of, place_of_writes
from actors.graph.store import EventLogStore
from actors.graph.thread_state import ThreadState
from actors.graph.threads import Said, Steps, Threads, run_async, run_sync
from actors.graph.tuples import delta_history, tuple_of
from actors.graph.upkeep import delete_for_runs, delete_thread, prune, thread_ids
from events.sqlite.sqlite_library import Durability
from events.sqlite.threaded_sqlite import ThreadedStatistics


class EventLogSaver(BaseCheckpointSaver[int]):
    """A checkpoint saver on an event log of its own. Made by `open`. May be used from any thread and any event loop, async and sync.

    **Durable**: a call that returned is on disk (`durability="disk"`), or survives the death of the process ("process"). One exception:
    where LangGraph itself has chained a put behind another (its durability "async" and "exit"), the earlier one may return before, and
    the later one answers for both; so a run that ended is on disk with all its checkpoints.
    **One writer**: who opens the folder supersedes who had it open; every later write of the other raises `StaleWriteOwnerError` and stores
    nothing. `aclaim_write_ownership` does the same for one thread among the users of one saver. Reading needs no ownership.
    **Growth**: what is stored grows with what is new. A list that grew is its new items, and content that a thread holds already is not
    written again.
    **Types**: JSON, the standard library's value types, LangChain's messages and LangGraph's own values; others are registered by name with
    `types`. No class or module name is stored, and nothing that is stored names code.

    Limits: one process per folder at a time; the checkpoints of a thread that is in use are held in memory as JSON.
    """

    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    """For users of the attribute only: nothing of a checkpoint goes through it."""

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self._threads = threads
        self._items = threads.beside(ItemsState)
        self._claims: dict[str, int] = {}

    @classmethod
    def open(
        cls, path: "str | PathLike[str]", *, durability: Durability = "disk", types: dict[str, type] | None = None
    ) -> Opening["EventLogSaver"]:
        """The saver on the log in folder `path`, made if it is missing: for ``async with`` or ``with``. The verbs of the command line find
        it with ``--data path``.

        Args:
            durability: "disk" = a commit is on disk before a call returns; "process" = it survives kill -9, but not a power cut.
            types: a name of your own for each dataclass, pydantic model, enum, msgspec Struct or named tuple in your state.

        Raises (on entering):
            ConfigurationError: the folder belongs to a deployment, is no log, or a type cannot be registered.
            CorruptLogError: the log lost its tail or is damaged. TransientError: its write lock was not free within a second.
        """
        return Opening(cls, Path(path), durability, types)

    def store(self, *, index: IndexConfig | None = None) -> EventLogStore:
        """Long-term memory in the same folder; open as long as this saver is. index: as `EventLogStore.open`."""
        return EventLogStore(self._items, index=index)

    # Ownership of threads

    async def aclaim_write_ownership(self, thread_id: str) -> "EventLogSaver":
        """Take the right to write a thread from whoever claimed it before; returns a saver that has it.

        What an earlier claim writes from now on is refused for good, with `StaleWriteOwnerError`. A saver that claimed nothing writes
        every thread, as if there were no claims.
        """
        return await run_async(self._claim(str(thread_id)))

    def claim_write_ownership(self, thread_id: str) -> "EventLogSaver":
        """As `aclaim_write_ownership`."""
        return run_sync(self._claim(str(thread_id)))

    def _claim(self, thread_id: str) -> Steps["EventLogSaver"]:
        taken: list[int] = []

        def build(state: ThreadState) -> Said:
            taken.append(state.claim + 1)
            return [(recorded.Claimed(owner=state.claim + 1), f"claim {state.claim + 1}")]

        yield from self._threads.change(thread_id, build)
        mine = copy.copy(self)
        mine._claims = {**self._claims, thread_id: taken[-1]}
        return mine

    async def acheck_write_ownership(self) -> None:
        """Raises `StaleWriteOwnerError` if writes of this saver would be refused now."""
        await run_async(self._check())

    def check_write_ownership(self) -> None:
        """As `acheck_write_ownership`."""
        run_sync(self._check())

    def _check(self) -> Steps[None]:
        yield from self._threads.check_owner()
        for thread_id in self._claims:
            self._require_claim((yield from self._threads.settled(thread_id)))

    def _require_claim(self, state: ThreadState) -> None:
        mine = self._claims.get(state.thread_id)
        if mine is not None and mine != state.claim:
            raise StaleWriteOwnerError(f"claim {mine} was superseded by claim {state.claim}", thread_id=state.thread_id)

    # Writing

    def _put(
        self, config: RunnableConfig, checkpoint: LangGraphCheckpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> Steps[RunnableConfig]:
        thread_id, ns, parent_id = place_of(config)
        told = get_checkpoint_metadata(config, metadata)
        texts: dict[str, bytes] = {}

        def build(state: ThreadState) -> Said:
            if self._claims:
                self._require_claim(state)
            texts.clear()
            return [saved(state, ns, parent_id, checkpoint, told, new_versions, texts)]

        def then(state: ThreadState) -> None:
            found = state.any(ns, checkpoint["id"])
            for channel, text in texts.items():
                if found is not None and channel in found.values:
                    found.values[channel].remember(text)

        yield from self._threads.change(thread_id, build, then, put=(ns, checkpoint["id"]))
        return config_of(config, ns, checkpoint["id"])

    def _put_writes(self, config: RunnableConfig, pairs: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> Steps[None]:
        thread_id, ns, checkpoint_id = place_of_writes(config)

        def build(state: ThreadState) -> Said:
            if self._claims:
                self._require_claim(state)
            found = writes(state, ns, checkpoint_id, task_id, task_path, pairs)
            return [] if found is None else [found]

        def then(state: ThreadState) -> None:
            if state.any(ns, checkpoint_id) is None:
                self._threads.announce(thread_id, ns, checkpoint_id)

        yield from self._threads.change(thread_id, build, then)

    async def aput(
        self, config: RunnableConfig, checkpoint: LangGraphCheckpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """Store a checkpoint; durable on return. Cancelling the caller does not take it back.

        Raises:
            StaleWriteOwnerError: this saver was superseded. UnregisteredTypeError, EncodingError: a value cannot be stored.
            LogFullError: no space; nothing was stored. AppendOutcomeUnknownError: it may be stored; storing it again is harmless.
        """
        return await run_async(self._put(config, checkpoint, metadata, new_versions))

    def put(
        self, config: RunnableConfig, checkpoint: LangGraphCheckpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """As `aput`."""
        return run_sync(self._put(config, checkpoint, metadata, new_versions))

    async def aput_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Store what a task wrote on a checkpoint, which may not be stored yet; durable on return. A write that is there already stays,
        but on the special channels (error, scheduled, interrupt, resume) the last one counts. Raises as `aput`."""
        await run_async(self._put_writes(config, writes, task_id, task_path))

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """As `aput_writes`."""
        run_sync(self._put_writes(config, writes, task_id, task_path))

    # Reading

    def _get_tuple(self, config: RunnableConfig) -> Steps[CheckpointTuple | None]:
        thread_id, ns, checkpoint_id = place_of(config)
        state = yield from self._threads.settled(thread_id)
        with self._threads.guard:
            found = state.find(ns, checkpoint_id)
            pending = {} if found is None else dict(state.writes(ns, found.id))
            packer = state.packer
        return None if found is None else tuple_of(packer, found, pending, config["configurable"]["thread_id"])

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, or the newest of its thread and namespace: that which was recorded last, whatever clocks say.

        Raises:
            UnregisteredTypeError: it holds a type that is not registered here. CorruptLogError: its stream does not verify.
        """
        return await run_async(self._get_tuple(config))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `aget_tuple`."""
        return run_sync(self._get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints of a thread, or of all threads without `config`, newest first.

        Args:
            filter: metadata that must be equal. before: only those recorded before this one. limit: at most so many.
        """
        listing = Listing(self._threads, config, filter, before, limit)
        while page := await run_async(listing.next_page()):
            for each in page:
                yield each()

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As `alist`."""
        listing = Listing(self._threads, config, filter, before, limit)
        while page := run_sync(listing.next_page()):
            for each in page:
                yield each()

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """As `BaseCheckpointSaver.aget_delta_channel_history`, in one walk; also through checkpoints that were pruned."""
        return await run_async(self._delta_history(config, channels))

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """As `aget_delta_channel_history`."""
        return run_sync(self._delta_history(config, channels))

    def _delta_history(self, config: RunnableConfig, channels: Sequence[str]) -> Steps[Mapping[str, DeltaChannelHistory]]:
        thread_id, ns, checkpoint_id = place_of(config)
        state = yield from self._threads.settled(thread_id)
        with self._threads.guard:
            return delta_history(state, ns, checkpoint_id, channels)

    # Whole threads

    async def athreads(self) -> "list_of_str":
        """The ids of all threads that hold a checkpoint, by name of their streams."""
        return await run_async(thread_ids(self._threads))

    def threads(self) -> "list_of_str":
        """As `athreads`."""
        return run_sync(thread_ids(self._threads))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread. Its id may be used again; its room in the file is free, unless a copy reads what it said (`upkeep`)."""
        await run_async(delete_thread(self._threads, str(thread_id), self._require_claim))

    def delete_thread(self, thread_id: str) -> None:
        """As `adelete_thread`."""
        run_sync(delete_thread(self._threads, str(thread_id), self._require_claim))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Make a thread that holds all that another one holds now: a fork of its stream (S33), which stores nothing twice.

        Raises:
            ThreadWriteError: the target holds something.
        """
        await run_async(self._threads.fork(str(source_thread_id), str(target_thread_id)))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `acopy_thread`."""
        run_sync(self._threads.fork(str(source_thread_id), str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Show only the newest checkpoint of each namespace from now on ("keep_latest"), or delete the threads ("delete").

        Room is given back once a quarter of what a thread stores is of no more use: then what is left of it is told anew (`upkeep`)."""
        await run_async(prune(self._threads, [str(each) for each in thread_ids], strategy, self._require_claim))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `aprune`."""
        run_sync(prune(self._threads, [str(each) for each in thread_ids], strategy, self._require_claim))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints, and their writes, whose metadata has one of these run ids, in every thread and namespace. Their
        room is given back as with `aprune`."""
        await run_async(delete_for_runs(self._threads, list_of(run_ids), self._require_claim))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `adelete_for_runs`."""
        run_sync(delete_for_runs(self._threads, list_of(run_ids), self._require_claim))

    def statistics(self) -> ThreadedStatistics:
        """Commits, and what went into them, since the folder was opened."""
        return self._threads.shard.statistics()

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> "EventLogSaver":
        """Itself: what may be stored is said by `open(types=...)`, by names of the program's own."""
        return self


list_of_str = list[str]


def list_of(items: Sequence[str]) -> list[str]:
    """For a class that has a method called `list`."""
    return [str(item) for item in items]
