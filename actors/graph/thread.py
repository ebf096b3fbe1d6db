"""What a graph actor keeps of its conversations, and the facts that change it."""

from typing import Any

import msgspec

from actors.event import Event, State
from actors.graph.turn_saver import Fact


class GraphThread(State):
    """One conversation. facts: the newest checkpoint, as `TurnSaver.newest` tells it. path: the nodes that finished in the last run.
    waiting: the interrupts that nobody has answered, as `actors.graph.asking` makes them. answered: by id, what was answered of the others
    that the run stopped at. run: the command whose turn asks. status: new, waiting, expired or done."""

    facts: list[Fact] = []
    path: list[str] = []
    waiting: list[dict[str, Any]] = []
    answered: dict[str, Any] = {}
    run: str | None = None
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


class Asked(Event[GraphState], tag="graph.asked"):
    """The interrupts that a run has come to become waits, one after another. run: its command. questions: see `actors.graph.asking`."""

    thread: str
    run: str
    questions: list[dict[str, Any]]

    def apply(self, state: GraphState) -> None:
        state.threads[self.thread] = msgspec.structs.replace(state.threads[self.thread], waiting=self.questions, run=self.run)


class Answered(Event[GraphState], tag="graph.answered"):
    """Somebody has answered an interrupt. The run goes on once the others that it stopped at are answered as well."""

    thread: str
    id: str
    value: Any

    def apply(self, state: GraphState) -> None:
        former = state.threads[self.thread]
        state.threads[self.thread] = msgspec.structs.replace(
            former,
            waiting=[each for each in former.waiting if each["id"] != self.id],
            answered={**former.answered, self.id: self.value},
        )


class Expired(Event[GraphState], tag="graph.expired"):
    """Nobody answered the interrupt `id` in time: the run has ended in front of it."""

    thread: str
    id: str

    def apply(self, state: GraphState) -> None:
        state.threads[self.thread] = msgspec.structs.replace(state.threads[self.thread], status="expired")
