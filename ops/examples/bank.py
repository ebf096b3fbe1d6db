"""The smallest app: bank accounts. `cuebook up --app ops.examples.bank:app`, then `cuebook ask account/42 deposit '{"cents": 500}'`."""

from actors import Actor, Event, Rejected, State, command, query
from runtime import App


class Account(State):
    cents: int = 0
    transfers: int = 0


class Deposited(Event[Account], tag="account.deposited"):
    cents: int

    def apply(self, state: Account) -> None:
        state.cents += self.cents


class Withdrawn(Event[Account], tag="account.withdrawn"):
    cents: int
    to: str | None = None

    def apply(self, state: Account) -> None:
        state.cents -= self.cents
        state.transfers += self.to is not None


class AccountActor(Actor[Account], name="account"):
    """A bank account that is never overdrawn."""

    @command
    async def deposit(self, cents: int) -> int:
        """Add money; replies the new balance."""
        if cents <= 0:
            raise Rejected("a deposit must be positive", cents=cents)
        self.emit(Deposited(cents=cents))
        return self.state.cents

    @command
    async def withdraw(self, cents: int) -> int:
        """Take money; refused where there is not enough."""
        if cents <= 0 or cents > self.state.cents:
            raise Rejected("there is not that much in the account", cents=cents, balance=self.state.cents)
        self.emit(Withdrawn(cents=cents))
        return self.state.cents

    @command
    async def transfer(self, cents: int, to: str) -> int:
        """Send money to another account: it leaves with this turn's commit and arrives exactly once."""
        if cents <= 0 or cents > self.state.cents:
            raise Rejected("there is not that much in the account", cents=cents, balance=self.state.cents)
        self.emit(Withdrawn(cents=cents, to=to))
        self.ref(AccountActor, to).tell.deposit(cents=cents)
        return self.state.cents

    @query
    def balance(self) -> int:
        """The balance in cents."""
        return self.state.cents


app = App(actors=[AccountActor])
