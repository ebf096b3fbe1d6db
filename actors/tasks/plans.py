"""Rules of plans and steps: pure functions, so that nothing about a run is decided anywhere else."""

import hashlib
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Final

from actors.tasks.keeper import Keeper
from actors.tasks.limits import RETRY_FIRST_S, STEPS_MAX
from actors.tasks.records import Plan, Step, StepStatus
from actors.tasks.state import TaskState
from events.errors import InvariantError

LEGAL: Final[Mapping[StepStatus, frozenset[StepStatus]]] = {
    "pending": frozenset({"in_progress", "blocked", "cancelled"}),
    "in_progress": frozenset({"asking", "completed", "failed", "timeout", "cancelled"}),
    "asking": frozenset({"pending", "failed", "cancelled"}),
    "failed": frozenset({"pending"}),
    "timeout": frozenset({"pending", "failed"}),
    "blocked": frozenset({"pending", "cancelled"}),
    "completed": frozenset(),
    "cancelled": frozenset(),
}
"""The predecessor's table; besides, what is in progress can be cancelled, and can ask a person."""


def fault_of(plan: Plan, workers: Collection[str]) -> str | None:
    """Why `plan` cannot be carried out; None if it can. workers: actor types that can be given work."""
    ids = [step.id for step in plan.steps]
    if not ids:
        return "the plan has no steps"
    if len(ids) > STEPS_MAX:
        return f"the plan has {len(ids)} steps, at most {STEPS_MAX} are allowed"
    if len(set(ids)) < len(ids):
        return "two steps have the same id"
    missing = sorted({needed for step in plan.steps for needed in step.after} - set(ids))
    if missing:
        return f"steps depend on {', '.join(missing)}, which the plan does not have"
    strangers = sorted({step.agent for step in plan.steps} - set(workers))
    if strangers:
        return f"nobody here is called {', '.join(strangers)}; who can be given work: {', '.join(sorted(workers)) or 'nobody'}"
    try:
        TopologicalSorter({step.id: step.after for step in plan.steps}).prepare()
    except CycleError as error:
        return f"steps wait for each other: {' -> '.join(error.args[1])}"
    return None


def may_begin(step: Step, steps: Mapping[str, Step]) -> bool:
    return step.status == "pending" and all(steps[needed].status == "completed" for needed in step.plan.after)


def gave_up(step: Step) -> bool:
    """It will never be completed."""
    return step.status in {"blocked", "cancelled"} or (step.status in {"failed", "timeout"} and not step.again)


def blocked_by(step: Step, steps: Mapping[str, Step]) -> str | None:
    """The step without which `step` can never begin."""
    return next((needed for needed in step.plan.after if gave_up(steps[needed])), None)


def retry_after_s(attempt: int, first_s: float = RETRY_FIRST_S) -> float:
    """The pause after attempt number `attempt`, in seconds: 5, 10, 20, ... where `first_s` is 5."""
    return float(first_s * 2 ** (attempt - 1))


def agent_of(state: TaskState, run: str, step: str) -> tuple[str, str]:
    """Type and id of the agent that does `step` of the run of that id: a step of the plan, "_plan", "_checkpoint" or "_restore"."""
    if step.startswith("_"):
        return state.planner if step == "_plan" else Keeper.__actor_name__ or "", run
    plan = state.steps[step].plan
    return plan.agent, plan.agent_id or _own_agent(run, step)


def _own_agent(run: str, step: str) -> str:
    """An agent for this step alone. Names may become too long to be put together."""
    together = f"{run}-{step}"
    return together if len(together) <= 64 else hashlib.sha256(together.encode()).hexdigest()[:40]


def check_move(step: Step, status: StepStatus) -> None:
    """Raises: InvariantError: a step that stands where `step` does cannot come to stand at `status`."""
    if status not in LEGAL[step.status]:
        raise InvariantError(f"step {step.plan.id}: {step.status} cannot become {status}")
