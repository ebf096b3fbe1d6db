"""What of a run waits for a person: who asks, what, until when, and what an answer looks like. Pure."""

from typing import Annotated, Any, Literal

import msgspec

from actors.json_schema import schema_of
from actors.tasks.plans import agent_of
from actors.tasks.records import Text
from actors.tasks.state import TaskState, deciders_of


def approval_timer(version: int) -> str:
    """The timer after which a version of the proposal can be decided no more. It keeps this name: it stands in logs."""
    return f"approval-{version}"


def answer_timer(number: int) -> str:
    """The timer after which a question can be answered no more. It keeps this name: it stands in logs."""
    return f"answer-{number}"


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer to a proposal. `modified` needs `feedback`."""

    verdict: Literal["approved", "rejected", "modified"]
    feedback: Text = ""


Reply = Annotated[str, msgspec.Meta(min_length=1)]
"""The answer to a question."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that people can decide or answer. number: the version of the proposal, or the question's. asks: the stream of who asks.
    schema: JSON Schema of the answer. deciders: who may."""

    kind: Literal["approval", "clarification"]
    number: int
    asks: str
    question: str
    schema: dict[str, Any]
    expires_at_us: int
    deciders: list[str]

    @property
    def timer_id(self) -> str:
        """Of the timer that ends it."""
        return approval_timer(self.number) if self.kind == "approval" else answer_timer(self.number)


def waiting_in(state: TaskState, run: str) -> list[Waiting]:
    """What waits in the run of that id, oldest first."""
    found = [
        Waiting(
            kind="clarification", number=asked.number, asks="/".join(agent_of(state, run, asked.step)), question=asked.question,
            schema=_schema(Reply), expires_at_us=asked.expires_at_us, deciders=deciders_of(state),
        )
        for asked in state.questions if asked.standing == "open"
    ]  # fmt: skip
    found += [
        Waiting(
            kind="approval", number=made.version, asks="/".join(agent_of(state, run, "_plan")) if state.planner else f"task/{run}",
            question=_proposed(state, made.version), schema=_schema(Verdict), expires_at_us=made.expires_at_us,
            deciders=deciders_of(state),
        )
        for made in state.proposals if made.standing == "pending"
    ]  # fmt: skip
    return found


def _proposed(state: TaskState, version: int) -> str:
    plan = state.proposals[version - 1].plan
    steps = [f"{number}. {step.agent}: {step.task}" for number, step in enumerate(plan.steps, 1)]
    return "\n".join([plan.summary, *steps, *([state.question] if state.question else [])])


def _schema(kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.decode(schema_of(kind, "answer") or b"{}")
    return schema
