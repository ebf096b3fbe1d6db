"""The port between actors and everybody else: what a shard needs of the world outside its own file."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actors.errors import ActorError
from actors.models.port import Models
from actors.step_cache import StepCache
from actors.turn import Call, Command, Turn
from events.envelope import RecordedEvent
from events.ids import StreamId
from events.store import PendingSend

if TYPE_CHECKING:
    from runtime.turns.edges import Probe


class Reply(msgspec.Struct, frozen=True):
    """The answer to one command. `body` is the JSON result; or `error` is set. version, position and logical time say what it rests on."""

    body: bytes = b"null"
    error: ActorError | None = None
    version: int = 0
    position: int = 0
    time: int = 0


ReplyTo = Callable[[Reply], None]


class Exchange(Protocol):
    """Adapters: `exchange_nats` for a deployment, `exchange_memory` for one process without a server."""

    step_cache: StepCache | None
    models: Models | None
    """Results that steps had before (S37). Losing it costs time only."""

    @property
    def shards(self) -> int:
        """Of the log."""
        ...

    async def ask(self, call: Call, turn: Turn, deadline_ms: int) -> Reply:
        """Ask another actor; repeats by id until the deadline."""
        ...

    async def query_view(self, projection: str, operation: str, body: bytes, deadline_ms: int) -> bytes: ...

    def chunk(self, command: Command, attempt: int, offset: int, data: Any, *, end: bool) -> None: ...

    def committed(self, shard: int, position: int, events: Sequence[RecordedEvent]) -> None:
        """Publish committed events, and the hint that the shard reached `position`."""
        ...

    def send(self, rows: Sequence[PendingSend]) -> None:
        """Carry outbox rows to the shards of their receivers, in order; lost ones are sent again by the outbox."""
        ...

    def probe(self, probe: "Probe") -> None:
        """Carry a probe to the shard of its receiver; may be lost (S23)."""
        ...

    def forward(self, command: Command, reply: ReplyTo) -> None:
        """Hand a command that this process may no longer decide to the shard's owner, until its deadline (S8)."""
        ...

    def shard_of(self, stream: StreamId) -> int: ...
