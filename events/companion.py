"""Tables of somebody else's that commit with the log: an index over events that only he understands.

What they hold must follow from the events alone. They are made anew where they are missing, so no answer is ever lost with them (I-8).
"""

from collections.abc import Sequence
from typing import Protocol

from events.envelope import RecordedEvent
from events.sqlite.sqlite_library import SqliteConnection


class Companion(Protocol):
    """Called on the database thread of a shard's writer, inside its transactions; it must neither commit nor roll back."""

    def prepare(self, connection: SqliteConnection) -> None:
        """Make the tables and bring them up to the end of the log: called with each takeover, in its transaction."""
        ...

    def write(self, connection: SqliteConnection, events: Sequence[RecordedEvent]) -> None:
        """Note `events`, which this transaction commits. Called again for the same events if the transaction is tried again."""
        ...
