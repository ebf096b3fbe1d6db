"""What a run is made of: its plan, its steps, what is handed to agents and what comes back."""

from typing import Annotated, Any, Literal

import msgspec

from actors.tasks.limits import RETRIES, RETRY_FIRST_S, STEP_S, TEXT_MAX

Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
StepId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
Token = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]

StepStatus = Literal["pending", "in_progress", "asking", "completed", "failed", "timeout", "blocked", "cancelled"]
Phase = Literal["new", "preparing", "planning", "awaiting_approval", "executing", "stopping", "rolling_back", "ended"]
Outcome = Literal["done", "failed", "cancelled", "accepted_with_issues"]
Standing = Literal["pending", "approved", "rejected", "modified", "expired", "withdrawn"]


class StepPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a plan.

    agent: the actor type that does it. agent_id: which of them; "" = one of its own for this step, so that independent steps run together.
    after: steps whose results it needs. timeout_s: seconds for one attempt. retries: further attempts after the first. retry_first_s:
    the pause before the first of them, twice as long before each further one.
    """

    id: StepId
    agent: Token
    task: Text
    after: list[StepId] = []
    agent_id: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,64}$")] = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = STEP_S
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = RETRIES
    retry_first_s: Annotated[float, msgspec.Meta(gt=0, le=3_600)] = RETRY_FIRST_S


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person is asked to approve. `details` is the planner's own: stack, structure, risks."""

    summary: Text
    steps: list[StepPlan]
    details: dict[str, Any] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent hands back. `files` are paths that the `files` actor has confirmed as written; `issues` are what is left open although
    the work counts as done."""

    text: Text = ""
    files: list[str] = []
    issues: list[str] = []
    data: Any = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said to a question of an agent."""

    step: str
    question: str
    answer: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is given.

    step: its step's id, or "_plan", "_checkpoint", "_restore". attempt: from 1. instructions: what people have added since the start, in
    order. answers: to questions of this run's agents, in order. results: of the steps before it. feedback and plan: for a planner, what is
    to be changed about which plan. workspace: id of the `files` actor, "" = the run has none. root: its folder. commit: the checkpoint to
    restore.
    """

    run: str
    step: str
    attempt: int
    goal: str
    task: str = ""
    instructions: list[str] = []
    answers: list[Answer] = []
    results: dict[str, Result] = {}
    feedback: str = ""
    plan: Plan | None = None
    workspace: str = ""
    root: str = ""
    commit: str = ""


class Step(msgspec.Struct, kw_only=True):
    """A step at work: its plan, where it stands, and what became of it. again = another attempt follows after a pause. asked: attempts that
    ended with a question, which are no failures."""

    plan: StepPlan
    status: StepStatus = "pending"
    attempts: int = 0
    error: str = ""
    result: Result | None = None
    again: bool = False
    asked: int = 0


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """Work that an agent has been sent and has not reported on. `command_id` is that of the send, by which it is cancelled."""

    step: str
    attempt: int
    agent: str
    agent_id: str
    command_id: str

    @property
    def stream(self) -> str:
        return f"{self.agent}/{self.agent_id}"


class Proposal(msgspec.Struct, kw_only=True):
    """One version of the plan as it was put to a person. `answers` is the feedback that led to it; `feedback` what was said to it, and `by`
    whom."""

    version: int
    plan: Plan
    answers: str = ""
    expires_at_us: int
    standing: Standing = "pending"
    feedback: str = ""
    by: str = ""


class Question(msgspec.Struct, kw_only=True):
    """What an agent asked a person, and what became of it. step: whose agent; "_plan" = the planner's. by: who answered."""

    number: int
    step: str
    question: str
    expires_at_us: int
    standing: Literal["open", "answered", "expired", "withdrawn"] = "open"
    answer: str = ""
    by: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to whoever decides: what was understood, and where the run stands. `question` asks back where the text was not clear.
    answered: an agent's question was open, and no proposal; the text is the answer to it."""

    verdict: Literal["approved", "rejected", "modified", "unclear", "answered"]
    phase: Phase
    version: int
    question: str = ""


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step as it is shown."""

    id: str
    agent: str
    status: StepStatus
    attempts: int
    error: str
    text: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands. `question` asks back about a decision; `questions` are those of agents that are open. `files`: what agents have
    written, as the `files` actor confirmed it. `restored`: the workspace is byte for byte what it was at the start. deciders:
    who decides."""

    phase: Phase
    paused: bool
    outcome: Outcome | None
    reason: str
    steps: list[StepView]
    version: int
    expires_at_us: int | None
    question: str
    questions: list[Question]
    instructions: list[str]
    files: list[str]
    issues: list[str]
    checkpoint: str
    restored: bool
    goal: str = ""
    deciders: list[str] = []
