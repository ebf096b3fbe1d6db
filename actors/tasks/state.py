"""The state of a run, and the facts that it is made of."""

from typing import Final

from actors.event import Event, State
from actors.people.decision import Verdict
from actors.tasks.records import Errand, Outcome, Phase, Plan, Proposal, Question, Result, Step, StepStatus

STARTER: Final = "starter"


class TaskState(State):
    """One run. session_sha256: of the key of whoever started it, `by` his name; deciders: who may decide (`deciders_of`). errands:
    attempts by step, with those at "_plan", "_checkpoint" and "_restore"; planned: those at earlier versions of the plan. running: by
    step, what agents have been sent and have not reported on. settling: agents whose work was cancelled and of whom nobody knows yet that
    they are at rest."""

    phase: Phase = "new"
    goal: str = ""
    session_sha256: str = ""
    by: str = ""
    deciders: list[str] = []
    planner: str = ""
    root: str = ""
    needs_approval: bool = True
    approval_s: float = 0.0
    plan: Plan | None = None
    proposals: list[Proposal] = []
    question: str = ""
    questions: list[Question] = []
    steps: dict[str, Step] = {}
    errands: dict[str, int] = {}
    planned: int = 0
    running: dict[str, Errand] = {}
    settling: list[str] = []
    instructions: list[str] = []
    feedback: str = ""
    paused: bool = False
    workspace: str = ""
    checkpoint: str = ""
    restored: bool = False
    outcome: Outcome | None = None
    reason: str = ""


def deciders_of(state: TaskState) -> list[str]:
    """Who decides about a run: who was named at its start, else whoever started it."""
    return list(state.deciders) or [STARTER]


class TaskStarted(Event[TaskState], tag="task.started"):
    """A person wants something done. by: his name, where the deployment knows him."""

    goal: str
    session_sha256: str
    plan: Plan | None
    planner: str
    root: str
    needs_approval: bool
    approval_s: float
    deciders: list[str] = []
    by: str = ""

    def apply(self, state: TaskState) -> None:
        state.phase = "preparing"
        state.deciders, state.by = list(self.deciders), self.by
        state.goal, state.session_sha256, state.plan, state.planner = self.goal, self.session_sha256, self.plan, self.planner
        state.root, state.needs_approval, state.approval_s = self.root, self.needs_approval, self.approval_s


class TaskCheckpointed(Event[TaskState], tag="task.checkpointed"):
    """The workspace can be brought back to what it is now. "" = it cannot, because there is none."""

    workspace: str
    commit: str

    def apply(self, state: TaskState) -> None:
        state.workspace, state.checkpoint = self.workspace, self.commit


class PlanningBegun(Event[TaskState], tag="task.planning_begun"):
    """A planner is to make a plan, or another version of it."""

    feedback: str

    def apply(self, state: TaskState) -> None:
        state.phase, state.feedback = "planning", self.feedback
        state.planned = state.errands.get("_plan", 0)


class ProposalMade(Event[TaskState], tag="task.proposed"):
    """A version of the plan waits for a decision. `answers` is the feedback that led to it."""

    version: int
    plan: Plan
    answers: str
    expires_at_us: int

    def apply(self, state: TaskState) -> None:
        state.phase, state.question = "awaiting_approval", ""
        made = Proposal(version=self.version, plan=self.plan, answers=self.answers, expires_at_us=self.expires_at_us)
        state.proposals.append(made)


class ProposalDecided(Event[TaskState], tag="task.decided"):
    """What became of a version: it is decided once. `said` is the text that was read as this decision, "" where it was given as such;
    `by` is who decided."""

    version: int
    verdict: Verdict
    feedback: str
    said: str
    by: str = ""

    def apply(self, state: TaskState) -> None:
        proposal = state.proposals[self.version - 1]
        state.question = ""
        if self.verdict != "unclear":
            proposal.standing, proposal.feedback, proposal.by = self.verdict, self.feedback, self.by


class ClarificationAsked(Event[TaskState], tag="task.clarification_asked"):
    """What was said is no decision: the person is asked back."""

    version: int
    said: str
    question: str

    def apply(self, state: TaskState) -> None:
        state.question = self.question


class ProposalExpired(Event[TaskState], tag="task.proposal_expired"):
    """Nobody decided in time."""

    version: int

    def apply(self, state: TaskState) -> None:
        state.proposals[self.version - 1].standing = "expired"


class ExecutionBegun(Event[TaskState], tag="task.execution_begun"):
    """This plan is carried out."""

    plan: Plan

    def apply(self, state: TaskState) -> None:
        state.phase, state.plan = "executing", self.plan
        state.steps = {step.id: Step(plan=step) for step in self.plan.steps}


class ErrandSent(Event[TaskState], tag="task.errand_sent"):
    """An agent has been given work."""

    errand: Errand

    def apply(self, state: TaskState) -> None:
        errand = self.errand
        state.running[errand.step] = errand
        state.errands[errand.step] = errand.attempt
        if (step := state.steps.get(errand.step)) is not None:
            step.status, step.attempts, step.error = "in_progress", errand.attempt, ""


class ErrandEnded(Event[TaskState], tag="task.errand_ended"):
    """An agent's work has ended: it reported, it took too long, or it was cancelled. `error` says why it is no success; again = another
    attempt follows after a pause."""

    step: str
    status: StepStatus
    error: str = ""
    result: Result | None = None
    again: bool = False

    def apply(self, state: TaskState) -> None:
        state.running.pop(self.step, None)
        if (step := state.steps.get(self.step)) is not None:
            step.status, step.error, step.result, step.again = self.status, self.error, self.result, self.again


class StepMoved(Event[TaskState], tag="task.step_moved"):
    """A step stands elsewhere, for `reason`, without an agent having had a part in it."""

    step: str
    status: StepStatus
    reason: str = ""

    def apply(self, state: TaskState) -> None:
        step = state.steps[self.step]
        step.status, step.error = self.status, self.reason or step.error


class QuestionAsked(Event[TaskState], tag="task.question_asked"):
    """An agent asks a person. Its step stands still until somebody answers."""

    number: int
    step: str
    question: str
    expires_at_us: int

    def apply(self, state: TaskState) -> None:
        state.running.pop(self.step, None)
        state.questions.append(Question(number=self.number, step=self.step, question=self.question, expires_at_us=self.expires_at_us))
        if (step := state.steps.get(self.step)) is not None:
            step.status, step.asked = "asking", step.asked + 1
        elif self.step == "_plan":
            # Attempts that ended with a question are no failed ones.
            state.planned += 1


class QuestionAnswered(Event[TaskState], tag="task.question_answered"):
    """A person has answered; a question is answered once."""

    number: int
    answer: str
    by: str = ""

    def apply(self, state: TaskState) -> None:
        question = state.questions[self.number - 1]
        question.standing, question.answer, question.by = "answered", self.answer, self.by


class QuestionExpired(Event[TaskState], tag="task.question_expired"):
    """Nobody answered in time."""

    number: int

    def apply(self, state: TaskState) -> None:
        state.questions[self.number - 1].standing = "expired"


def _withdraw(state: TaskState) -> None:
    """Nobody waits for answers or decisions any more."""
    for question in state.questions:
        if question.standing == "open":
            question.standing = "withdrawn"
    for proposal in state.proposals:
        if proposal.standing == "pending":
            proposal.standing = "withdrawn"


class TaskPaused(Event[TaskState], tag="task.paused"):
    """Nothing new begins; what is under way goes on to its end."""

    reason: str
    by: str = ""

    def apply(self, state: TaskState) -> None:
        state.paused = True


class TaskResumed(Event[TaskState], tag="task.resumed"):
    """It goes on; `instructions` are handed to everything that begins from here on."""

    instructions: str
    by: str = ""

    def apply(self, state: TaskState) -> None:
        state.paused = False
        if self.instructions:
            state.instructions.append(self.instructions)


class RollbackBegun(Event[TaskState], tag="task.rollback_begun"):
    """The run is stopped, and the workspace is to become what it was once the agents `settling` are at rest."""

    reason: str
    settling: list[str]
    by: str = ""

    def apply(self, state: TaskState) -> None:
        state.phase, state.paused, state.reason = "stopping", False, self.reason
        state.settling = list(self.settling)
        _withdraw(state)


class AgentSettled(Event[TaskState], tag="task.agent_settled"):
    """An agent whose work was cancelled does nothing more for this run; late = nobody knows, but that was waited for long enough."""

    stream: str
    late: bool = False

    def apply(self, state: TaskState) -> None:
        state.settling = [stream for stream in state.settling if stream != self.stream]


class RestoreBegun(Event[TaskState], tag="task.restore_begun"):
    """All agents are at rest: the workspace is brought back."""

    def apply(self, state: TaskState) -> None:
        state.phase = "rolling_back"


class TaskEnded(Event[TaskState], tag="task.ended"):
    """The run is over. `files`: what agents wrote, as far as the `files` actor confirmed it. `restored`: the workspace is byte for byte
    what it was at the start. `by`: who ended it, "" = it ended by itself."""

    outcome: Outcome
    reason: str
    files: list[str]
    restored: bool = False
    by: str = ""

    def apply(self, state: TaskState) -> None:
        state.phase, state.paused, state.outcome = "ended", False, self.outcome
        state.reason, state.restored = self.reason, self.restored
        _withdraw(state)
