"""What the operations of the memory view answer: shapes that travel as JSON. Times are µs since 1970, UTC."""

from typing import Annotated, Any, Literal

import msgspec

from events.ids import TOKEN_PATTERN
from projections.memory.ranking import Part

MemoryType = Literal["episodic", "semantic", "procedural", "entity"]
Workspace = Annotated[str, msgspec.Meta(pattern=f"^{TOKEN_PATTERN}$")]
"""The id that all agents of a workspace carry."""
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Text = Annotated[str, msgspec.Meta(max_length=16 * 1_024, extra={"sensitive": True})]
Private = Annotated[str, msgspec.Meta(extra={"sensitive": True})]
"""Marked as `actors.sensitive.Sensitive` marks it: what was remembered leaves the house in no bug report, whoever recalled it."""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """One memory. subject: set if it is a noted fact, which holds as long as it is there."""

    memory: str
    type: MemoryType
    content: Private
    importance: float
    metadata: dict[str, Any]
    session: str | None
    agent: str | None
    subject: str | None
    created_at_us: int
    accesses: int
    accessed_at_us: int | None


class Recalled(Remembered, frozen=True, kw_only=True):
    """A memory that answers a question. score: the sum of weight * value over `parts`; similarity: the cosine of both meanings, None if
    either has no vector of the view's model."""

    score: float
    similarity: float | None
    parts: dict[str, Part]


class Solution(msgspec.Struct, frozen=True, kw_only=True):
    """The best solution that an agent knows for a pattern. uses, successes, success_rate: of this solution, in the hands of this agent.
    pattern_rate: of everything that the agent has tried for the pattern."""

    pattern: Private
    solution: Private
    agent: str
    uses: int
    successes: int
    success_rate: float
    pattern_rate: float
    used_at_us: int


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern as one agent knows it. solutions: how many were tried."""

    pattern: Private
    agent: str
    uses: int
    successes: int
    success_rate: float
    solutions: int
    first_at_us: int
    used_at_us: int


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """One agent dealt with another."""

    agent: str
    with_actor: str
    type: str
    content: Private
    result: Private | None
    session: str | None
    at_us: int


class TypeTotal(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    importance_mean: float
    accesses: int


class PatternTotal(msgspec.Struct, frozen=True, kw_only=True):
    """success_rate_mean, success_rate_best: over the patterns of all agents; None without any."""

    count: int
    agents: int
    success_rate_mean: float | None
    success_rate_best: float | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a workspace's memory holds. vectors: how many memories have one, by model; searched: the model that recalls search by."""

    workspace: str
    memories: int
    by_type: dict[str, TypeTotal]
    sessions: int
    forgotten: int
    patterns: PatternTotal
    interactions: int
    vectors: dict[str, int]
    searched: str
    index: str


class StalePage(msgspec.Struct, frozen=True, kw_only=True):
    """next: cursor of the page after this one, None at the end."""

    memories: list[str]
    next: str | None


class OtherModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """Name and text of memories whose vector is of another model; left: how many there are, with these."""

    memories: dict[str, Private]
    left: int
