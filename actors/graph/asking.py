"""What an interrupt asks for, as data: its id, the node it stands in, the JSON Schema of its answer, how long it may stay open (S20).

LangGraph's own ``interrupt(value, response_schema=...)`` says what an answer must be; of a plain ``interrupt(value)`` the actor class may
say so. A graph that stops at ``compile(interrupt_before=[...])`` asks as well: any answer lets it go on.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from langgraph.types import Command, Interrupt, StateSnapshot

from actors.graph.plain import plain
from actors.json_schema import check, schema_of
from events.codec import encode
from events.errors import ConfigurationError

T = TypeVar("T")
Question = dict[str, Any]
"""``id, value, node``; where there is one ``schema`` (JSON Schema of the answer) and ``timeout_s``; once it is a wait ``wait_id``; where
the node itself has refused what was answered before ``refused``, its reason."""
BREAKPOINT: Final = "breakpoint"
"""Id of the question that a graph asks which was compiled to stop before or behind a node."""


class Asking(NamedTuple):
    """What an actor class says of the interrupts of its graph. schemas, timeouts: by node, as `GraphActor.path` names it; None = others."""

    schemas: Mapping[str | None, bytes | None]
    timeouts: Mapping[str | None, float | None]

    def of(self, interrupt: Interrupt, node: str | None) -> Question:
        """The question that `interrupt` asks in `node`."""
        question: Question = {"id": interrupt.id, "value": plain(interrupt.value), "node": node}
        schema = interrupt.response_schema
        if schema is None:
            own = _by_node(self.schemas, node)
            schema = None if own is None else msgspec.json.decode(own)
        if schema is not None:
            question["schema"] = plain(schema)
        return self._timed(question, node)

    def breakpoint(self, snapshot: StateSnapshot) -> Question:
        """The question that a graph asks which stands still for nobody's question."""
        node = "/".join(snapshot.next)
        return self._timed({"id": BREAKPOINT, "value": {"next": list(snapshot.next)}, "node": node}, node)

    def _timed(self, question: Question, node: str | None) -> Question:
        timeout_s = _by_node(self.timeouts, node)
        return question if timeout_s is None else {**question, "timeout_s": timeout_s}


def asking(name: str, answers: Any, timeouts: Any, nodes: Iterable[str]) -> Asking:
    """What the attributes `answers` and `answer_timeout_s` of an actor class say.

    Args:
        nodes: of the graph itself; those of graphs inside it cannot all be known.

    Raises:
        ConfigurationError: JSON cannot carry a type, a timeout is no positive number, or a node does not exist.
    """
    known = set(nodes)
    types = dict(answers) if isinstance(answers, Mapping) else {None: answers}
    times = dict(timeouts) if isinstance(timeouts, Mapping) else {None: timeouts}
    for node in (*types, *times):
        if node is not None and node.partition("/")[0] not in known:
            raise ConfigurationError(f"{name}: the graph has no node {node!r}; it has {', '.join(sorted(known))}", node=node)
    for timeout_s in times.values():
        if timeout_s is not None and timeout_s <= 0:
            raise ConfigurationError(f"{name}: an interrupt cannot be open for {timeout_s} s")
    return Asking({node: schema_of(type_, name) for node, type_ in types.items()}, times)


def _by_node(found: Mapping[str | None, T], node: str | None) -> T | None:
    return found[node] if node in found else found.get(None)


def questions_of(snapshot: StateSnapshot, nodes: Mapping[str, str], asking: Asking, refused: str | None) -> list[Question]:
    """What a graph asks that has stopped; nothing if it has ended.

    Args:
        nodes: where each interrupt stands, by its id. refused: why a node did not take the answer that it was given.
    """
    found = [asking.of(each, nodes.get(each.id)) for each in snapshot.interrupts]
    if not found and snapshot.next:
        found = [asking.breakpoint(snapshot)]
    return found if refused is None else [{**each, "refused": refused} for each in found]


def schema_bytes(question: Question) -> bytes | None:
    """What the wait of `question` is kept with."""
    schema = question.get("schema")
    return None if schema is None else encode(schema)


def check_answer(question: Question, value: Any) -> None:
    """Raises: BadPayload: `value` is not what `question` asks for."""
    check(schema_bytes(question), value, question["id"])


def going_on(answers: Mapping[str, Any]) -> Command[Any] | None:
    """What LangGraph is invoked with once everything that a graph asked is answered."""
    return None if BREAKPOINT in answers else Command(resume=dict(answers))


def told(questions: Sequence[Question], status: str) -> list[Question]:
    """`questions` as the reply of a run shows them under LangGraph's own ``__interrupt__``."""
    return [{**each, "status": status} for each in questions]
