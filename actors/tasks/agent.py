"""The base of agents that work for a run."""

from typing import Any, NoReturn

from actors.actor import Actor, command
from actors.errors import ActorError, NondeterminismError, Rejected, StepFailed
from actors.event import S
from actors.files import Files, Refusal
from actors.tasks.records import Job, Result


class NeedsAnswer(Exception):
    """Raised by `Agent.handle`: a person is asked, and the step begins anew with the answer among `Job.answers`."""

    def __init__(self, question: str) -> None:
        super().__init__(question)
        self.question = question


class Agent(Actor[S]):
    """An actor that a `Task` can give work to: override `handle`.

    A step of a plan may name any actor type with these two commands. They are sent, not asked, so a run never waits inside a turn for an
    agent, and an agent may take as long as its step allows.
    """

    async def handle(self, job: Job) -> Result:
        """Do the work, in recorded steps and asks. After a crash it runs again, and finished ones return what is recorded (S15).

        Raises: NeedsAnswer to ask a person; anything else, and the run is told. What is worth another try are errors that say so
        (`retryable`) and failed steps.
        """
        raise Rejected(f"{self.actor_type} has no work that it can do", agent=self.actor_type)

    @command
    async def work(self, job: Job) -> None:
        """Work for a run, and report to it."""
        try:
            result = await self.handle(job)
        except NondeterminismError:
            raise
        except Exception as error:  # noqa: BLE001  whatever an agent raises is a fact about this attempt, and the run decides what follows
            cause = _first(error)
            if isinstance(cause, NeedsAnswer):
                self._run().step_asks(step=job.step, attempt=job.attempt, question=cause.question)
                return
            again = cause.retryable if isinstance(cause, ActorError) else isinstance(cause, StepFailed)
            text = (str(cause) if isinstance(cause, Rejected) else f"{type(cause).__name__}: {cause}")[:2_000]
            self._run().step_failed(step=job.step, attempt=job.attempt, error=text, retryable=again)
            return
        self._run().step_done(step=job.step, attempt=job.attempt, result=result)

    @command
    def settle(self) -> None:
        """Say that everything sent before this has ended: an open turn holds its actor, so this is handled after it."""
        self._run().settled()

    async def write(self, job: Job, path: str, content: str) -> str:
        """Write a file of the run's workspace, under this agent's capabilities. Returns: its path, for `Result.files`.

        Raises:
            Rejected: it was refused, or the run has no workspace.
        """
        if not job.workspace:
            raise Rejected("this run has no workspace", path=path)
        reply = await self.ref(Files, job.workspace).write(path=path, content=content)
        if isinstance(reply, Refusal):
            _refused(reply, path)
        written: str = reply.change.path
        return written

    def _run(self) -> Any:
        if self.sender is None:
            raise Rejected("work is given by a run, not from outside")
        type_name, _, run = self.sender.partition("/")
        return self.ref(type_name, run).tell


def _refused(refusal: Refusal, path: str) -> NoReturn:
    raise Rejected(refusal.reason, path=path, rule=refusal.rule)


def _first(error: Exception) -> BaseException:
    """What concurrent steps raise together stands for its first."""
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
