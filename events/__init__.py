"""Facts and their storage: the envelope, the codec and the log.

Here are the words and the ports. Rooms: `sqlite` and `in_memory` (the two adapters of the log), `keeping` (verify, backup, export),
`sealed` (what is encrypted, and erased).

Knows nothing of actors, NATS or any concrete event type. Importing this package costs msgspec and nothing else; the SQLite adapter is
imported by name (``events.sqlite.store_sqlite``) by whoever composes a deployment.
"""

from events.envelope import MAIN_BRANCH, Kind, NewEvent, RecordedEvent
from events.errors import (
    AppendOutcomeUnknownError,
    CorruptLogError,
    CuebookError,
    InvariantError,
    LogFullError,
    SupersededError,
    TransientError,
    WrongExpectedVersionError,
)
from events.ids import CommandId, EventId, Position, StreamId, Version, stream_id

__all__ = [
    "MAIN_BRANCH",
    "AppendOutcomeUnknownError",
    "CommandId",
    "CorruptLogError",
    "CuebookError",
    "EventId",
    "InvariantError",
    "Kind",
    "LogFullError",
    "NewEvent",
    "Position",
    "RecordedEvent",
    "StreamId",
    "SupersededError",
    "TransientError",
    "Version",
    "WrongExpectedVersionError",
    "stream_id",
]
