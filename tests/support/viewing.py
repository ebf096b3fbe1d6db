"""An actor that asks a projection: `cuebook up --app tests.support.viewing:app`."""

from actors import Actor, Event, State, command
from ops.examples.balances import Balances
from ops.examples.bank import AccountActor
from runtime import App


class Report(State):
    seen: int = 0


class Seen(Event[Report], tag="report.seen"):
    accounts: int

    def apply(self, state: Report) -> None:
        state.seen = self.accounts


class ReporterActor(Actor[Report], name="reporter"):
    """Looks at all accounts."""

    @command
    async def look(self) -> int:
        """How many accounts there are."""
        found = await self.view("balances").richest(limit=1_000)
        self.emit(Seen(accounts=len(found)))
        return len(found)


app = App(actors=[AccountActor, ReporterActor], projections=[Balances])
