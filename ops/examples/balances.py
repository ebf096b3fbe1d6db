"""A projection of your own, in plain SQL: the balances of all accounts, ready to be asked.

    cuebook up --app ops.examples.balances:app
    cuebook ask account/42 deposit '{"cents": 500}'
    cuebook projections ask balances richest '{"limit": 3}'
"""

import msgspec

from events import RecordedEvent, StreamId
from ops.examples.bank import AccountActor
from projections import Database, Projection, operation
from runtime import App


class Balances(Projection):
    """What every account holds."""

    name = "balances"
    handles = ("account.deposited", "account.withdrawn")

    def create(self, db: Database) -> None:
        db.execute("CREATE TABLE balance (stream TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT")

    def apply(self, db: Database, event: RecordedEvent) -> None:
        cents = msgspec.json.decode(event.payload)["cents"] * (1 if event.type == "account.deposited" else -1)
        db.execute("INSERT INTO balance VALUES (?1, ?2) ON CONFLICT DO UPDATE SET cents = cents + ?2", (event.stream, cents))

    def erase(self, db: Database, stream: StreamId) -> None:
        db.execute("DELETE FROM balance WHERE stream = ?", (stream,))

    @operation
    def richest(self, db: Database, limit: int = 10) -> list[tuple[str, int]]:
        """Accounts and their cents, the richest first."""
        return db.execute("SELECT stream, cents FROM balance ORDER BY cents DESC, stream LIMIT ?", (limit,)).fetchall()


app = App(actors=[AccountActor], projections=[Balances])
