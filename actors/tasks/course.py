"""The course of a run: what begins, what was reported, what is tried again, how it ends. `Task` is what people and agents say to it."""

from datetime import timedelta
from typing import Any

import msgspec

from actors.errors import Rejected
from actors.tasks import limits
from actors.tasks.deciders import Decided
from actors.tasks.plans import agent_of, blocked_by, check_move, fault_of, gave_up, may_begin, retry_after_s
from actors.tasks.records import Answer, Errand, Job, Outcome, Plan, Result, StepStatus
from actors.tasks.router import OURS, Router
from actors.tasks.state import (
    ErrandEnded,
    ErrandSent,
    ExecutionBegun,
    PlanningBegun,
    ProposalMade,
    RestoreBegun,
    StepMoved,
    TaskCheckpointed,
    TaskEnded,
)
from actors.tasks.waiting import answer_timer, approval_timer

ROUTER = Router.__actor_name__ or ""


class Course(Decided):
    """Base of `Task`: no commands, all that they have in common."""

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
        self.schedule(seconds, "approval_late", timer_id=approval_timer(version), version=version)

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

    def _end(self, outcome: Outcome, reason: str, *, restored: bool = False, by: str = "") -> None:
        written = {path for step in self.state.steps.values() if step.result is not None for path in step.result.files}
        for version in range(1, len(self.state.proposals) + 1):
            self.unschedule(approval_timer(version))
        self._unschedule_answers()
        self.emit(TaskEnded(outcome=outcome, reason=reason, files=[] if restored else sorted(written), restored=restored, by=by))

    def _cancel_all(self, reason: str) -> None:
        self._unschedule_answers()
        for errand in list(self.state.running.values()):
            self.cancel(errand.agent, errand.agent_id, errand.command_id)
            self._ended(errand.step, "cancelled", error=reason)
        for step_id, step in self.state.steps.items():
            if step.status in {"pending", "blocked", "asking"}:
                self._move(step_id, "cancelled", reason)

    def _unschedule_answers(self) -> None:
        for question in self.state.questions:
            if question.standing == "open":
                self.unschedule(answer_timer(question.number))

    def _restore_if_settled(self) -> None:
        if self.state.phase == "stopping" and not self.state.settling:
            self.unschedule("settle")
            self.emit(RestoreBegun())
            self._send_internal("_restore")

    # -- errands ------------------------------------------------------------------------------------------------------------------

    def _agent_of(self, step: str) -> tuple[str, str, str]:
        """Type, id and stream of the agent that does `step`."""
        type_name, key = agent_of(self.state, self.id, step)
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
        answers = [
            Answer(step=said.step, question=said.question, answer=said.answer) for said in state.questions if said.standing == "answered"
        ]
        job = Job(
            run=self.id, step=step, attempt=attempt, goal=state.goal, instructions=list(state.instructions), answers=answers,
            workspace=state.workspace, root=state.root, **more,
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
        tries = self.state.errands[step] - (self.state.planned if step == "_plan" else 0 if held is None else held.asked)
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

