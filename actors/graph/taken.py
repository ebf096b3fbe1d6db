"""The paths that the runs of a graph took, read from the stream of its actor: no code of the graph is needed, and none is called.

What is read is the journal (FORMAT.md 7): the steps ``checkpoint`` and ``node NAME``, what nodes asked of their actor, and what became of
the interrupts.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import msgspec
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT
from msgspec import UNSET

from actors.graph import recorded
from actors.graph.node import short_id, tasks_of
from actors.graph.tool_calls import TOOL
from actors.graph.turn_saver import CHECKPOINT, NODE, has_finished
from actors.journal import TURN_CANCELLED, TURN_COMPLETED, TURN_ENDS, TURN_STARTED, Started
from events.envelope import RecordedEvent

START: Final = "__start__"
END: Final = "__end__"
_ENDED: Final = {TURN_COMPLETED: "done", TURN_CANCELLED: "cancelled"}
Place = tuple[str, str]
"""A superstep: (namespace of the graph, id of the checkpoint that it begins with)."""


class Visit(msgspec.Struct, kw_only=True):
    """One time that a node came to its end. order: from 1, in the order in which that was recorded. took_us: since its superstep began, or
    since its question was answered. effects: names of the steps, asks and views that it had, with how often each."""

    node: str
    order: int
    place: Place
    at_us: int
    took_us: int
    effects: dict[str, int] = {}


class Interrupted(msgspec.Struct, kw_only=True):
    """A question. outcome: open, answered, expired, or how the run ended instead."""

    id: str
    node: str | None
    value: Any
    at_us: int
    wait_id: str
    outcome: str = "open"
    answer: Any = None


class Taken(msgspec.Struct, kw_only=True):
    """One run: the path that it took, in order. under_way: nodes that had begun and not ended. status: done, waiting, expired, under way,
    failed, ... command_ids: of the run, and of the resumes that went on with it."""

    thread: str
    command_ids: list[str]
    began_us: int
    ended_us: int
    visits: list[Visit] = []
    interrupts: list[Interrupted] = []
    under_way: list[str] = []
    status: str = "under way"
    error: str | None = None
    arrivals: dict[Place, list[str]] = {}
    """By superstep, in order: the nodes that ended or asked in it."""
    places: dict[str, list[str]] = {}
    """By namespace, in order: its supersteps."""

    def follows(self) -> dict[tuple[str, str], int]:
        """How often a node of one superstep was followed by one of the next of the same graph: (node, node behind it) to count."""
        found: dict[tuple[str, str], int] = {}
        for ns, checkpoints in self.places.items():
            ways = [self.arrivals.get((ns, each), []) for each in checkpoints]
            ways = [each for each in ways if each]
            prefix = outer_of(ns)
            if ways and not ways[0][0].endswith(START):
                ways.insert(0, [prefix + START])
            if ways and (self.status == "done" or any(each.node + "/" == prefix for each in self.visits)):
                ways.append([prefix + END])
            for here, there in pairwise(ways):
                for pair in {(a, b) for a in here for b in there}:
                    found[pair] = found.get(pair, 0) + max(here.count(pair[0]), there.count(pair[1]))
        return found


def outer_of(ns: str) -> str:
    """What stands before the names of the nodes of a namespace: ``outer/`` for ``outer:task-id``."""
    return "".join(part.partition(":")[0] + "/" for part in ns.split("|") if part)


def taken(events: Iterable[RecordedEvent]) -> list[Taken]:
    """The runs of a graph actor, in the order in which they began; none if the stream is not of one. events: of its stream, in order."""
    reading = _Reading()
    for event in events:
        reading.add(event)
    return [each for each in reading.runs if each.places]


class _Memory(msgspec.Struct):
    """What is known of a run while it is read. newest, since: the newest superstep of each namespace, and when each began. asked: the tasks
    that have asked; answered_us: when somebody answered last. calls: parts of keys that are calls of tools and no tasks. begun: nodes that
    had an effect and have not ended, by task."""

    newest: dict[str, str] = {}
    since: dict[Place, int] = {}
    arrived: set[tuple[Place, str]] = set()
    asked: set[str] = set()
    answered_us: int = 0
    effects: dict[str, dict[str, int]] = {}
    calls: set[str] = set()
    begun: dict[str, str] = {}


class _Advanced(msgspec.Struct):
    waiting: list[msgspec.Raw]


class _Reading:
    def __init__(self) -> None:
        self.runs: list[Taken] = []
        self._by_command: dict[str, tuple[Taken, _Memory]] = {}

    def add(self, event: RecordedEvent) -> None:
        if event.type == TURN_STARTED:
            self._begin(event)
        found = self._by_command.get(event.command_id or "")
        if found is None:
            return
        run, memory = found
        run.ended_us = event.recorded_at_us
        if event.type in ("step.started", "ask.started", "view.started"):
            self._effect(run, memory, event)
        elif event.type in ("graph.asked", "graph.expired", "wait.answered"):
            _question(run, memory, event)
        elif event.type == "graph.advanced":
            if not msgspec.json.decode(event.payload, type=_Advanced).waiting:
                run.status = "done"
        elif event.type in TURN_ENDS:
            _end(run, event)
        run.under_way = sorted(set(memory.begun.values()))

    def _begin(self, event: RecordedEvent) -> None:
        started = msgspec.json.decode(event.payload, type=Started)
        arguments = msgspec.json.decode(started.arguments, type=dict[str, Any])
        thread = arguments.get("thread", "main")
        former = next((each for each in reversed(self.runs) if each.thread == thread), None)
        if started.command == "resume" and former is not None:
            memory = self._by_command[former.command_ids[0]][1]
            former.command_ids.append(started.command_id)
            former.status, former.error, memory.answered_us = "under way", None, event.recorded_at_us
            memory.begun.clear()
            for each in former.interrupts:
                if each.outcome != "answered" and each.id in arguments["answers"]:
                    each.outcome, each.answer = "answered", arguments["answers"][each.id]
            self._by_command[started.command_id] = former, memory
        else:
            run = Taken(thread=thread, command_ids=[started.command_id], began_us=event.recorded_at_us, ended_us=event.recorded_at_us)
            self.runs.append(run)
            self._by_command[started.command_id] = run, _Memory()

    def _effect(self, run: Taken, memory: _Memory, event: RecordedEvent) -> None:
        payload = msgspec.json.decode(event.payload)
        name, key = payload["name"], payload.get("key")
        if tasks_of(key):
            _of_node(memory, name, key)
        elif name == CHECKPOINT or name.startswith(NODE):
            (told,) = payload["args"]
            decoder = recorded.BY_TYPE.get(told["type"])
            fact = None if decoder is None else decoder.decode(msgspec.json.encode(told["fact"]))
            if isinstance(fact, recorded.Saved):
                memory.newest[fact.ns] = fact.id
                memory.since[fact.ns, fact.id] = event.recorded_at_us
                run.places.setdefault(fact.ns, []).append(fact.id)
            elif isinstance(fact, recorded.Writes):
                _wrote(run, memory, event, name.removeprefix(NODE), fact)


def _of_node(memory: _Memory, name: str, key: str) -> None:
    """An effect of a node, or of a tool that it calls."""
    parts = key.partition(" ")[0].split("|")
    if name.startswith(TOOL):
        memory.calls.add(parts[-1])
    tasks = [part for part in parts if part not in memory.calls]
    memory.begun[tasks[-1].rpartition(":")[2]] = "/".join(part.rpartition(":")[0] for part in tasks)
    for task in tasks_of(key):
        counts = memory.effects.setdefault(task, {})
        counts[name] = counts.get(name, 0) + 1


def _wrote(run: Taken, memory: _Memory, event: RecordedEvent, node: str, fact: recorded.Writes) -> None:
    checkpoint = memory.newest.get(fact.ns, "") if fact.checkpoint is UNSET else str(fact.checkpoint)
    place = (fact.ns, checkpoint)
    if checkpoint not in run.places.setdefault(fact.ns, []):
        run.places[fact.ns].append(checkpoint)
    channels, task = {channel for _, channel, _ in fact.writes}, fact.task
    asked = INTERRUPT in channels
    if ERROR in channels:
        memory.begun[short_id(task)] = node  # tried again, or the end of the run
    if not asked and not has_finished(fact):
        return
    memory.begun.pop(short_id(task), None)
    if (place, task) not in memory.arrived:
        memory.arrived.add((place, task))
        run.arrivals.setdefault(place, []).append(node)
    if asked:
        memory.asked.add(task)
    elif not node.endswith(START):
        since = max(memory.since.get(place, run.began_us), memory.answered_us if task in memory.asked else 0)
        run.visits.append(
            Visit(
                node=node, order=len(run.visits) + 1, place=place, at_us=event.recorded_at_us,
                took_us=max(0, event.recorded_at_us - since), effects=memory.effects.get(short_id(task), {}),
            )
        )  # fmt: skip


def _question(run: Taken, memory: _Memory, event: RecordedEvent) -> None:
    payload = msgspec.json.decode(event.payload)
    if event.type == "graph.asked":
        run.status = "waiting"
        for each in payload["questions"]:
            question = Interrupted(
                id=each["id"], node=each.get("node"), value=each["value"], at_us=event.recorded_at_us, wait_id=each["wait_id"]
            )  # fmt: skip
            run.interrupts.append(question)
    elif event.type == "graph.expired":
        run.status = "expired"
        for each in run.interrupts:
            each.outcome = "expired" if each.outcome == "open" else each.outcome
    else:
        memory.answered_us = event.recorded_at_us
        for each in run.interrupts:
            if each.wait_id == payload["wait_id"]:
                each.outcome, each.answer = "answered", payload["value"]
        if not any(each.outcome == "open" for each in run.interrupts):
            run.status = "under way"


def _end(run: Taken, event: RecordedEvent) -> None:
    if event.type != TURN_COMPLETED or run.status not in ("expired", "done"):
        run.status = _ENDED.get(event.type, event.type.removeprefix("turn."))
    run.error = event.error
    for each in run.interrupts:
        if each.outcome == "open":
            each.outcome = run.status
