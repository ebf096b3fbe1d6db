"""A run: what a person wants done, as an actor that keeps its plan, its steps and every decision about them.

All of its turns are short: work is sent to agents, who report back, and what takes too long is noticed by durable timers. So whoever asks
it to pause, to stop, or how it stands is answered at once, however long the agents take, and a crash loses nothing.
"""

import hashlib
import hmac
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from actors.actor import Actor, command, query
from actors.errors import BadPayload, Rejected
from actors.people.decision import Decision, Verdict, decision_of
from actors.tasks import limits
from actors.tasks.keeper import Keeper
from actors.tasks.plans import blocked_by, check_move, fault_of, gave_up, may_begin, retry_after_s
from actors.tasks.records import Errand, Job, Outcome, Plan, Proposal, Result, StepStatus, Text, Told, View
from actors.tasks.router import OURS, Router
from actors.tasks.state import (
    AgentSettled,
    ClarificationAsked,
    ErrandEnded,
    ErrandSent,
    ExecutionBegun,
    PlanningBegun,
    ProposalDecided,
    ProposalExpired,
    ProposalMade,
    RestoreBegun,
    RollbackBegun,
    StepMoved,
    TaskCheckpointed,
    TaskEnded,
    TaskPaused,
    TaskResumed,
    TaskStarted,
    TaskState,
)
from actors.tasks.view import view_of

Session = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""What proves who somebody is: known to whoever started the run and to nobody else. The log holds its digest only."""

_KEEPER = Keeper.__actor_name__ or ""
_ROUTER = Router.__actor_name__ or ""


class Task(Actor[TaskState], name="task"):
    """One run; the id is the run's. Whoever starts it owns it: only with the same `session` may anybody decide, pause or stop.

    A proposal is decided once and in time: by `decide`, or by `say` in one's own words. The run then hands each step to its agent as soon
    as the steps before it are completed.
    """

    # -- people -------------------------------------------------------------------------------------------------------------------

    @command
    def start(
        self, session: Session, goal: Text, plan: Plan | None = None, planner: str = "", root: str = "", needs_approval: bool = True,
        approval_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = limits.APPROVAL_S,
    ) -> View:  # fmt: skip
        """Begin.

        Args:
            plan: what to do; None = the agent of type `planner` makes it, and changes it if somebody asks for that.
            planner: by default the router, which gives the whole goal to the one agent that the goal's words ask for.
            root: folder of the workspace, of which a checkpoint is made first; "" = the run has none and cannot be rolled back.
            needs_approval: false = the first plan is carried out without asking.
            approval_s: how long a proposal can be decided.
        """
        if self.state.phase != "new":
            raise Rejected(f"the run {self.id} was started before", phase=self.state.phase)
        workers = self._workers()
        if plan is None and not planner:
            planner = _ROUTER
        if planner and planner not in {*workers, _ROUTER}:
            raise Rejected(f"nobody here is called {planner}, and the run has no plan; who can be given work: {', '.join(workers)}")
        if plan is not None and (fault := fault_of(plan, workers)) is not None:
            raise Rejected(fault)
        started = TaskStarted(
            goal=goal, session_sha256=_digest(session), plan=plan, planner=planner, root=root, needs_approval=needs_approval,
            approval_s=approval_s,
        )  # fmt: skip
        self.emit(started)
        if root:
            self._send_internal("_checkpoint")
        else:
            self._prepared("", "")
        return view_of(self.state)

    @command
    def decide(self, session: Session, version: int, verdict: Verdict, feedback: Text = "") -> Told:
        """Decide about one version of the proposal. `modified` needs `feedback`, and leads to another version.

        Raises:
            Rejected: another session's run, another version, decided before, or too late; says which.
        """
        return self._decide(session, version, Decision(verdict=verdict, feedback=feedback), "")

    @command
    def say(self, session: Session, text: Text, version: int | None = None) -> Told:
        """Decide in one's own words, German or English. What is not clearly a yes, a no or a wish for a change is asked back, and the
        proposal stays open. Raises: as `decide`."""
        latest = len(self.state.proposals)
        return self._decide(session, latest if version is None else version, decision_of(text), text)

    @command
    def pause(self, session: Session, reason: Text = "") -> View:
        """Let no further step begin. What is under way goes on to its end."""
        self._owned(session)
        if self.state.paused:
            raise Rejected("the run is paused already")
        if self.state.phase in {"stopping", "rolling_back"}:
            raise Rejected("the run is being stopped")
        self.emit(TaskPaused(reason=reason))
        return view_of(self.state)

    @command
    def resume(self, session: Session, instructions: Text = "") -> View:
        """Go on; `instructions` are handed to every step that begins from here on."""
        self._owned(session)
        if not self.state.paused:
            raise Rejected("the run is not paused")
        self.emit(TaskResumed(instructions=instructions))
        self._advance()
        return view_of(self.state)

    @command
    def stop(self, session: Session, rollback: bool = False, reason: Text = "stopped") -> View:
        """End the run now, with whatever its agents are doing: their turns, model calls and programs are cancelled.

        Args:
            rollback: bring the workspace back to the checkpoint made at the start, byte for byte, once every agent is at rest. The run
                has ended when `phase` says so.
        """
        self._owned(session)
        if self.state.phase in {"stopping", "rolling_back"}:
            raise Rejected("the run is being stopped")
        if rollback and not self.state.root:
            raise Rejected("this run has no workspace to roll back")
        self._cancel_all(reason)
        if not rollback or not self.state.checkpoint:
            # Without a checkpoint no agent has begun, so there is nothing to take back.
            self._end("cancelled", reason, restored=rollback)
            return view_of(self.state)
        busy = sorted({self._agent_of(step.plan.id)[2] for step in self.state.steps.values() if step.attempts})
        self.emit(RollbackBegun(reason=reason, settling=busy))
        for stream in busy:
            type_name, _, key = stream.partition("/")
            self.ref(type_name, key).tell.settle()
        self.schedule(limits.SETTLE_S, "settle_late", timer_id="settle")
        self._restore_if_settled()
        return view_of(self.state)

    @query
    def ping(self) -> str:
        """Answered at once, whatever the agents do."""
        return "pong"

    @query
    def status(self) -> View:
        """Where the run stands."""
        return view_of(self.state)

    @query
    def proposals(self) -> list[Proposal]:
        """Every version that was put to a person, oldest first, with what was said to it."""
        return list(self.state.proposals)

    # -- agents -------------------------------------------------------------------------------------------------------------------

    @command
    def step_done(self, step: str, attempt: int, result: Result) -> None:
        """An agent has done what it was sent. A report on an attempt that is over changes nothing."""
        if self._reported(step, attempt) is None:
            return
        if step == "_plan":
            self._planned(result)
            return
        self._ended(step, "completed", result=result)
        if step == "_checkpoint":
            self._prepared(result.data["workspace"], result.data["commit"])
        elif step == "_restore":
            self._end("cancelled", self.state.reason, restored=True)
        else:
            self._advance()

    @command
    def step_failed(self, step: str, attempt: int, error: str, retryable: bool) -> None:
        """An agent could not do what it was sent."""
        if self._reported(step, attempt) is not None:
            self._failed(step, "failed", error, retryable)

    @command
    def settled(self) -> None:
        """An agent has nothing more under way that it was sent before."""
        if self.sender in self.state.settling:
            self.emit(AgentSettled(stream=self.sender))
            self._restore_if_settled()

    # -- timers -------------------------------------------------------------------------------------------------------------------

    @command
    def errand_late(self, step: str, attempt: int) -> None:
        """An agent has taken too long: its work is cancelled, and tried again."""
        self._from_timer()
        errand = self.state.running.get(step)
        if errand is None or errand.attempt != attempt:
            return
        self.cancel(errand.agent, errand.agent_id, errand.command_id)
        self._failed(step, "timeout", "it took too long", True)

    @command
    def errand_again(self, step: str) -> None:
        """The pause after an attempt is over."""
        self._from_timer()
        if step in self.state.running:
            return
        if step.startswith("_"):
            if self.state.phase in {"preparing", "planning", "rolling_back"}:
                self._send_internal(step)
            return
        held = self.state.steps.get(step)
        if self.state.phase == "executing" and held is not None and held.again:
            self._move(step, "pending")
            self._advance()

    @command
    def approval_late(self, version: int) -> None:
        """Nobody has decided in time: the run ends, and nothing was done."""
        self._from_timer()
        if self.state.phase == "awaiting_approval" and len(self.state.proposals) == version:
            self.emit(ProposalExpired(version=version))
            self._end("cancelled", "nobody decided in time")

    @command
    def settle_late(self) -> None:
        """Agents that do not come to rest hold up a rollback no longer; what they do is in their own streams."""
        self._from_timer()
        for stream in list(self.state.settling):
            self.emit(AgentSettled(stream=stream, late=True))
        self._restore_if_settled()

    # -- decisions ----------------------------------------------------------------------------------------------------------------

    def _decide(self, session: str, version: int, decision: Decision, said: str) -> Told:
        self._owned(session, ended=True)
        proposal = self._open_proposal(version)
        if decision.verdict == "unclear":
            self.emit(ClarificationAsked(version=version, said=said, question=decision.question or "Yes, no, or what should change?"))
            return self._told(decision.verdict, version)
        if decision.verdict == "modified":
            self._check_modifiable(decision.feedback, version)
        self.unschedule(f"approval-{version}")
        self.emit(ProposalDecided(version=version, verdict=decision.verdict, feedback=decision.feedback, said=said))
        if decision.verdict == "approved":
            self._begin(proposal.plan)
        elif decision.verdict == "rejected":
            self._end("cancelled", "the proposal was rejected")
        else:
            self.emit(PlanningBegun(feedback=decision.feedback))
            self._send_internal("_plan")
        return self._told(decision.verdict, version)

    def _open_proposal(self, version: int) -> Proposal:
        """The proposal that waits for a decision. Raises: Rejected: it is not this one, or no longer."""
        proposals = self.state.proposals
        if not 1 <= version <= len(proposals):
            raise Rejected("nothing waits for a decision", phase=self.state.phase)
        proposal = proposals[version - 1]
        if proposal.standing == "expired" or (proposal.standing == "pending" and self._now_us() > proposal.expires_at_us):
            raise Rejected(f"version {version} could be decided for {self.state.approval_s:g} s; that is over", standing="expired")
        if proposal.standing != "pending":
            raise Rejected(f"version {version} was decided before: {proposal.standing}", standing=proposal.standing)
        return proposal

    def _check_modifiable(self, feedback: str, version: int) -> None:
        if not feedback.strip():
            raise BadPayload("say what should change", field="feedback")
        if not self.state.planner:
            raise Rejected("nobody plans this run: approve the plan, or reject it and start another")
        if version >= limits.VERSIONS_MAX:
            raise Rejected(f"{limits.VERSIONS_MAX} versions were made: approve this one, or reject it")

    def _told(self, verdict: Verdict, version: int) -> Told:
        return Told(verdict=verdict, phase=self.state.phase, version=version, question=self.state.question)

    def _owned(self, session: str, *, ended: bool = False) -> None:
        """Raises: Rejected: `session` is not the one that started the run, or the run is not under way."""
        if self.state.phase == "new":
            raise Rejected(f"there is no run {self.id}")
        if not hmac.compare_digest(_digest(session), self.state.session_sha256):
            raise Rejected("this run belongs to another session", reason="foreign_session")
        if self.state.phase == "ended" and not ended:
            raise Rejected(f"the run has ended: {self.state.outcome}", outcome=self.state.outcome)

    def _from_timer(self) -> None:
        if self.sender != f"{self.actor_type}/{self.id}":
            raise Rejected("only a timer of the run itself calls this")

    # -- the course of a run ------------------------------------------------------------------------------------------------------

    def _prepared(self, workspace: str, commit: str) -> None:
        self.emit(TaskCheckpointed(workspace=workspace, commit=commit))
        if self.state.plan is not None:
            self._propose(self.state.plan, "")
        else:
            self.emit(PlanningBegun(feedback=""))
            self._send_internal("_plan")

    def _planned(self, result: Result) -> None:
        try:
            plan = msgspec.convert(result.data, Plan)
            fault = fault_of(plan, self._workers())
        except msgspec.ValidationError as error:
            plan, fault = None, f"the planner's answer is no plan: {error}"
        if plan is None or fault is not None:
            self._failed("_plan", "failed", fault or "", True)
            return
        self._ended("_plan", "completed")
        self._propose(plan, self.state.feedback)

    def _propose(self, plan: Plan, answers: str) -> None:
        if not self.state.needs_approval:
            self._begin(plan)
            return
        version = len(self.state.proposals) + 1
        seconds = self.state.approval_s
        expires_at_us = self._now_us() + int(seconds * 1_000_000)
        self.emit(ProposalMade(version=version, plan=plan, answers=answers, expires_at_us=expires_at_us))
        self.schedule(seconds, "approval_late", timer_id=f"approval-{version}", version=version)

    def _begin(self, plan: Plan) -> None:
        self.emit(ExecutionBegun(plan=plan))
        self._advance()

    def _advance(self) -> None:
        """Begin what may begin, and end the run if nothing is left."""
        state = self.state
        if state.phase != "executing":
            return
        while lost := next(((s, by) for s in state.steps.values() if s.status == "pending" and (by := blocked_by(s, state.steps))), None):
            self._move(lost[0].plan.id, "blocked", f"it needs {lost[1]}")
        if state.paused:
            return
        for step_id, step in state.steps.items():
            if len(state.running) >= limits.TOGETHER_MAX:
                break
            if may_begin(step, state.steps):
                self._send_step(step_id)
        if all(step.status == "completed" or gave_up(step) for step in state.steps.values()):
            self._conclude()

    def _conclude(self) -> None:
        steps = self.state.steps.values()
        failed = [step for step in steps if step.status == "failed"]
        for step in [step for step in steps if step.status == "blocked"]:
            self._move(step.plan.id, "cancelled", step.error)
        if failed:
            self._end("failed", "; ".join(f"{step.plan.id}: {step.error}" for step in failed)[:2_000])
        elif any(step.result is not None and step.result.issues for step in steps):
            self._end("accepted_with_issues", "every step is done, and issues are left open")
        else:
            self._end("done", "every step is done")

    def _end(self, outcome: Outcome, reason: str, *, restored: bool = False) -> None:
        written = {path for step in self.state.steps.values() if step.result is not None for path in step.result.files}
        for version in range(1, len(self.state.proposals) + 1):
            self.unschedule(f"approval-{version}")
        self.emit(TaskEnded(outcome=outcome, reason=reason, files=[] if restored else sorted(written), restored=restored))

    def _cancel_all(self, reason: str) -> None:
        for errand in list(self.state.running.values()):
            self.cancel(errand.agent, errand.agent_id, errand.command_id)
            self._ended(errand.step, "cancelled", error=reason)
        for step_id, step in self.state.steps.items():
            if step.status in {"pending", "blocked"}:
                self._move(step_id, "cancelled", reason)

    def _restore_if_settled(self) -> None:
        if self.state.phase == "stopping" and not self.state.settling:
            self.unschedule("settle")
            self.emit(RestoreBegun())
            self._send_internal("_restore")

    # -- errands ------------------------------------------------------------------------------------------------------------------

    def _agent_of(self, step: str) -> tuple[str, str, str]:
        """Type, id and stream of the agent that does `step`."""
        if step.startswith("_"):
            type_name, key = (self.state.planner if step == "_plan" else _KEEPER), self.id
        else:
            plan = self.state.steps[step].plan
            type_name, key = plan.agent, plan.agent_id or _own_agent(self.id, step)
        return type_name, key, f"{type_name}/{key}"

    def _send_step(self, step_id: str) -> None:
        steps = self.state.steps
        plan = steps[step_id].plan
        check_move(steps[step_id], "in_progress")
        results = {needed: result for needed in plan.after if (result := steps[needed].result) is not None}
        self._send(step_id, plan.timeout_s, task=plan.task, results=results)

    def _send_internal(self, step: str) -> None:
        if step == "_plan":
            previous = self.state.proposals[-1].plan if self.state.proposals else None
            self._send(step, limits.STEP_S, feedback=self.state.feedback, plan=previous)
        else:
            self._send(step, 2 * limits.WORKSPACE_S, commit=self.state.checkpoint)

    def _send(self, step: str, timeout_s: float, **more: Any) -> None:
        state = self.state
        attempt = state.errands.get(step, 0) + 1
        job = Job(
            run=self.id, step=step, attempt=attempt, goal=state.goal, instructions=list(state.instructions), workspace=state.workspace,
            root=state.root, **more,
        )  # fmt: skip
        agent, agent_id, _ = self._agent_of(step)
        command_id = self.ref(agent, agent_id).tell.work(job=job)
        self.emit(ErrandSent(errand=Errand(step=step, attempt=attempt, agent=agent, agent_id=agent_id, command_id=command_id)))
        self.schedule(timeout_s, "errand_late", timer_id=f"late-{step}", step=step, attempt=attempt)

    def _reported(self, step: str, attempt: int) -> Errand | None:
        """The errand that a report is about; None if it is over. Raises: Rejected: the report is another agent's."""
        errand = self.state.running.get(step)
        if errand is None or errand.attempt != attempt:
            return None
        if self.sender != errand.stream:
            raise Rejected(f"{step} was given to {errand.stream}", agent=self.sender)
        return errand

    def _failed(self, step: str, status: StepStatus, error: str, retryable: bool) -> None:
        held = self.state.steps.get(step)
        retries = limits.RETRIES if held is None else held.plan.retries
        tries = self.state.errands[step] - (self.state.planned if step == "_plan" else 0)
        again = retryable and tries <= retries
        self._ended(step, status, error=error, again=again)
        if again:
            first_s = limits.RETRY_FIRST_S if held is None else held.plan.retry_first_s
            self.schedule(timedelta(seconds=retry_after_s(tries, first_s)), "errand_again", timer_id=f"again-{step}", step=step)
        elif held is None:
            self._end("failed", f"{step[1:]}: {error}"[:2_000])
        else:
            if status == "timeout":
                self._move(step, "failed", error)
            self._advance()

    def _ended(self, step: str, status: StepStatus, *, error: str = "", result: Result | None = None, again: bool = False) -> None:
        if (held := self.state.steps.get(step)) is not None:
            check_move(held, status)
        self.unschedule(f"late-{step}")
        self.emit(ErrandEnded(step=step, status=status, error=error, result=result, again=again))

    def _move(self, step: str, status: StepStatus, reason: str = "") -> None:
        check_move(self.state.steps[step], status)
        self.emit(StepMoved(step=step, status=status, reason=reason))

    def _workers(self) -> list[str]:
        return [name for name in self.types_with("work") if name not in OURS]

    def _now_us(self) -> int:
        return int(self.now().timestamp() * 1_000_000)


def _own_agent(run: str, step: str) -> str:
    """An agent for this step alone. Names may become too long to be put together."""
    together = f"{run}-{step}"
    return together if len(together) <= 64 else hashlib.sha256(together.encode()).hexdigest()[:40]


def _digest(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()
