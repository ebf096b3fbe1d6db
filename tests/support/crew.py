"""Agents that do what the task of their step says, as JSON: what the scenarios of runs are played with."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from actors.actor import query
from actors.event import Event, State
from actors.files.commands import run_command
from actors.models.records import Message
from actors.tasks import TASKS, Agent, Job, NeedsAnswer, Plan, Result, StepPlan
from ops.memory import with_memory
from ops.models import with_providers
from runtime import App


class Orders(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The task of a step.

    ledger: a file that gets a line for each attempt that begins. gate: a file that is waited for. model: who is asked. program: run a
    Python program that adds its pid to this file and lives for an hour. issues: what is left open. ask: what a person has to say first;
    the answer stands in what is written.
    """

    write: str = ""
    content: str = ""
    ledger: str = ""
    gate: str = ""
    model: str = ""
    program: str = ""
    issues: tuple[str, ...] = ()
    fail: str = ""
    ask: str = ""


def orders(**given: Any) -> str:
    return msgspec.json.encode(Orders(**given)).decode()


class CrewState(State):
    jobs: list[Job] = []


class JobSeen(Event[CrewState], tag="crew.job_seen"):
    job: Job

    def apply(self, state: CrewState) -> None:
        state.jobs.append(self.job)


class Crew(Agent[CrewState]):
    async def handle(self, job: Job) -> Result:
        given = msgspec.json.decode(job.task or "{}", type=Orders)
        files = []
        self.emit(JobSeen(job=job))
        answers = [said.answer for said in job.answers if said.step == job.step]
        if given.ask and not answers:
            raise NeedsAnswer(given.ask)
        if given.ledger:
            await self.step("ledger", append, given.ledger, f"{job.step} {job.attempt}")
        if given.gate:
            await self.step("gate", gate, given.gate)
        if given.fail:
            await self.step("fail", fail, given.fail)
        if given.model:
            await self.model(given.model).chat([Message(role="user", content=job.goal)])
        if given.program:
            await self.step("program", program, given.program)
        if given.write:
            files.append(await self.write(job, given.write, given.content or "\n".join([job.goal, *job.instructions, *answers])))
        return Result(text=f"{job.step} is done", files=files, issues=list(given.issues))

    @query
    def jobs(self) -> list[Job]:
        return self.state.jobs


class Codesmith(Crew, name="codesmith"):
    """Writes code."""


class Architect(Crew, name="crew-architect"):
    """May write nothing."""


class Planner(Agent[CrewState], name="planner"):
    """Plans two steps, and shows in the summary what it was asked to change."""

    async def handle(self, job: Job) -> Result:
        self.emit(JobSeen(job=job))
        said = [] if job.plan is None else [job.plan.summary, job.feedback]
        steps = [
            StepPlan(id="code", agent="codesmith", task=orders()),
            StepPlan(id="review", agent="codesmith", task=orders(), after=["code"]),
        ]
        return Result(data=msgspec.to_builtins(Plan(summary=" | ".join(said) or job.goal, steps=steps)))

    @query
    def jobs(self) -> list[Job]:
        return self.state.jobs


def append(path: str, line: str) -> None:
    """Step: one line more; O_APPEND, so that nobody's line is lost."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


async def gate(path: str) -> None:
    """Step: until somebody makes the file. `waits_at` shows that this waits, so that whatever came before is recorded."""
    waits_at(path).touch()
    while not Path(path).exists():
        await asyncio.sleep(0.01)  # made by another process, which leaves nothing but the file


def waits_at(path: str | Path) -> Path:
    """The file that says: somebody waits at this gate."""
    return Path(f"{path}.waits")


def fail(reason: str) -> None:
    """Step: it does not work."""
    raise OSError(reason)


async def program(pid_file: str) -> int:
    """Step: a real child process, which says who it is, in a line more of the file, and then does nothing for an hour."""
    said = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'a'), flush=True); time.sleep(3600)"
    ended = await run_command(str(Path(pid_file).parent), [sys.executable, "-c", said, pid_file], 3_600)
    return ended.exit_code


CREW = (*TASKS, Codesmith, Architect, Planner)
app = with_providers(with_memory(App(actors=CREW)))
