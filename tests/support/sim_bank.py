"""The actors of the simulation: accounts, an auditor that asks them, and a labourer with long turns."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from actors import Actor, ActorError, Event, Rejected, State, WaitExpired, command, query
from runtime.app import App

Perform = Callable[[str], Awaitable[str]]
PERFORM: ContextVar[Perform] = ContextVar("sim_perform")
"""How a step reaches the world of its run."""
LUCK: ContextVar[Callable[[str], bool]] = ContextVar("sim_luck")
"""Whether a handler that depends on something outside succeeds this time."""


class Account(State):
    cents: int = 0
    sent: dict[str, int] = {}
    received: dict[str, int] = {}
    visits: int = 0


class Deposited(Event[Account], tag="simaccount.deposited"):
    cents: int

    def apply(self, state: Account) -> None:
        state.cents += self.cents


class Withdrawn(Event[Account], tag="simaccount.withdrawn"):
    cents: int

    def apply(self, state: Account) -> None:
        state.cents -= self.cents


class Sent(Event[Account], tag="simaccount.sent"):
    to: str
    n: int
    cents: int

    def apply(self, state: Account) -> None:
        state.cents -= self.cents
        state.sent[self.to] = self.n


class Received(Event[Account], tag="simaccount.received"):
    sender: str
    n: int
    cents: int

    def apply(self, state: Account) -> None:
        state.cents += self.cents
        state.received[self.sender] = self.n


class Visited(Event[Account], tag="simaccount.visited"):
    by: str

    def apply(self, state: Account) -> None:
        state.visits += 1


class AccountActor(Actor[Account], name="account"):
    @command
    async def deposit(self, cents: int) -> int:
        self.emit(Deposited(cents=cents))
        return self.state.cents

    @command
    async def deposit_parts(self, parts: list[int]) -> int:
        for cents in parts:
            self.emit(Deposited(cents=cents))
        return self.state.cents

    @command
    async def withdraw(self, cents: int) -> int:
        if cents > self.state.cents:
            raise Rejected("not that much", cents=cents)
        self.emit(Withdrawn(cents=cents))
        return self.state.cents

    @command
    async def transfer(self, to: str, cents: int) -> int:
        if cents > self.state.cents:
            raise Rejected("not that much", cents=cents)
        n = self.state.sent.get(to, 0) + 1
        self.emit(Sent(to=to, n=n, cents=cents))
        self.ref(AccountActor, to).tell.receive(sender=self.id, n=n, cents=cents)
        return self.state.cents

    @command
    async def receive(self, sender: str, n: int, cents: int) -> None:
        self.emit(Received(sender=sender, n=n, cents=cents))

    @command
    async def visit(self, by: str) -> int:
        self.emit(Visited(by=by))
        return self.state.visits

    @command
    async def nudge(self, by: str) -> None:
        self.emit(Visited(by=by))
        if not LUCK.get()(by):
            raise OSError("bad luck, this time")

    @command
    async def told(self, sender: str, n: int) -> None:
        """A tell from outside; its sender counts them."""
        self.emit(Received(sender=sender, n=n, cents=0))

    @command
    async def deposit_and_fail(self, cents: int) -> int:
        self.emit(Deposited(cents=cents))
        raise ZeroDivisionError("after an event")

    @query
    def balance(self) -> int:
        return self.state.cents


class Audit(State):
    visits: int = 0


class Audited(Event[Audit], tag="simaudit.audited"):
    answers: list[int | None]

    def apply(self, state: Audit) -> None:
        state.visits += len(self.answers)


class AuditActor(Actor[Audit], name="audit"):
    @command
    async def audit(self, accounts: list[str]) -> list[int | None]:
        answers: list[int | None] = []
        for account in accounts:
            try:
                answers.append(await self.ref(AccountActor, account, timeout_s=4.0).visit(by=self.id))
            except ActorError:
                answers.append(None)
        self.emit(Audited(answers=answers))
        return answers

    @command
    async def meet(self, other: str) -> int | None:
        """Two that meet each other at once wait for each other (S23)."""
        try:
            answer: int | None = await self.ref(AuditActor, other, timeout_s=4.0).greet(by=self.id)
        except ActorError:
            answer = None
        self.emit(Audited(answers=[answer]))
        return answer

    @command
    async def greet(self, by: str) -> int:
        self.emit(Audited(answers=[]))
        return self.state.visits


class Labour(State):
    jobs: dict[str, list[str]] = {}


class Worked(Event[Labour], tag="simlabour.worked"):
    job: str
    results: list[str]

    def apply(self, state: Labour) -> None:
        state.jobs[self.job] = self.results


class Planned(Event[Labour], tag="simlabour.planned"):
    job: str

    def apply(self, state: Labour) -> None:
        state.jobs.setdefault(self.job, [])


class Promised(Event[Labour], tag="simlabour.promised"):
    job: str

    def apply(self, state: Labour) -> None:
        state.jobs.setdefault(self.job, [])


class Reminded(Event[Labour], tag="simlabour.reminded"):
    job: str

    def apply(self, state: Labour) -> None:
        state.jobs.setdefault(self.job, []).append("reminded")


async def effect(key: str) -> str:
    """Something outside that must not happen twice without need."""
    return await PERFORM.get()(key)


class LabourActor(Actor[Labour], name="labour"):
    @command
    async def work(self, job: str, steps: int, pay: str) -> list[str]:
        self.emit(Planned(job=job))
        results = [await self.step("effect", effect, f"{job}/{number}") for number in range(steps)]
        self.emit(Worked(job=job, results=results))
        self.ref(AccountActor, pay).tell.deposit(cents=len(results))
        return results

    @command
    async def work_together(self, job: str, steps: int) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.step("effect", effect, f"{job}/{number}", key=str(number))) for number in range(steps)]
        results = [task.result() for task in tasks]
        self.emit(Worked(job=job, results=results))
        return results

    @command
    async def plan(self, job: str, pay: str) -> int:
        self.emit(Planned(job=job))
        self.ref(AccountActor, pay).tell.nudge(by=job)
        return len(self.state.jobs)

    @command
    async def decide(self, job: str, timeout_ms: int) -> list[str]:
        self.emit(Planned(job=job))
        try:
            said = await self.wait_for("decision", timeout_s=timeout_ms / 1_000, type=str)
        except WaitExpired:
            said = "expired"
        result = await self.step("effect", effect, f"{job}/0")
        self.emit(Worked(job=job, results=[said, result]))
        return [said, result]

    @command
    async def charge(self, job: str) -> list[str]:
        """What must not happen twice: whether it did, a person says (S21)."""
        self.emit(Planned(job=job))
        result = await self.step("effect", effect, f"{job}/once", once=True)
        self.emit(Worked(job=job, results=[result]))
        return [result]

    @command
    async def promise(self, job: str, delay_ms: int) -> None:
        self.emit(Promised(job=job))
        self.schedule(delay_ms / 1_000, "remind", job=job)

    @command
    async def remind(self, job: str) -> None:
        self.emit(Reminded(job=job))

    @query
    def job(self, job: str) -> list[str] | None:
        return self.state.jobs.get(job)


APP = App(actors=[AccountActor, AuditActor, LabourActor], version="simulation")
ACCOUNTS = tuple(f"a{number}" for number in range(5))
EVENTS_OF = {
    "deposit": 1, "withdraw": 1, "transfer": 1, "receive": 1, "visit": 1, "deposit_and_fail": 0, "audit": 1, "work": 2,
    "work_together": 1, "decide": 2, "nudge": 1, "plan": 1, "promise": 1, "remind": 1, "told": 1, "meet": 1, "greet": 1, "charge": 2,
}  # fmt: skip
"""How many state events a finished command has; `deposit_parts` has one per part."""
