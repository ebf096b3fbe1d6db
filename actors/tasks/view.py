"""A run as it is shown."""

from actors.tasks.records import StepView, View
from actors.tasks.state import TaskState, deciders_of


def view_of(state: TaskState) -> View:
    latest = state.proposals[-1] if state.proposals else None
    results = [step.result for step in state.steps.values() if step.result is not None]
    return View(
        phase=state.phase, paused=state.paused, outcome=state.outcome, reason=state.reason, version=len(state.proposals),
        steps=[
            StepView(
                id=step_id, agent=step.plan.agent, status=step.status, attempts=step.attempts, error=step.error,
                text="" if step.result is None else step.result.text,
            )
            for step_id, step in state.steps.items()
        ],
        expires_at_us=latest.expires_at_us if latest is not None and latest.standing == "pending" else None,
        question=state.question, questions=[asked for asked in state.questions if asked.standing == "open"],
        instructions=list(state.instructions),
        files=[] if state.restored else sorted({path for result in results for path in result.files}),
        issues=[issue for result in results for issue in result.issues], checkpoint=state.checkpoint, restored=state.restored,
        goal=state.goal, deciders=deciders_of(state),
    )  # fmt: skip
