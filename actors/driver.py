"""The port between a turn and whoever runs it: `runtime` against the log, `actors.testing` against memory (S36)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from actors.journal import Stood, Wait
from actors.message import Call
from actors.models.port import Models
from actors.step_cache import StepCache
from events.envelope import NewEvent
from events.ids import CommandId, StreamId

if TYPE_CHECKING:
    from actors.turn import Turn


class Driver(Protocol):
    """What a turn needs from whoever runs it."""

    @property
    def step_cache(self) -> StepCache | None:
        """Where results of earlier steps are looked up (S37); None = every lookup is a miss."""
        ...

    @property
    def models(self) -> Models | None:
        """The model services of this process; None = none is configured."""
        ...

    @property
    def code_version(self) -> str | None:
        """Of the code that decides: a result of other code is not taken from the cache."""
        ...

    @property
    def home(self) -> int:
        """Where the actor lives: actors of one home always live in one process, also after it has died and another has taken them over."""
        ...

    def wall_us(self) -> int:
        """Now, on the clock that stamps journal entries. What is decided by it must be recorded: a re-run asks at another time."""
        ...

    async def record(self, turn: "Turn", events: list[NewEvent]) -> int:
        """Commit journal events singly and return their time in µs. The first call is the barrier of S15: it waits until every earlier
        turn of the actor is committed, and commits ``turn.started`` together with `events`. Sets `Turn.recorded` to the version of the
        last of them."""
        ...

    async def ask(self, turn: "Turn", call: Call, note: Callable[[Stood], None]) -> bytes:
        """The reply of another actor. note: is told where its shard stood then, before this returns or raises. Raises ActorError."""
        ...

    def answered(self, turn: "Turn", stood: Stood) -> None:
        """An answer of another actor was taken from the journal."""
        ...

    async def query_view(self, turn: "Turn", projection: str, operation: str, body: bytes, fresh: bool) -> bytes:
        """The reply of a projection; fresh: as `Actor.view` says. Raises ActorError."""
        ...

    async def run_step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call `function`; a plain one in a thread."""
        ...

    async def suspend(self, turn: "Turn", wait: Wait) -> None:
        """Commit the wait, and with a `wait_for` everything that the turn did since its start or last wait (S20). The turn is unwound
        after this, and runs again from its journal once somebody has answered."""
        ...

    def still_waits(self, turn: "Turn", wait_id: str) -> None:
        """A turn that runs again has come to a wait that nobody has answered."""
        ...

    def under_way(self, command_id: CommandId) -> bool:
        """Whether that command of the same actor is queued, runs or waits."""
        ...

    def once_changed(self, turn: "Turn") -> None:
        """A ``once`` step of the turn has begun or ended: `Turn.once_running` says which are under way (S5)."""
        ...

    def check_send(self, turn: "Turn", receiver: StreamId) -> None:
        """Whether the outbox takes another send to `receiver` (S25); unwinds the turn if not."""
        ...

    def send_chunk(self, turn: "Turn", offset: int, data: Any) -> None: ...

    def before_first_emit(self, turn: "Turn") -> None:
        """The state is about to differ from what is committed: time to copy it for queries, if the turn has a journal (S17)."""
        ...
