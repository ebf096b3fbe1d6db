"""A LangGraph graph as an actor: its nodes are steps, its checkpoint is state, its interrupts are durable waits."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from langgraph.errors import is_invalid_resume
from langgraph.graph.state import StateGraph

from actors.actor import Actor, command, query
from actors.errors import Rejected, WaitExpired
from actors.graph.asking import Asking, Question, asking, check_answer, going_on, questions_of, schema_bytes, told
from actors.graph.drawing import drawing, mermaid, shape_of, taken_of
from actors.graph.kinds import Kinds
from actors.graph.kinds_langgraph import BY_TYPE
from actors.graph.node import SPOKEN, Run, running, short_id, tasks_of
from actors.graph.plain import plain
from actors.graph.thread import Advanced, Answered, Asked, Expired, GraphState, GraphThread
from actors.graph.tool_calls import journal_tools
from actors.graph.turn_saver import CHECKPOINT, NODE, Fact, TurnSaver, folded
from actors.journal import Entry
from actors.recovery import Recovery
from events.ids import CommandId

STOPPED: Final = "stopped"
"""The step that ends each part of a run: what lies before it in the journal is folded, not run again."""
INTERRUPT: Final = "interrupt"
"""The name of the waits."""


async def noted(fact: Any) -> None:
    """The step itself does nothing: what it was given is the record."""


class GraphActor(Actor[GraphState]):
    """Subclass as ``class Planner(GraphActor, name="planner"): graph = builder``, or call `graph_actor`.

    A run is one turn. What LangGraph checkpoints is a step of it: after a crash the turn runs again, takes what was recorded, and goes on
    at the first unfinished node, so a node runs again only if it had not finished. Tokens and what nodes say with a stream writer go to
    ``cue.chunk``.

    Each call of a tool by a `ToolNode`, and so by ``langchain.agents.create_agent``, is a step ``tool NAME``: intent, `idempotency_key`,
    result. One that has finished is not done again.

    An ``interrupt(...)`` is a durable wait named ``interrupt`` (S20): answered once, by ``_answer``, whenever that is; several at once are
    asked one after another. The node gets the answer as JSON, or as the class that it gave to ``interrupt(..., response_schema=...)``. An
    answer that does not fit that schema is refused with 400 and the wait stays open; one that only the class itself refuses opens the
    wait anew, with the reason. As long as a thread waits it takes no other `run` and no `resume`.

    graph: a `StateGraph`, or what its ``compile()`` returns; a checkpointer it was compiled with is not used. types: as of
    `EventLogSaver.open`. answers: what an answer to an interrupt without a schema of its own must be, a type as of `Actor.wait_for`.
    answer_timeout_s: how long an interrupt may stay open; None = for ever. Both may be told by node, as `path` names it, with None for all
    others: ``{"research/ask_person": 3_600, None: 60}``. tool_recovery: by name of a tool what becomes of a call that a crash cut off, as
    `recovery` of `Actor.step`; of all others ``repeat``. recursion_limit: LangGraph's, supersteps per run.
    """

    graph: ClassVar[Any] = None
    types: ClassVar[dict[str, type] | None] = None
    answers: ClassVar[Any] = Any
    answer_timeout_s: ClassVar[float | Mapping[str | None, float | None] | None] = None
    tool_recovery: ClassVar[Mapping[str, Recovery]] = {}
    recursion_limit: ClassVar[int] = 1_000
    _compiled: ClassVar[Any] = None
    _asking: ClassVar[Asking]

    def __init_subclass__(cls, *, name: str | None = None, sealed: bool | None = None) -> None:
        super().__init_subclass__(name=name, sealed=sealed)
        if cls.graph is not None:
            cls._compiled = cls.graph.compile() if isinstance(cls.graph, StateGraph) else cls.graph
            journal_tools(cls._compiled)
            cls._asking = asking(name or cls.__name__, cls.answers, cls.answer_timeout_s, cls._compiled.nodes)

    @command
    async def run(self, input: dict[str, Any], thread: str = "main") -> Any:
        """Run the graph on `input` until it ends; replies its output.

        If nobody answers an interrupt in time the run ends in front of it: the reply holds what the state is by then and, as LangGraph has
        it, ``__interrupt__``, the open questions, with ``"status": "expired"``. `resume` goes on from there, another `run` begins anew.

        Raises:
            Rejected: ``reason="waiting"``: an earlier run of the thread waits for an answer; `waits` and `command_id` name it.
        """
        self._check_free(thread)
        return await self._go(thread, input, begun=True)

    @command
    async def resume(self, answers: dict[str, Any], thread: str = "main") -> Any:
        """Go on after interrupts whose run has ended in front of them, because nobody answered in time, or because it was cancelled or
        failed behind them. Of several resumes at once one goes on. Replies as `run`.

        Args:
            answers: for each of the ids that `waiting` lists.

        Raises:
            Rejected: ``reason="waiting"`` as `run`: an open wait is answered by ``_answer``; ``reason="not_open"``: `open` lists the ids
                that answers are wanted for.
            BadPayload: an answer is not what its interrupt asks for; nothing was done.
        """
        self._check_free(thread)
        held = self._thread(thread)
        wanted = {each["id"]: each for each in held.waiting}
        if not wanted or set(answers) != set(wanted):
            raise Rejected(
                f"thread {thread!r}: answers must be given for exactly the open interrupts", reason="not_open", thread=thread,
                open=sorted(wanted),
            )  # fmt: skip
        for name, value in answers.items():
            check_answer(wanted[name], value)
        return await self._go(thread, going_on({**held.answered, **answers}), begun=False)

    @query
    def values(self, thread: str = "main") -> Any:
        """The values of the graph's state as of the last end or interrupt; null if it never ran."""
        saver = folded(thread, self._kinds(), self._thread(thread).facts)
        found = saver.find("", None)
        if found is None:
            return None
        # A checkpoint also holds channels of LangGraph's own: where it goes next, and what it has sent there.
        shown = [name for name in self._compiled.stream_channels_list if name in found.values]
        return plain({name: saver.packer.value(found.values[name].text()) for name in shown})

    @query
    def waiting(self, thread: str = "main") -> list[dict[str, Any]]:
        """The open interrupts: ``id, value, node, wait_id``, and ``schema``, ``timeout_s``, ``refused`` where there are."""
        return self._thread(thread).waiting

    @query
    def status(self, thread: str = "main") -> str:
        """As of what is committed: new; waiting, also while the run goes on behind its answer; expired; done; or stopped: the run was
        cancelled, or failed, behind an interrupt, and `resume` goes on from there."""
        held = self._thread(thread)
        return "stopped" if held.status == "waiting" and not self._waits(held) else held.status

    @query
    def path(self, thread: str = "main") -> list[str]:
        """The nodes that finished in the last run, in order; inside a subgraph as ``outer/inner``."""
        return self._thread(thread).path

    @query
    def drawing(self, thread: str = "main") -> str:
        """The graph as a Mermaid flowchart, with the path of the last run on it: nodes with the order in which they ended, open questions.
        `cuebook trace TYPE/ID` knows more of it."""
        held = self._thread(thread)
        run = taken_of(held.path, held.status, held.waiting)
        return mermaid(drawing(f"{self.actor_type}/{self.id}", run, shape_of(self._compiled)))

    def _thread(self, thread: str) -> GraphThread:
        return self.state.threads.get(thread) or GraphThread()

    def _waits(self, held: GraphThread) -> bool:
        """Whether there is a turn that goes on with the thread once it is answered."""
        return held.run is not None and self._turn.under_way(CommandId(held.run))

    def _check_free(self, thread: str) -> None:
        """Raises: Rejected: an earlier run has the thread."""
        held, own = self._thread(thread), self._turn.command.command_id
        if held.status != "waiting" or held.run == own or not self._waits(held):
            return
        waits = [each["wait_id"] for each in held.waiting]
        raise Rejected(
            f"thread {thread!r} of {self.actor_type}/{self.id} waits for an answer: give it (_answer; cuebook waits answer {waits[0]}), "
            f"or end the run (_cancel; cuebook cancel {self.actor_type}/{self.id} {held.run})",
            reason="waiting", thread=thread, waits=waits, command_id=held.run,
        )  # fmt: skip

    def _kinds(self) -> Kinds:
        return Kinds(self.types, BY_TYPE)

    async def _note(self, name: str, fact: Fact) -> None:
        await self.step(name, noted, fact)

    async def _go(self, thread: str, request: Any, *, begun: bool) -> Any:
        while True:
            saver = TurnSaver(thread, self._kinds(), self._thread(thread).facts, self._note)
            stopped = await self._take_up(saver)
            if stopped is None:
                stopped = await self._advance(thread, saver, request)
                await self.step(STOPPED, noted, stopped)
            questions = self._as_waits(stopped["waiting"])
            waiting = [{"id": each["id"], "value": each["value"]} for each in questions]
            self.emit(Advanced(thread=thread, facts=stopped["facts"], path=stopped["path"], waiting=waiting, begun=begun))
            begun = False
            if not questions:
                return plain(await self._output(thread))
            self.emit(Asked(thread=thread, run=self._turn.command.command_id, questions=questions))
            answers = await self._answers(thread, questions)
            if answers is None:
                output = plain(await self._output(thread))
                shown = told(self._thread(thread).waiting, "expired")
                return {**(output if isinstance(output, dict) else {}), "__interrupt__": shown}
            request = going_on(answers)

    async def _advance(self, thread: str, saver: TurnSaver, request: Any) -> dict[str, Any]:
        """Let the graph run to its end or to interrupts; what is to be recorded of that."""
        graph = self._compiled.copy(update={"checkpointer": saver})
        config: Any = {"configurable": {"thread_id": thread}, "recursion_limit": self.recursion_limit}
        refused: str | None = None
        try:
            with running(Run(self, saver)):
                await self._stream(graph, None if saver.advanced else request, config)
        except ValueError as error:
            # A validator of the node's own, which no JSON Schema can tell of. LangGraph has saved nothing of the answer.
            if not is_invalid_resume(error):
                raise
            refused = str(error)
        questions = questions_of(await graph.aget_state(config), saver.interrupted(), self._asking, refused)
        return {"waiting": questions, "facts": saver.newest(subgraphs=bool(questions)), "path": saver.path}

    def _as_waits(self, questions: Sequence[Question]) -> list[Question]:
        """`questions` with the ids of the waits that they are about to become."""
        first = self._turn.next_wait(INTERRUPT)
        return [{**each, "wait_id": self._turn.wait_id(INTERRUPT, n)} for n, each in enumerate(questions, first)]

    async def _answers(self, thread: str, questions: Sequence[Question]) -> dict[str, Any] | None:
        """What is answered to `questions`, by id; None if nobody did in time."""
        answers: dict[str, Any] = {}
        for each in questions:
            try:
                value = await self._turn.wait_for(INTERRUPT, each.get("timeout_s"), Any, schema=schema_bytes(each))
            except WaitExpired:
                self.emit(Expired(thread=thread, id=each["id"]))
                return None
            self.emit(Answered(thread=thread, id=each["id"], value=value))
            answers[each["id"]] = value
        return answers

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
