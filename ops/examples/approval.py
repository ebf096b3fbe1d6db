"""An expense that a person approves, however long that takes. `cuebook up --app ops.examples.approval:app`, then

cuebook ask expense/42 submit '{"cents": 9900, "what": "a chair"}'
cuebook waits ls
cuebook waits answer WAIT-ID '{"approved": true}'
"""

from actors import Actor, Event, State, WaitExpired, command, query
from runtime import App

REMINDED_AFTER_S = 7 * 24 * 3600.0


class Decision(State):
    """What the person says."""

    approved: bool
    note: str = ""


class Expense(State):
    cents: int = 0
    status: str = "new"


class Submitted(Event[Expense], tag="expense.submitted"):
    cents: int
    what: str

    def apply(self, state: Expense) -> None:
        state.cents, state.status = self.cents, "waiting"


class Decided(Event[Expense], tag="expense.decided"):
    status: str
    note: str = ""

    def apply(self, state: Expense) -> None:
        state.status = self.status


class ExpenseActor(Actor[Expense], name="expense"):
    @command
    async def submit(self, cents: int, what: str) -> str:
        """Record the expense, wait for the decision, record that. Replies the decision."""
        self.emit(Submitted(cents=cents, what=what))
        try:
            decision = await self.wait_for("decision", timeout_s=REMINDED_AFTER_S, type=Decision)
        except WaitExpired:
            self.emit(Decided(status="expired"))
        else:
            self.emit(Decided(status="approved" if decision.approved else "declined", note=decision.note))
        return self.state.status

    @query
    def status(self) -> str:
        """What became of it so far."""
        return self.state.status


app = App(actors=[ExpenseActor])
