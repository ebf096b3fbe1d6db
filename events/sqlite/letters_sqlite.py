"""Rows of the tables `letters` and `stopped` as the structs of `events.letters`, and back, with their checksums (S27)."""

from typing import Any, Final

import msgspec

from events.envelope import row_check
from events.errors import CorruptLogError
from events.ids import CommandId, EventId, StreamId
from events.letters import Letter, LetterState, StoppedActor
from events.sqlite.rows import Row, insert_sql
from events.sqlite.sqlite_library import SqliteConnection

LETTER_COLUMNS: Final = (
    "stream", "command_id", "state", "method", "args_hash", "attempts", "reason", "failed_at_us", "next_try_us", "event_ids", "sender",
    "causation_id", "correlation_id", "traceparent", "source", "received_at_us", "row_check", "args",
)  # fmt: skip
STOPPED_COLUMNS: Final = ("stream", "reason", "message", "failures", "stopped_at_us", "code_version", "row_check")
SELECT_LETTERS: Final = f"SELECT {', '.join(LETTER_COLUMNS)} FROM letters"
SELECT_STOPPED: Final = f"SELECT {', '.join(STOPPED_COLUMNS)} FROM stopped"
UPSERT_LETTER: Final = insert_sql("letters", LETTER_COLUMNS, ("stream", "command_id"))
UPSERT_STOPPED: Final = insert_sql("stopped", STOPPED_COLUMNS, ("stream",))
_STATES: Final = {state.value: state for state in LetterState}


def _letter_check(letter: Letter) -> int:
    return row_check(
        letter.stream, letter.command_id, letter.state, letter.method, letter.args_hash, letter.attempts, letter.reason,
        letter.failed_at_us, letter.next_try_us, list(letter.event_ids), letter.sender, letter.causation_id, letter.correlation_id,
        letter.traceparent, letter.source, letter.received_at_us, letter.args,
    )  # fmt: skip


def letter_values(letter: Letter) -> tuple[Any, ...]:
    """The values of `LETTER_COLUMNS`."""
    return (
        letter.stream, letter.command_id, letter.state.value, letter.method, letter.args_hash, letter.attempts, letter.reason,
        letter.failed_at_us, letter.next_try_us, msgspec.json.encode(letter.event_ids).decode(), letter.sender, letter.causation_id,
        letter.correlation_id, letter.traceparent, letter.source, letter.received_at_us, _letter_check(letter), letter.args,
    )  # fmt: skip


def letter_row(shard: int, row: Row) -> Letter:
    """A row of `SELECT_LETTERS`, its checksum verified. Raises CorruptLogError."""
    try:
        ids = msgspec.json.decode(row[9], type=list[str])
        letter = Letter(
            stream=StreamId(row[0]), command_id=CommandId(row[1]), state=_STATES[row[2]], method=row[3], args_hash=row[4], attempts=row[5],
            reason=row[6], failed_at_us=row[7], next_try_us=row[8], event_ids=tuple(map(EventId, ids)), sender=row[10],
            causation_id=row[11], correlation_id=row[12], traceparent=row[13], source=row[14], received_at_us=row[15], args=row[17],
        )  # fmt: skip
        sound = _letter_check(letter) == row[16]
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise _damaged("letters", shard, row, str(error)) from error
    if not sound:
        raise _damaged("letters", shard, row, "its checksum does not match")
    return letter


def _stopped_check(stopped: StoppedActor) -> int:
    return row_check(
        stopped.stream, stopped.reason, stopped.message, stopped.failures, stopped.stopped_at_us, stopped.code_version
    )  # fmt: skip


def stopped_values(stopped: StoppedActor) -> tuple[Any, ...]:
    """The values of `STOPPED_COLUMNS`."""
    return (
        stopped.stream, stopped.reason, stopped.message, stopped.failures, stopped.stopped_at_us, stopped.code_version,
        _stopped_check(stopped),
    )  # fmt: skip


def stopped_row(shard: int, row: Row) -> StoppedActor:
    """A row of `SELECT_STOPPED`, its checksum verified. Raises CorruptLogError."""
    try:
        stopped = StoppedActor(
            stream=StreamId(row[0]), reason=row[1], message=row[2], failures=row[3], stopped_at_us=row[4], code_version=row[5]
        )
        sound = _stopped_check(stopped) == row[6]
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise _damaged("stopped", shard, row, str(error)) from error
    if not sound:
        raise _damaged("stopped", shard, row, "its checksum does not match")
    return stopped


def _damaged(table: str, shard: int, row: Row, why: str) -> CorruptLogError:
    return CorruptLogError(
        f"a row of table {table} in shard {shard} is damaged ({row[0]}): {why}. Run: cuebook verify", shard=shard, table=table
    )


def has_letters(connection: SqliteConnection) -> bool:
    """Whether the file has these tables: a reader may meet one that no newer program has opened for writing yet."""
    return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'letters'").fetchall())
