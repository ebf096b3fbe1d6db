"""Given events, when a command, then events, reply or refusal - without a server, on the same turn engine as production (S36).

Every `when` also checks that arguments, events, reply and state survive encoding, that folding the events again gives the live state (so
nothing was changed beside `emit`), that `apply` is pure, and that running the turn again from its whole journal decides and sends the same.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import msgspec

from actors.actor import Actor
from actors.errors import ActorError, Rejected, Unknown
from actors.event import Event
from actors.journal import Entry, Started, Use, open_turn, started_event
from actors.registry import ActorType
from actors.traps import pure
from actors.turn import Call, Command, Turn
from events.codec import canonical_hash, encode_checked
from events.envelope import MAIN_BRANCH, Kind, NewEvent, RecordedEvent
from events.errors import InvariantError
from events.ids import CommandId, EventId, Position, StreamId, Version, stream_id
from events.store import OutboxEntry, TimerEntry


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a command did. Exactly one of `reply` (decoded JSON, may be None) and `refusal` counts; `refused` says which."""

    events: list[Event[Any]]
    reply: Any = None
    refusal: ActorError | None = None
    sends: list[OutboxEntry] = []
    timers: list[TimerEntry] = []
    chunks: list[Any] = []
    journal: list[str] = []
    state: Any = None

    @property
    def refused(self) -> bool:
        return self.refusal is not None


Answer = Callable[..., Any]


class MemoryDriver:
    """The `Driver` of actors.testing: a journal in a list, virtual time, answers by name."""

    def __init__(self, stream: StreamId, answers: Mapping[str, Answer], now_us: int, start_version: int) -> None:
        self.stream = stream
        self.answers = answers
        self.now_us = now_us
        self.version = start_version
        self.journal: list[RecordedEvent] = []
        self.chunks: list[Any] = []

    async def record(self, turn: Turn, events: list[NewEvent]) -> int:
        if not turn.journaled:
            turn.journaled = True
            events = [started_event(turn.started(None)), *events]
        for event in events:
            self.now_us += 1
            self.version += 1
            self.journal.append(recorded(self.stream, self.version, event, turn.command.command_id, self.now_us))
        return self.now_us

    async def ask(self, turn: Turn, call: Call) -> bytes:
        return await self._answer(f"{call.receiver}.{call.method}", f"{call.receiver.partition('/')[0]}.{call.method}", call.args)

    async def query_view(self, turn: Turn, projection: str, operation: str, body: bytes) -> bytes:
        return await self._answer(f"{projection}.{operation}", f"{projection}.{operation}", body)

    async def _answer(self, exact: str, general: str, body: bytes) -> bytes:
        answer = self.answers.get(exact) or self.answers.get(general)
        if answer is None:
            raise Unknown(f"the test gives no answer for {exact}: pass answers={{{general!r}: function}}")
        result = answer(**msgspec.json.decode(body))
        return encode_checked(await result if inspect.isawaitable(result) else result, f"the answer of {exact}")

    async def run_step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def send_chunk(self, turn: Turn, offset: int, data: Any) -> None:
        self.chunks.append(data)

    def before_first_emit(self, turn: Turn) -> None:
        pass


def recorded(stream: StreamId, version: int, event: NewEvent, command_id: str | None, at_us: int) -> RecordedEvent:
    """`event` as if it stood in a log; hashes are left empty, nobody verifies a test's events."""
    return RecordedEvent(
        shard=0, position=Position(version), time=at_us, stream=stream, version=Version(version), event_id=EventId(f"{version:024x}"),
        type=event.type, schema_version=event.schema_version, recorded_at_us=at_us, command_id=command_id, causation_id=None,
        correlation_id=None, traceparent=None, sender=None, branch=MAIN_BRANCH, parent=None, kind=event.kind, owner_epoch=1,
        code_version=None, duration_us=event.duration_us, summary=event.summary, error=event.error, payload=msgspec.Raw(event.payload),
        salt=None, key_id=None, state_hash=None, hash="",
    )  # fmt: skip


class ActorTest:
    """One actor under test. ``result = await ActorTest(AccountActor, "42").given(Deposited(cents=5)).when("deposit", cents=3)``."""

    def __init__(self, actor: type[Actor[Any]], id: str = "test", *, answers: Mapping[str, Answer] | None = None) -> None:
        """
        Args:
            answers: what other actors and projections reply, by ``type.method``, ``type/id.method`` or ``projection.operation``; called
                with the arguments.
        """
        self.kind: ActorType[Any] = ActorType(actor)
        self.key = id
        self.stream = stream_id(self.kind.name, id)
        self.answers = dict(answers or {})
        self._events: list[RecordedEvent] = []
        self._commands = 0
        self._now_us = 1_700_000_000_000_000

    def given(self, *events: Event[Any]) -> Self:
        """Put events into the stream, as if earlier turns had emitted them."""
        for event in events:
            entry = self.kind.event_of(event)
            new = NewEvent(type=entry.tag, schema_version=entry.version, payload=encode_checked(event, entry.tag))
            self._append(new)
        return self

    def _append(self, event: NewEvent) -> None:
        self._now_us += 1
        self._events.append(recorded(self.stream, len(self._events) + 1, event, None, self._now_us))

    def state(self) -> Any:
        """The state folded from the stream, with `apply` trapped."""
        state = self.kind.initial()
        with pure():
            for event in self._events:
                if event.kind is Kind.STATE:
                    self.kind.apply(state, event)
        return state

    async def when(self, method: str, **arguments: Any) -> Result:
        """Handle one command or query; what it emits joins the stream. A refusal is returned, any other exception is raised.

        Raises:
            InvariantError: live and replay differ, or a crash between two journal entries would end differently.
        """
        self._commands += 1
        spec = self.kind.method(method)
        body = encode_checked(arguments, f"the arguments of {method}")
        command = Command(
            stream=self.stream, method=method, args=body, command_id=CommandId(f"test-{self._commands}"), explicit=False,
            received_at_us=self._now_us,
        )  # fmt: skip
        state = self.state()
        turn, driver = self._turn(command, state, None)
        decoded = spec.decode(body)
        if spec.query:
            before = canonical_hash(state)
            reply = turn.answer(decoded)
            if canonical_hash(state) != before:
                raise InvariantError(f"the query {method} changed the state")
            return Result(events=[], reply=msgspec.json.decode(reply), state=state)
        try:
            turn.bind(asyncio.current_task())
            reply = await turn.decide(decoded)
        except Rejected as refusal:
            return Result(events=[], refusal=refusal, journal=[event.type for event in driver.journal], state=self.state())
        for event in turn.emitted:
            self._append(event)
        if canonical_hash(self.state()) != canonical_hash(state):
            raise InvariantError(f"{method} changed the state beside emit: folding its events gives another state")
        self.kind.decode_state(self.kind.encode_state(state))
        await self._check_crashes(command, decoded, driver, turn, reply)
        return Result(
            events=[self.kind.events[event.type].decoder.decode(event.payload) for event in turn.emitted],
            reply=msgspec.json.decode(reply),
            sends=list(turn.sends),
            timers=list(turn.timers),
            chunks=driver.chunks,
            journal=[event.type for event in driver.journal],
            state=state,
        )

    def _turn(self, command: Command, state: Any, started: tuple[Started, dict[Use, Entry], int] | None) -> tuple[Turn, MemoryDriver]:
        driver = MemoryDriver(self.stream, self.answers, self._now_us, len(self._events))
        spec = self.kind.method(command.method)
        turn = Turn(self.kind, self.key, command, spec, state, len(self._events), driver, "5eed", started=started)
        return turn, driver

    async def _check_crashes(self, command: Command, arguments: dict[str, Any], driver: MemoryDriver, turn: Turn, reply: bytes) -> None:
        """S19: with the whole journal recorded, running the turn again asks for nothing new and decides the same."""
        opened = open_turn(driver.journal, command.command_id)
        if opened is None:
            return
        before = self.kind.initial()
        for event in self._events[: len(self._events) - len(turn.emitted)]:
            if event.kind is Kind.STATE:
                self.kind.apply(before, event)
        again, second = self._turn(command, before, opened)
        again.bind(asyncio.current_task())
        if await again.decide(arguments) != reply or again.emitted != turn.emitted or again.sends != turn.sends or second.journal:
            raise InvariantError(f"{command.method} decides otherwise when its turn runs again after a crash")


def run(awaitable: Awaitable[Any]) -> Any:
    """Run one awaitable to its end: for tests without an asyncio plug-in."""

    async def main() -> Any:
        return await awaitable

    return asyncio.run(main())
