"""A LangGraph graph as an actor: its nodes are steps, its checkpoint is state, its interrupts are durable waits."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from langchain_core.messages import BaseMessage
from langgraph.graph.state import StateGraph
from langgraph.types import Command

from actors.actor import Actor, command, query
from actors.errors import Rejected
from actors.event import Event, State
from actors.graph.kinds import Kinds
from actors.graph.kinds_langgraph import BY_TYPE
from actors.graph.node import SPOKEN, Run, running, short_id, tasks_of
from actors.graph.turn_saver import CHECKPOINT, NODE, Fact, TurnSaver, folded
from actors.journal import Entry

STOPPED: Final = "stopped"
"""The step that ends each part of a run: what lies before it in the journal is folded, not run again."""


class GraphThread(State):
    """One conversation. facts: the newest checkpoint, as `TurnSaver.newest` tells it. path: the nodes that finished in the last run.
    waiting: the interrupts that are open, as ``{"id", "value"}``. status: new, waiting or done."""

    facts: list[Fact] = []
    path: list[str] = []
    waiting: list[dict[str, Any]] = []
    status: str = "new"


class GraphState(State):
    """What a graph actor keeps, by name of the thread."""

    threads: dict[str, GraphThread] = {}


class Advanced(Event[GraphState], tag="graph.advanced"):
    """A run came to its end, or to interrupts. path: what finished since it began or was answered last. begun: a run begins with it."""

    thread: str
    facts: list[Fact]
    path: list[str]
    waiting: list[dict[str, Any]]
    begun: bool

    def apply(self, state: GraphState) -> None:
        former = state.threads.get(self.thread)
        path = [] if former is None or self.begun else former.path
        state.threads[self.thread] = GraphThread(
            facts=self.facts, path=path + self.path, waiting=self.waiting, status="waiting" if self.waiting else "done"
        )


async def noted(fact: Any) -> None:
    """The step itself does nothing: what it was given is the record."""


class GraphActor(Actor[GraphState]):
    """Subclass as ``class Planner(GraphActor, name="planner"): graph = builder``, or call `graph_actor`.

    A run is one turn. What LangGraph checkpoints is a step of it: after a crash the turn runs again, takes what was recorded, and goes on
    at the first unfinished node, so a node runs again only if it had not finished. An ``interrupt(...)`` is a durable wait named
    ``interrupt`` (S20): answered once, by ``_answer``, whenever that is. Tokens and what nodes say with a stream writer go to
    ``cue.chunk``.

    graph: a `StateGraph`, or what its ``compile()`` returns; a checkpointer it was compiled with is not used. types: as of
    `EventLogSaver.open`. answers: what an answer to an interrupt must be. answer_timeout_s: how long an interrupt may stay open; None =
    for ever. recursion_limit: LangGraph's, supersteps per run.
    """

    graph: ClassVar[Any] = None
    types: ClassVar[dict[str, type] | None] = None
    answers: ClassVar[Any] = Any
    answer_timeout_s: ClassVar[float | None] = None
    recursion_limit: ClassVar[int] = 1_000
    _compiled: ClassVar[Any] = None

    def __init_subclass__(cls, *, name: str | None = None, sealed: bool | None = None) -> None:
        super().__init_subclass__(name=name, sealed=sealed)
        if cls.graph is not None:
            cls._compiled = cls.graph.compile() if isinstance(cls.graph, StateGraph) else cls.graph

    @command
    async def run(self, input: dict[str, Any], thread: str = "main") -> Any:
        """Run the graph on `input` until it ends; replies its output. Raises (from ``_answer``): WaitExpired."""
        return await self._go(thread, input, begun=True)

    @command
    async def resume(self, answers: dict[str, Any], thread: str = "main") -> Any:
        """Go on after interrupts whose waits have expired, with an answer for each of their ids (as `waiting` lists them)."""
        open_ids = {each["id"] for each in self._thread(thread).waiting}
        if not open_ids or set(answers) != open_ids:
            raise Rejected("answers must be given for exactly the open interrupts", open=sorted(open_ids))
        return await self._go(thread, Command(resume=answers), begun=False)

    @query
    def values(self, thread: str = "main") -> Any:
        """The values of the graph's state as of the last end or interrupt; null if it never ran."""
        saver = folded(thread, self._kinds(), self._thread(thread).facts)
        found = saver.find("", None)
        return None if found is None else plain({name: saver.packer.value(value.text()) for name, value in found.values.items()})

    @query
    def waiting(self, thread: str = "main") -> list[dict[str, Any]]:
        """The open interrupts."""
        return self._thread(thread).waiting

    @query
    def path(self, thread: str = "main") -> list[str]:
        """The nodes that finished in the last run, in order; inside a subgraph as ``outer/inner``."""
        return self._thread(thread).path

    @query
    def drawing(self, thread: str = "main") -> str:
        """The path of the last run as a Mermaid flowchart."""
        return mermaid(self._thread(thread).path, self._thread(thread).status)

    def _thread(self, thread: str) -> GraphThread:
        return self.state.threads.get(thread) or GraphThread()

    def _kinds(self) -> Kinds:
        return Kinds(self.types, BY_TYPE)

    async def _note(self, name: str, fact: Fact) -> None:
        await self.step(name, noted, fact)

    async def _go(self, thread: str, request: Any, *, begun: bool) -> Any:
        while True:
            saver = TurnSaver(thread, self._kinds(), self._thread(thread).facts, self._note)
            stopped = await self._take_up(saver)
            if stopped is None:
                graph = self._compiled.copy(update={"checkpointer": saver})
                config: Any = {"configurable": {"thread_id": thread}, "recursion_limit": self.recursion_limit}
                with running(Run(self, saver)):
                    await self._stream(graph, None if saver.advanced else request, config)
                snapshot = await graph.aget_state(config)
                waiting = [{"id": each.id, "value": plain(each.value)} for each in snapshot.interrupts]
                stopped = {"waiting": waiting, "facts": saver.newest(subgraphs=bool(waiting)), "path": saver.path}
                await self.step(STOPPED, noted, stopped)
            waiting = stopped["waiting"]
            self.emit(Advanced(thread=thread, facts=stopped["facts"], path=stopped["path"], waiting=waiting, begun=begun))
            begun = False
            if not waiting:
                return plain(await self._output(thread))
            answers = {}
            for each in waiting:
                answers[each["id"]] = await self.wait_for("interrupt", timeout_s=self.answer_timeout_s, type=self.answers)
            request = Command(resume=answers)

    async def _take_up(self, saver: TurnSaver) -> dict[str, Any] | None:
        """Fold what the turn has recorded since its start or last wait; what it stopped at, if it did."""
        of_nodes: list[Entry] = []
        stopped: dict[str, Any] | None = None
        for entry in list(self._turn.entries.values()):
            use = entry.use
            if entry.consumed or use.kind == "wait":
                continue
            if use.key is not None or not (use.name in (CHECKPOINT, STOPPED) or use.name.startswith(NODE)):
                of_nodes.append(entry)
                continue
            (fact,) = entry.started["args"]
            await self.step(use.name, noted, fact)
            if use.name == STOPPED:
                stopped = fact
                break
            saver.fold(fact)
        # What a finished node asked for is part of what it gave. One that stopped at an interrupt finds its own behind it.
        done = {short_id(task) for task in saver.finished}
        for entry in of_nodes:
            tasks = tasks_of(entry.use.key)
            if tasks and (stopped is not None or tasks & done):
                entry.consumed = True
        return stopped

    async def _stream(self, graph: Any, request: Any, config: Any) -> None:
        async for ns, mode, part in graph.astream(
            request, config, stream_mode=["messages", "custom"], subgraphs=True, durability="sync"
        ):
            where = [each.partition(":")[0] for each in ns]
            if mode == "custom":
                self.chunk({"graph": where, "said": plain(part)})
            elif part[0].content and SPOKEN not in part[0].response_metadata:
                self.chunk({"graph": where, "node": part[1].get("langgraph_node"), "token": plain(part[0].content)})

    async def _output(self, thread: str) -> Any:
        saver = TurnSaver(thread, self._kinds(), self._thread(thread).facts, self._note)
        graph = self._compiled.copy(update={"checkpointer": saver})
        return (await graph.aget_state({"configurable": {"thread_id": thread}})).values


def graph_actor(graph: Any, *, name: str, **attributes: Any) -> type[GraphActor]:
    """An actor class for `graph`. attributes: class attributes of `GraphActor`, such as `types` and `answer_timeout_s`."""
    made: type[GraphActor] = types.new_class(
        f"GraphActor_{name}", (GraphActor,), {"name": name}, lambda body: body.update(graph=graph, **attributes)
    )
    return made


def mermaid(path: Sequence[str], status: str) -> str:
    """The nodes of `path`, in order, as a Mermaid flowchart."""
    lines = ["flowchart TD", "    n0([start])"]
    for number, node in enumerate(path, 1):
        label = node.replace('"', "#quot;")
        lines += [f'    n{number}["{label}"]', f"    n{number - 1} --> n{number}"]
    return "\n".join([*lines, f"    n{len(path)} --> last([{status}])"])


def plain(value: Any) -> Any:
    """`value` as JSON shows it to a program in any language: messages as objects with ``type`` and ``content``."""
    if isinstance(value, BaseMessage):
        return plain(value.model_dump(mode="json", exclude_defaults=False))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
