"""A run: what a person wants done, as an actor that keeps its plan, its steps and every decision about them.

All of its turns are short: work is sent to agents, who report back, and what takes too long is noticed by durable timers. So whoever asks
it to pause, to stop, or how it stands is answered at once, however long the agents take, and a crash loses nothing.
"""

from typing import Annotated, Literal

import msgspec

from actors.actor import command, query
from actors.errors import BadPayload, Rejected
from actors.people.decision import Decision, Verdict, decision_of
from actors.people.known import digest_of
from actors.tasks import limits
from actors.tasks.course import ROUTER
from actors.tasks.deciders import Deciders, Session
from actors.tasks.plans import fault_of
from actors.tasks.questions import Questions
from actors.tasks.records import Plan, Proposal, Result, Text, Told, View
from actors.tasks.state import (
    AgentSettled,
    ClarificationAsked,
    PlanningBegun,
    ProposalDecided,
    ProposalExpired,
    RollbackBegun,
    TaskPaused,
    TaskResumed,
    TaskStarted,
)
from actors.tasks.view import view_of
from actors.tasks.waiting import Waiting, approval_timer, waiting_in


class Task(Questions, name="task"):
    """One run; the id is the run's. Whoever starts it decides about it, by the `session` that he proves himself with, unless `start` names
    others. Who decides, who started it and the deployment's operator may let it rest and end it.

    A proposal is decided once and in time: by `decide`, or by `say` in one's own words. The run then hands each step to its agent as soon
    as the steps before it are completed.
    """

    # -- people -------------------------------------------------------------------------------------------------------------------

    @command
    def start(
        self, session: Session, goal: Text, plan: Plan | None = None, planner: str = "", root: str = "", needs_approval: bool = True,
        approval_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = limits.APPROVAL_S, deciders: Deciders | None = None,
    ) -> View:  # fmt: skip
        """Begin.

        Args:
            plan: what to do; None = the agent of type `planner` makes it, and changes it if somebody asks for that.
            planner: by default the router, which gives the whole goal to the one agent that the goal's words ask for.
            root: folder of the workspace, of which a checkpoint is made first; "" = the run has none and cannot be rolled back.
            needs_approval: false = the first plan is carried out without asking.
            approval_s: how long a proposal can be decided.
            deciders: who decides about proposals, answers questions and gives instructions; None = whoever starts the run.
        """
        if self.state.phase != "new":
            raise Rejected(f"the run {self.id} was started before", phase=self.state.phase)
        workers = self._workers()
        if plan is None and not planner:
            planner = ROUTER
        if planner and planner not in {*workers, ROUTER}:
            raise Rejected(f"nobody here is called {planner}, and the run has no plan; who can be given work: {', '.join(workers)}")
        if plan is not None and (fault := fault_of(plan, workers)) is not None:
            raise Rejected(fault)
        started = TaskStarted(
            goal=goal, session_sha256=digest_of(session), plan=plan, planner=planner, root=root, needs_approval=needs_approval,
            approval_s=approval_s, deciders=self._chosen(deciders), by=self._named(session),
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
            Rejected: it is not for that session to decide, another version, decided before, or too late; says which.
        """
        return self._decide(session, version, Decision(verdict=verdict, feedback=feedback), "")

    @command
    def say(self, session: Session, text: Text, version: int | None = None) -> Told:
        """Decide in one's own words, German or English. What is not clearly a yes, a no or a wish for a change is asked back, and the
        proposal stays open. Where no proposal waits and an agent has asked something, it is the answer. Raises: as `decide`."""
        latest = len(self.state.proposals)
        if version is None and self.state.phase != "awaiting_approval" and any(asked.standing == "open" for asked in self.state.questions):
            self.answer(session, text)
            return self._told("answered", latest)
        return self._decide(session, latest if version is None else version, decision_of(text), text)

    @command
    def pause(self, session: Session, reason: Text = "") -> View:
        """Let no further step begin. What is under way goes on to its end."""
        by = self._may_steer(session)
        if self.state.paused:
            raise Rejected("the run is paused already")
        if self.state.phase in {"stopping", "rolling_back"}:
            raise Rejected("the run is being stopped")
        self.emit(TaskPaused(reason=reason, by=by))
        return view_of(self.state)

    @command
    def resume(self, session: Session, instructions: Text = "") -> View:
        """Go on; `instructions` are handed to every step that begins from here on, so only who decides may give them."""
        by = self._may_decide(session) if instructions else self._may_steer(session)
        if not self.state.paused:
            raise Rejected("the run is not paused")
        self.emit(TaskResumed(instructions=instructions, by=by))
        self._advance()
        return view_of(self.state)

    @command
    def stop(self, session: Session, rollback: bool = False, reason: Text = "stopped") -> View:
        """End the run now, with whatever its agents are doing: their turns, model calls and programs are cancelled.

        Args:
            rollback: bring the workspace back to the checkpoint made at the start, byte for byte, once every agent is at rest. The run
                has ended when `phase` says so.
        """
        by = self._may_steer(session)
        if self.state.phase in {"stopping", "rolling_back"}:
            raise Rejected("the run is being stopped")
        if rollback and not self.state.root:
            raise Rejected("this run has no workspace to roll back")
        self._cancel_all(reason)
        if not rollback or not self.state.checkpoint:
            # Without a checkpoint no agent has begun, so there is nothing to take back.
            self._end("cancelled", reason, restored=rollback, by=by)
            return view_of(self.state)
        busy = sorted({self._agent_of(step.plan.id)[2] for step in self.state.steps.values() if step.attempts})
        self.emit(RollbackBegun(reason=reason, settling=busy, by=by))
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
        """Every version that was put to a person, oldest first, with what was said to it, and by whom."""
        return list(self.state.proposals)

    @query
    def waiting(self) -> list[Waiting]:
        """What people can decide or answer now."""
        return waiting_in(self.state, self.id)

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
        by = self._may_decide(session, ended=True)
        proposal = self._open_proposal(version, by)
        if decision.verdict == "unclear":
            self.emit(ClarificationAsked(version=version, said=said, question=decision.question or "Yes, no, or what should change?"))
            return self._told(decision.verdict, version)
        if decision.verdict == "modified":
            self._check_modifiable(decision.feedback, version)
        self.unschedule(approval_timer(version))
        self.emit(ProposalDecided(version=version, verdict=decision.verdict, feedback=decision.feedback, said=said, by=by))
        if decision.verdict == "approved":
            self._begin(proposal.plan)
        elif decision.verdict == "rejected":
            self._end("cancelled", "the proposal was rejected", by=by)
        else:
            self.emit(PlanningBegun(feedback=decision.feedback))
            self._send_internal("_plan")
        return self._told(decision.verdict, version)

    def _open_proposal(self, version: int, by: str) -> Proposal:
        """The proposal that waits for a decision. Raises: Rejected: it is not this one, or no longer."""
        proposals = self.state.proposals
        if not 1 <= version <= len(proposals):
            raise Rejected("nothing waits for a decision", phase=self.state.phase)
        proposal = proposals[version - 1]
        self._check_open(f"version {version}", "decided", proposal.standing, proposal.expires_at_us, by, proposal.by)
        return proposal

    def _check_modifiable(self, feedback: str, version: int) -> None:
        if not feedback.strip():
            raise BadPayload("say what should change", field="feedback")
        if not self.state.planner:
            raise Rejected("nobody plans this run: approve the plan, or reject it and start another")
        if version >= limits.VERSIONS_MAX:
            raise Rejected(f"{limits.VERSIONS_MAX} versions were made: approve this one, or reject it")

    def _told(self, verdict: Verdict | Literal["answered"], version: int) -> Told:
        return Told(verdict=verdict, phase=self.state.phase, version=version, question=self.state.question)
