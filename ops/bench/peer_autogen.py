"""autogen-core's in-memory runtime: an ask to one of 1,000 agents. Nothing of it survives the process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler

from events.errors import InvariantError
from ops.bench.limits import STREAMS
from ops.bench.measure import Case, closed_loop, in_turn


@dataclass
class Deposit:
    """The command."""

    cents: int


@dataclass
class Balance:
    """The reply."""

    cents: int


class AutogenAccount(RoutedAgent):
    """The account of `ops.examples.bank`, as autogen-core has it."""

    def __init__(self) -> None:
        super().__init__("an account")
        self.cents = 0

    @message_handler
    async def deposit(self, message: Deposit, ctx: MessageContext) -> Balance:
        """Add money; replies the new balance."""
        self.cents += message.cents
        return Balance(self.cents)


@asynccontextmanager
async def autogen_case() -> AsyncIterator[Case]:
    """Deposits, 100 in flight, to agents that are there already."""
    runtime = SingleThreadedAgentRuntime()
    await AutogenAccount.register(runtime, "account", AutogenAccount)
    accounts = [AgentId("account", str(number)) for number in range(STREAMS)]
    runtime.start()

    async def deposit(number: int) -> None:
        reply = await runtime.send_message(Deposit(500), accounts[number % STREAMS])
        if not reply.cents:
            raise InvariantError("a deposit to autogen-core left nothing")

    try:
        await in_turn(deposit, STREAMS)
        yield partial(closed_loop, deposit, 100)
    finally:
        await runtime.stop()
