"""What a log in memory holds: the writer, the reader and the closing of streams work on the same."""

from collections import deque
from enum import StrEnum
from typing import Protocol

from events.closing import Erasure
from events.envelope import RecordedEvent
from events.letters import Letter, StoppedActor
from events.store import Head, InboxEntry, PendingSend, Snapshot, TimerEntry, WaitEntry

PairKey = tuple[str, str, str]


class Fault(StrEnum):
    """What the next commit of a shard shall come to. The two UNKNOWN ones look alike to the caller: written, or not."""

    FULL = "full"
    TRANSIENT = "transient"
    SUPERSEDED = "superseded"
    UNKNOWN_WRITTEN = "unknown_written"
    UNKNOWN_LOST = "unknown_lost"


class MemoryShardContent:
    """All that one shard file would hold."""

    def __init__(self) -> None:
        self.epoch = 0
        self.token = bytes(16)
        self.worker: str | None = None
        self.time = 0
        self.events: list[RecordedEvent] = []
        self.streams: dict[str, list[RecordedEvent]] = {}
        self.inbox: dict[tuple[str, str], InboxEntry] = {}
        self.outbox: dict[tuple[str, str, str, int], PendingSend] = {}
        self.sent: dict[PairKey, int] = {}
        self.received: dict[PairKey, int] = {}
        self.timers: dict[tuple[str, str], TimerEntry] = {}
        self.waits: dict[tuple[str, str], WaitEntry] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.letters: dict[tuple[str, str], Letter] = {}
        self.stopped: dict[str, StoppedActor] = {}
        self.statuses: dict[str, str] = {}
        self.keys: dict[str, list[str]] = {}
        self.erasures: dict[str, Erasure] = {}
        self.formats: dict[tuple[str, str, int], int] = {("format", "shard", 1): 0}
        self.faults: deque[Fault] = deque()

    def head(self, stream: str) -> Head | None:
        events = self.streams.get(stream)
        if not events:
            return None
        last = events[-1]
        hash_, status = bytes.fromhex(last.hash), self.statuses.get(stream, "live")
        return Head(stream=last.stream, version=last.version, position=last.position, hash=hash_, status=status)


class MemoryContents(Protocol):
    """The part of `store_memory.MemoryLog` that its readers use."""

    shards: int
    incarnation: str

    def content(self, shard: int) -> MemoryShardContent:
        """What a shard holds. Raises: ConfigurationError: there is none of that number."""
        ...
