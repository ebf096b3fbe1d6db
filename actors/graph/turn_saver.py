"""The checkpointer of a graph that runs inside an actor: it writes through the actor's turn, not into a file of its own (S15, S19).

What LangGraph saves, a checkpoint or the writes of a task that has finished, is the intent of one step of the turn, so it is durable when
the save returns. A turn that runs again after a crash reads these steps back first; LangGraph then goes on at the first unfinished node,
as it does with any checkpointer.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
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
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from msgspec import UNSET

from actors.graph import recorded
from actors.graph.difference import saved, write, writes
from actors.graph.kinds import Kinds
from actors.graph.kinds_langgraph import fingerprint
from actors.graph.listing import Wanted
from actors.graph.packing import Packer
from actors.graph.places import config_of, place_of, place_of_writes
from actors.graph.thread_state import ThreadState
from actors.graph.threads import Said, thread_state
from actors.graph.tuples import delta_history, tuple_of
from events.errors import CorruptLogError

T = TypeVar("T")
list_of = list
"""For a class that has a method called `list`."""
Fact = dict[str, Any]
"""``{"type": tag, "fact": payload}`` of one event of `recorded`."""
Note = Callable[[str, Fact], Awaitable[None]]
"""Makes a fact durable under the name of a step."""
CHECKPOINT: Final = "checkpoint"
NODE: Final = "node "
_PULLED: Final = re.compile(r"^~__pregel_pull, (.+)$")
_PUSHED: Final = re.compile(r"^~__pregel_push, (\d+), 0+$")
"""The task of the n-th `Send` of a checkpoint. Any other push is a call of a ``@task``, which says no name."""
_SENDS: Final = "__pregel_tasks"


class TurnSaver(BaseCheckpointSaver[int]):
    """One thread during one turn. Async use on the turn's loop; the sync methods are for nodes that run in threads."""

    def __init__(self, thread_id: str, kinds: Kinds, facts: Sequence[Fact], note: Note) -> None:
        super().__init__()
        self.path: list[str] = []
        """The nodes that have finished since this was made, in the order in which that was recorded."""
        self.finished: set[str] = set()
        """The tasks that have."""
        self.advanced = False
        """Whether a checkpoint of the graph itself was recorded since this was made."""
        self._kinds = kinds
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self.state = folded(thread_id, kinds, facts)

    def fold(self, fact: Fact) -> None:
        """Take a fact as it was recorded.

        Raises:
            CorruptLogError: it is not what we write.
        """
        self._follow(_apply(self.state, fact))

    def _follow(self, event: Any) -> None:
        if isinstance(event, recorded.Saved) and not event.ns:
            self.advanced = True
        if not has_finished(event):
            return
        self.finished.add(event.task)
        name = self._name(event.ns, None if event.checkpoint is UNSET else event.checkpoint, event.path)
        if not name.endswith("__start__"):
            self.path.append(name)

    def interrupted(self) -> dict[str, str]:
        """The node that each open interrupt stands in, the innermost, by the interrupt's id."""
        found: dict[str, str] = {}
        for ns in sorted(self.state.namespaces(), key=lambda ns: ns.count("|") + bool(ns)):
            newest = self.state.find(ns, None)
            for each in () if newest is None else self.state.writes(ns, newest.id).values():
                if each.channel == INTERRUPT and newest is not None:
                    raised = self.state.packer.value(each.value)
                    node = self._name(ns, newest.id, each.path)
                    found.update((one.id, node) for one in (raised if isinstance(raised, (list_of, tuple)) else (raised,)))
        return found

    async def written(self) -> None:
        """Return once everything that LangGraph has begun to save is durable."""
        async with self._lock:  # whoever came before has had it
            return

    async def _record(self, build: Callable[[ThreadState], Said], name: str) -> None:
        # One after another: parts are numbered in the order of the journal.
        async with self._lock:
            said: list[Any] = []

            def told() -> Said:
                said.extend(build(self.state))
                return said

            for event in write(self.state, told):
                await self._note(name, {"type": event.type, "fact": msgspec.json.decode(event.payload)})
            for struct, _ in said:
                self._follow(struct)

    # Writing

    async def aput(
        self, config: RunnableConfig, checkpoint: LangGraphCheckpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """A step ``checkpoint`` of the turn; durable on return. Raises as `Actor.step`."""
        _, ns, parent_id = place_of(config)
        told = get_checkpoint_metadata(config, metadata)
        await self._record(lambda state: [saved(state, ns, parent_id, checkpoint, told, new_versions, {})], CHECKPOINT)
        return config_of(config, ns, checkpoint["id"])

    async def aput_writes(self, config: RunnableConfig, pairs: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """A step ``node NAME`` of the turn; durable on return."""
        _, ns, checkpoint_id = place_of_writes(config)

        def build(state: ThreadState) -> Said:
            found = writes(state, ns, checkpoint_id, task_id, task_path, pairs)
            return [] if found is None else [found]

        await self._record(build, NODE + self._name(ns, checkpoint_id, task_path))

    def _name(self, ns: str, checkpoint_id: str | None, path: str) -> str:
        """The node that a task is of, with those of the graphs around it before it: ``outer/inner``."""
        outer = [part.partition(":")[0] for part in ns.split("|") if part]
        if found := _PULLED.search(path):
            return "/".join([*outer, found[1]])
        if not path:
            return "/".join([*outer, "input"])
        sent = _PUSHED.search(path)
        checkpoint = None if sent is None else self.state.find(ns, checkpoint_id)
        if sent is None or checkpoint is None or _SENDS not in checkpoint.values:
            return "/".join([*outer, "task"])
        packets = self.state.packer.value(checkpoint.values[_SENDS].text())
        return "/".join([*outer, packets[int(sent[1])].node])

    def put(
        self, config: RunnableConfig, checkpoint: LangGraphCheckpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        stored: RunnableConfig = self._from_thread(self.aput(config, checkpoint, metadata, new_versions))
        return stored

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        self._from_thread(self.aput_writes(config, writes, task_id, task_path))

    def _from_thread(self, act: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(act, self._loop).result()

    # Reading: all of it is in memory

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id, ns, checkpoint_id = place_of(config)
        found = self.state.find(ns, checkpoint_id)
        return None if found is None else tuple_of(self.state.packer, found, dict(self.state.writes(ns, found.id)), thread_id)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.get_tuple(config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints of this turn, and the one that it began with, newest first. Arguments as for `EventLogSaver.list`."""
        for found in Wanted(config, filter, before).newest_first(self.state)[:limit]:
            yield tuple_of(self.state.packer, found, dict(self.state.writes(found.ns, found.id)), self.state.thread_id)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for each in self.list(config, filter=filter, before=before, limit=limit):
            yield each

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        _, ns, checkpoint_id = place_of(config)
        return delta_history(self.state, ns, checkpoint_id, channels)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        return self.get_delta_channel_history(config=config, channels=channels)

    # What stays of the turn

    def newest(self, *, subgraphs: bool) -> "list_of_facts":
        """The newest checkpoint, with what was written on it, told anew: what the next turn begins with.

        Args:
            subgraphs: those of graphs inside this one too: it stopped in the middle of them.
        """
        state = thread_state(self.state.thread_id, Packer(self._kinds, fingerprint))
        facts: list_of_facts = []
        for ns in self.state.namespaces() if subgraphs else [""]:
            found = self.state.find(ns, None)
            if found is None:
                continue
            whole = tuple_of(self.state.packer, found, dict(self.state.writes(ns, found.id)), self.state.thread_id)
            _tell(facts, state, self.state, found.id, ns, whole)
        return facts


list_of_facts = list[Fact]


def _tell(facts: list_of_facts, state: ThreadState, source: ThreadState, checkpoint_id: str, ns: str, whole: CheckpointTuple) -> None:
    checkpoint: Any = whole.checkpoint
    told: list[Callable[[], Said]] = [lambda: [saved(state, ns, None, checkpoint, whole.metadata, checkpoint["channel_versions"], {})]]
    by_task: dict[str, list[tuple[int, str, Any, str]]] = {}
    for (task, index), each in source.writes(ns, checkpoint_id).items():
        by_task.setdefault(task, []).append((index, each.channel, source.packer.value(each.value), each.path))
    for task, rows in by_task.items():

        def some(task: str = task, rows: Any = rows) -> Said:
            event = recorded.Writes(ns=ns, task=task, path=rows[0][3], writes=[])
            event.writes = [(index, channel, msgspec.Raw(state.packer.shared(value))) for index, channel, value, _ in rows]
            return [(event, None)]

        told.append(some)
    for build in told:
        facts += [{"type": event.type, "fact": msgspec.json.decode(event.payload)} for event in write(state, build)]


def folded(thread_id: str, kinds: Kinds, facts: Sequence[Fact]) -> ThreadState:
    """The thread that `facts` tell, in order. Raises as `TurnSaver.fold`."""
    state = thread_state(thread_id, Packer(kinds, fingerprint))
    for fact in facts:
        _apply(state, fact)
    return state


def _apply(state: ThreadState, fact: Fact) -> Any:
    decoder = recorded.BY_TYPE.get(fact.get("type", ""))
    if decoder is None:
        raise CorruptLogError(f"{fact.get('type')!r} is no fact of a graph")
    event = decoder.decode(msgspec.json.encode(fact["fact"]))
    state.version += 1
    state.apply(event, state.version)
    return event


_UNFINISHED: Final = frozenset({ERROR, INTERRUPT})


def has_finished(event: Any) -> bool:
    """Whether `event` says what a task gave that has come to its end."""
    if not isinstance(event, recorded.Writes) or not event.path:
        return False
    channels = {channel for _, channel, _ in event.writes}
    return not channels & _UNFINISHED and channels != {RESUME}
