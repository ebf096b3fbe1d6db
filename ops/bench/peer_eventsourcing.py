"""The `eventsourcing` library on SQLite: a command on an aggregate that is kept in memory, then its save.

WAL and synchronous=FULL, as ours. It is synchronous: however many wait, one command is one commit.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from ops.bench.limits import STREAMS
from ops.bench.measure import Case, Sample, repeated


class EventsourcingAccount(Aggregate):
    """The account of `ops.examples.bank`, as eventsourcing has it."""

    def __init__(self) -> None:
        self.cents = 0

    @event("Deposited")
    def deposit(self, cents: int) -> None:
        """Add money."""
        self.cents += cents


@contextmanager
def eventsourcing_case(folder: Path) -> Iterator[Case]:
    """Deposits, one after another, to accounts that were saved before."""
    library = Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "eventsourcing.sqlite")})
    accounts = [EventsourcingAccount() for _ in range(STREAMS)]
    numbers = itertools.count()

    def deposit() -> int:
        account = accounts[next(numbers) % STREAMS]
        account.deposit(500)
        library.save(account)
        return 1

    async def run(seconds: float) -> Sample:
        return repeated(deposit, seconds)

    try:
        library.save(*accounts)
        yield run
    finally:
        library.close()
