"""What the memory of a workspace records, and the little that its actor needs to decide the next command.

The state holds no memories: a workspace may have a hundred thousand, and what is found in them is the business of the projection `memory`.
It holds counts, and for each subject what is known to hold, because what is new and what is gone is decided here and not in a view that
may lag.
"""

from typing import Annotated, Any, Literal

import msgspec

from actors.event import Event, State
from actors.sensitive import Sensitive

MemoryType = Literal["episodic", "semantic", "procedural", "entity"]
"""What happened | what is so | how something is done | what a named thing is."""
Importance = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """An `events.embedding.Embedding` as it is recorded: the same JSON. A vector can be turned back into words that are near the text, so
    it is as sensitive as the text; it is a string here because what is redacted in a bug report still has to decode.

    vector: base64 of float32, little-endian.
    """

    model: str
    vector: Sensitive[str]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One of the things that hold of a subject."""

    text: str
    importance: float
    since: str
    """The round that found it first."""


class Subject(msgspec.Struct, kw_only=True):
    """What holds of one subject, as of its newest round. digest: of everything that the round found, as its finder names it."""

    round: str
    digest: str
    at: str
    """When the round was noted: UTC, ISO 8601."""
    total: int
    items: dict[str, Known] = {}


class MemoryState(State):
    stored: int = 0
    """Memories that were ever stored by `remember`."""
    learned: int = 0
    interactions: int = 0
    subjects: dict[str, Subject] = {}


class MemoryStored(Event[MemoryState], tag="memory.stored"):
    """Something is remembered. memory: its name, unique in the workspace. agent: who remembers it, None = a client."""

    memory: str
    content: Sensitive[str]
    type: MemoryType
    importance: Importance
    metadata: dict[str, Any]
    session: str | None
    agent: str | None
    meaning: Meaning

    def apply(self, state: MemoryState) -> None:
        state.stored += 1


class MemoriesAccessed(Event[MemoryState], tag="memory.accessed"):
    """Memories were among the answers of recalls, so many times each; counted together, so that a recall stays a read."""

    counts: dict[str, int]

    def apply(self, state: MemoryState) -> None:
        pass


class MemoriesForgotten(Event[MemoryState], tag="memory.forgotten"):
    """Memories are no more, with everything that was kept of them. reason: ``asked`` or ``consolidated``."""

    memories: list[str]
    reason: Literal["asked", "consolidated"]

    def apply(self, state: MemoryState) -> None:
        pass


class MeaningRenewed(Event[MemoryState], tag="memory.meaning_renewed"):
    """Memories got vectors of another model; those of the old one count no more."""

    meanings: dict[str, Meaning]

    def apply(self, state: MemoryState) -> None:
        pass


class PatternLearned(Event[MemoryState], tag="memory.pattern_learned"):
    """An agent tried a solution for a pattern, and it worked or did not. Rates are folded from these, per agent, pattern and solution."""

    agent: str
    pattern: Sensitive[str]
    solution: Sensitive[str]
    success: bool

    def apply(self, state: MemoryState) -> None:
        state.learned += 1


class InteractionRecorded(Event[MemoryState], tag="memory.interaction_recorded"):
    """One agent dealt with another. type: of the interaction, in the words of the agents."""

    agent: str
    with_actor: str
    type: str
    content: Sensitive[str]
    result: Sensitive[str | None]
    session: str | None

    def apply(self, state: MemoryState) -> None:
        state.interactions += 1


class NotedItem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that holds of a subject from now on. meaning: None = found by its words only."""

    text: str
    importance: Importance
    meaning: Meaning | None = None


class SubjectNoted(Event[MemoryState], tag="memory.subject_noted"):
    """A round looked at a subject: what it found that was not known, by key, and the keys of what holds no more. total: how many things the
    round found."""

    subject: str
    round: str
    digest: str
    at: str
    total: int
    agent: str | None
    found: dict[str, NotedItem]
    gone: list[str]

    def apply(self, state: MemoryState) -> None:
        subject = state.subjects.get(self.subject)
        if subject is None:
            subject = state.subjects[self.subject] = Subject(round=self.round, digest=self.digest, at=self.at, total=self.total)
        subject.round, subject.digest, subject.at, subject.total = self.round, self.digest, self.at, self.total
        for key in self.gone:
            subject.items.pop(key, None)
        for key, item in self.found.items():
            subject.items[key] = Known(text=item.text, importance=item.importance, since=self.round)
