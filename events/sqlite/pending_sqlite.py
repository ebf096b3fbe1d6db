"""The rows that one append transaction will write, collected by table and sent with one executemany each."""

from typing import Any, Final

from events.crash_points import CrashPoint, reached
from events.letters import Letter, StoppedActor
from events.sqlite.event_rows_sqlite import EventRows
from events.sqlite.heads import InboxKey, PairKey
from events.sqlite.letters_sqlite import UPSERT_LETTER, UPSERT_STOPPED, letter_values, stopped_values
from events.sqlite.rows import (
    INBOX_CHANGES,
    INBOX_COLUMNS,
    OUTBOX_COLUMNS,
    PAIR_COLUMNS,
    UPSERT_SNAPSHOT,
    UPSERT_TIMER,
    UPSERT_WAIT,
    InboxRow,
    inbox_update_values,
    inbox_values,
    insert_rows,
    insert_sql,
    outbox_values,
    pair_check,
    snapshot_values,
    timer_values,
    update_rows,
    wait_values,
)
from events.sqlite.sqlite_library import SqliteConnection
from events.store import PendingSend, Snapshot, TimerEntry, WaitEntry

_STREAM_COLUMNS: Final = (
    "id", "name", "type", "key", "head_version", "head_position", "head_hash", "base_version", "base_hash", "row_check",
)  # fmt: skip
_UPSERT_SENT: Final = insert_sql("sent_heads", PAIR_COLUMNS, ("sender", "receiver", "incarnation"))
_UPSERT_RECEIVED: Final = insert_sql("received_heads", PAIR_COLUMNS, ("sender", "receiver", "incarnation"))


class PendingRows:
    """Rows that are decided but not written yet."""

    def __init__(self) -> None:
        self.streams: list[tuple[Any, ...]] = []
        self.formats: list[tuple[Any, ...]] = []
        self.events = EventRows()
        self.pages: list[tuple[Any, ...]] = []
        self.inbox: dict[InboxKey, InboxRow] = {}
        self.outbox: list[PendingSend] = []
        self.sent: dict[PairKey, int] = {}
        self.received: dict[PairKey, int] = {}
        # None = gone. The last word on a key wins, whatever order a batch sets and removes it in.
        self.timers: dict[tuple[str, str], TimerEntry | None] = {}
        self.waits: dict[tuple[str, str], WaitEntry | None] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.letters: dict[tuple[str, str], Letter | None] = {}
        self.stopped: dict[str, StoppedActor | None] = {}

    def any(self) -> bool:
        """True if something would be written that an answer depends on."""
        return bool(
            self.events
            or self.inbox
            or self.outbox
            or self.timers
            or self.waits
            or self.snapshots
            or self.sent
            or self.received
            or self.letters
            or self.stopped
        )

    def write(self, connection: SqliteConnection) -> None:
        """Send everything, inside the caller's transaction."""
        self.events.write(connection)
        reached(CrashPoint.APPEND_EVENTS)
        # New rows before updates: a command that arrives and runs in one batch is one row, already as it ends.
        if self.inbox:
            insert_rows(connection, "inbox", INBOX_COLUMNS, [inbox_values(row) for row in self.inbox.values() if row.is_new])
        reached(CrashPoint.APPEND_INBOX)
        if not self._only_events():
            self._write_others(connection)
        if self.snapshots:
            reached(CrashPoint.APPEND_SNAPSHOT)
        reached(CrashPoint.APPEND_ROWS)

    def _only_events(self) -> bool:
        """The usual commit: nothing beside events and new inbox rows."""
        return not (
            self.streams or self.formats or self.pages or self.inbox or self.outbox or self.sent or self.received or self.timers
            or self.waits or self.snapshots or self.letters or self.stopped
        )  # fmt: skip

    def _write_others(self, connection: SqliteConnection) -> None:
        insert_rows(connection, "streams", _STREAM_COLUMNS, self.streams)
        insert_rows(connection, "outbox", OUTBOX_COLUMNS, map(outbox_values, self.outbox))
        update_rows(connection, "inbox", INBOX_CHANGES, [inbox_update_values(row) for row in self.inbox.values() if not row.is_new])
        for sql, values in (
            ("INSERT INTO formats VALUES (?, ?, ?, ?)", self.formats),
            ("INSERT INTO stream_pages VALUES (?, ?, ?)", self.pages),
            (_UPSERT_SENT, [(*key, n, pair_check(*key, n)) for key, n in self.sent.items()]),
            (_UPSERT_RECEIVED, [(*key, n, pair_check(*key, n)) for key, n in self.received.items()]),
            (UPSERT_TIMER, [timer_values(timer) for timer in self.timers.values() if timer is not None]),
            ("DELETE FROM timers WHERE stream = ? AND timer_id = ?", [key for key, timer in self.timers.items() if timer is None]),
            (UPSERT_WAIT, [wait_values(wait) for wait in self.waits.values() if wait is not None]),
            ("DELETE FROM waits WHERE stream = ? AND wait_id = ?", [key for key, wait in self.waits.items() if wait is None]),
            (UPSERT_LETTER, [letter_values(letter) for letter in self.letters.values() if letter is not None]),
            ("DELETE FROM letters WHERE stream = ? AND command_id = ?", [key for key, letter in self.letters.items() if letter is None]),
            (UPSERT_STOPPED, [stopped_values(stopped) for stopped in self.stopped.values() if stopped is not None]),
            ("DELETE FROM stopped WHERE stream = ?", [(stream,) for stream, stopped in self.stopped.items() if stopped is None]),
            (UPSERT_SNAPSHOT, [snapshot_values(snapshot) for snapshot in self.snapshots.values()]),
        ):
            if values:
                connection.executemany(sql, values)
