"""Runs: what people ask for, planned, approved, carried out by agents, paused, stopped and rolled back.

`Task` is one run, `Agent` the base of whoever works for it, `Keeper` looks after the workspace, `Router` says who is meant.
"""

from actors.tasks.agent import Agent, NeedsAnswer
from actors.tasks.keeper import Keeper
from actors.tasks.records import Answer, Job, Plan, Proposal, Result, StepPlan, Told, View
from actors.tasks.router import Router
from actors.tasks.task import Task

TASKS = (Task, Keeper, Router)
"""Actor classes for ``App(actors=...)``; they need `actors.files.Files` where runs have workspaces."""

__all__ = [
    "TASKS", "Agent", "Answer", "Job", "Keeper", "NeedsAnswer", "Plan", "Proposal", "Result", "Router", "StepPlan", "Task", "Told", "View",
]  # fmt: skip
