"""Given events, when a command, then events, reply or refusal - without a server, on the same turn engine as production (S36).

Every `when` also checks that arguments, events, reply and state survive encoding, that folding the events again gives the live state (so
nothing was changed beside `emit`), that `apply` is pure, and that running the turn again from its whole journal decides and sends the same.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Self

import msgspec

from actors.actor import Actor
from actors.errors import ActorError, Rejected, Unknown
from actors.event import Event
from actors.journal import Stood, Wait, open_turn, sent_event, started_event, wait_event
from actors.json_schema import check
from actors.models.port import Models
from actors.past import segment_bases
from actors.registry import ActorType
from actors.step_cache import StepCache
from actors.traps import pure
from actors.turn import Call, Command, Suspended, Turn
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
    waits: str | None = None
    """Name of the wait that the turn has come to: `ActorTest.answer` lets it go on (S20)."""

    @property
    def refused(self) -> bool:
        return self.refusal is not None


Answer = Callable[..., Any]


class MemoryDriver:
    """The `Driver` of actors.testing: a journal in a list, virtual time, answers by name."""

    code_version: str | None = None
    home = 0

    def __init__(
        self, stream: StreamId, answers: Mapping[str, Answer], now_us: int, start_version: int, step_cache: StepCache | None = None,
        models: Models | None = None, waiting: Iterable[CommandId] = (),
    ) -> None:
        self.step_cache = step_cache
        self.models = models
        self.waiting = frozenset(waiting)
        self.stream = stream
        self.answers = answers
        self.now_us = now_us
        self.version = start_version
        self.wait: Wait | None = None
        self.journal: list[RecordedEvent] = []
        self.chunks: list[Any] = []

    def wall_us(self) -> int:
        return self.now_us

    async def record(self, turn: Turn, events: list[NewEvent]) -> int:
        if not turn.journaled:
            turn.journaled = True
            events = [started_event(turn.started(None)), *events]
        for event in events:
            self.now_us += 1
            self.version += 1
            self.journal.append(recorded(self.stream, self.version, event, turn.command.command_id, self.now_us))
        turn.recorded = self.version
        return self.now_us

    async def suspend(self, turn: Turn, wait: Wait) -> None:
        opened = wait_event("opened", wait, {"expires_at_us": None, "schema": None})
        sent = [sent_event(send.receiver, send.method, send.args, send.command_id) for send in turn.sends]
        await self.record(turn, [opened] if wait.step is not None else [*turn.emitted, *sent, opened])
        self.wait = wait

    def still_waits(self, turn: Turn, wait_id: str) -> None:
        raise InvariantError(f"{turn.method.name} waits twice for {wait_id}")

    def under_way(self, command_id: CommandId) -> bool:
        return command_id in self.waiting

    def once_changed(self, turn: Turn) -> None:
        pass

    def check_send(self, turn: Turn, receiver: StreamId) -> None:
        pass

    async def ask(self, turn: Turn, call: Call, note: Callable[[Stood], None]) -> bytes:
        return await self._answer(f"{call.receiver}.{call.method}", f"{call.receiver.partition('/')[0]}.{call.method}", call.args)

    def answered(self, turn: Turn, stood: Stood) -> None:
        pass

    async def query_view(self, turn: Turn, projection: str, operation: str, body: bytes, fresh: bool) -> bytes:
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
        salt="", key_id=None, state_hash=None, hash="",
    )  # fmt: skip


class _Waiting(msgspec.Struct, kw_only=True):
    """A turn that waits: what it was asked, and the question."""

    command: Command
    arguments: dict[str, Any]
    wait: Wait


class ActorTest:
    """One actor under test. ``result = await ActorTest(AccountActor, "42").given(Deposited(cents=5)).when("deposit", cents=3)``."""

    def __init__(
        self,
        actor: type[Actor[Any]],
        id: str = "test",
        *,
        answers: Mapping[str, Answer] | None = None,
        sender: str | None = None,
        step_cache: StepCache | None = None,
        models: Models | None = None,
    ) -> None:
        """
        Args:
            sender: the stream of the actor that sends the commands, None = a client. It may be set anew between them.
            answers: what other actors and projections reply, by ``type.method``, ``type/id.method`` or ``projection.operation``; called
                with the arguments.
            sender: the actor that asks, as ``type/id``; None = from outside.
            step_cache: where steps with ``cache_ttl`` look (S37); without one every lookup is a miss.
            models: whom `Actor.model` asks.
        """
        self.kind: ActorType[Any] = ActorType(actor)
        self.key = id
        self.stream = stream_id(self.kind.name, id)
        self.answers = dict(answers or {})
        self.sender = sender
        self._step_cache = step_cache
        self._models = models
        self._events: list[RecordedEvent] = []
        self._commands = 0
        self._now_us = 1_700_000_000_000_000
        self._waiting: dict[str, _Waiting] = {}

    def given(self, *events: Event[Any]) -> Self:
        """Put events into the stream, as if earlier turns had emitted them."""
        for event in events:
            entry = self.kind.event_of(event)
            new = NewEvent(type=entry.tag, schema_version=entry.version, payload=encode_checked(event, entry.tag))
            self._append(new)
        return self

    def _append(self, event: NewEvent, command_id: str | None = None) -> None:
        self._now_us += 1
        self._events.append(recorded(self.stream, len(self._events) + 1, event, command_id, self._now_us))

    def state(self) -> Any:
        """The state folded from the stream, with `apply` trapped."""
        return self._fold(len(self._events))

    def _fold(self, version: int) -> Any:
        state = self.kind.initial()
        with pure():
            for event in self._events[:version]:
                if event.kind is Kind.STATE:
                    self.kind.apply(state, event)
        return state

    async def when(self, method: str, **arguments: Any) -> Result:
        """Handle one command or query; what it emits joins the stream. A refusal is returned, any other exception is raised.

        A command that comes to a `wait_for` returns what it did until then, with the wait's name as `waits`; others may be handled before
        `answer` lets it go on.

        Raises:
            InvariantError: live and replay differ, or a crash between two journal entries would end differently.
        """
        self._commands += 1
        spec = self.kind.method(method)
        body = encode_checked(arguments, f"the arguments of {method}")
        command = Command(
            stream=self.stream, method=method, args=body, command_id=CommandId(f"test-{self._commands}"), explicit=False,
            received_at_us=self._now_us, sender=self.sender,
        )  # fmt: skip
        decoded = spec.decode(body)
        if spec.query:
            state = self.state()
            before = canonical_hash(state)
            reply = self._turn(command, state)[0].answer(decoded)
            if canonical_hash(state) != before:
                raise InvariantError(f"the query {method} changed the state")
            return Result(events=[], reply=msgspec.json.decode(reply), state=state)
        return await self._run(command, decoded)

    async def answer(self, name: str, value: Any) -> Result:
        """Answer the oldest open wait of that name: its turn goes on, on the state as it is now, until its end or next wait.

        Raises:
            BadPayload: the value is not of the type that the wait asks for; it stays open.
            Unknown: nothing waits for `name`.
        """
        waiting = self._oldest(name)
        body = encode_checked(value, f"the answer to {name}")
        check(waiting.wait.schema, msgspec.json.decode(body), name)
        return await self._go_on(waiting, wait_event("answered", waiting.wait, {"value": msgspec.Raw(body), "by": None}))

    async def expire(self, name: str) -> Result:
        """Let the timeout of the oldest open wait of that name pass. Raises as `answer`."""
        waiting = self._oldest(name)
        return await self._go_on(waiting, wait_event("expired", waiting.wait, {}))

    def _oldest(self, name: str) -> _Waiting:
        found = next((waiting for waiting in self._waiting.values() if waiting.wait.name == name), None)
        if found is None:
            known = ", ".join(waiting.wait.name for waiting in self._waiting.values()) or "nothing"
            raise Unknown(f"no turn waits for {name!r} (waiting: {known})", wait=name)
        return found

    async def _go_on(self, waiting: _Waiting, event: NewEvent) -> Result:
        del self._waiting[waiting.wait.wait_id]
        self._append(event, waiting.command.command_id)
        return await self._run(waiting.command, waiting.arguments)

    async def _run(self, command: Command, arguments: dict[str, Any]) -> Result:
        """From the start or the last wait of a turn to its next wait or end."""
        start = len(self._events)
        state = self.state()
        turn, driver = self._turn(command, state)
        reply = b"null"
        refusal: ActorError | None = None
        try:
            turn.bind(asyncio.current_task())
            reply = await turn.decide(arguments)
        except Suspended:
            pass
        except Rejected as refused:
            refusal = refused
        self._events.extend(driver.journal)
        journal = [event.type for event in driver.journal if event.kind is not Kind.STATE]
        if refusal is not None:
            return Result(events=[], refusal=refusal, journal=journal, state=self.state())
        if driver.wait is not None:
            self._waiting[driver.wait.wait_id] = _Waiting(command=command, arguments=arguments, wait=driver.wait)
        else:
            for event in turn.emitted:
                self._append(event, command.command_id)
        if canonical_hash(self.state()) != canonical_hash(state):
            raise InvariantError(f"{command.method} changed the state beside emit: folding its events gives another state")
        self.kind.decode_state(self.kind.encode_state(state))
        if driver.wait is None:
            await self._check_crashes(command, arguments, start, turn, reply)
        return Result(
            events=[self.kind.events[event.type].decoder.decode(event.payload) for event in turn.emitted],
            reply=msgspec.json.decode(reply),
            sends=list(turn.sends),
            timers=list(turn.timers),
            chunks=driver.chunks,
            journal=journal,
            state=state,
            waits=None if driver.wait is None else driver.wait.name,
        )

    def _turn(self, command: Command, state: Any, *, upto: int | None = None) -> tuple[Turn, MemoryDriver]:
        """A turn of `command` after the first `upto` events, with its journal among them."""
        events = self._events[:upto]
        others = [each.command.command_id for each in self._waiting.values() if each.command is not command]
        driver = MemoryDriver(self.stream, self.answers, self._now_us, len(events), self._step_cache, self._models, others)
        opened = open_turn(events, command.command_id)
        bases = [] if opened is None else segment_bases(self.kind, events, opened.segments, self.kind.initial())
        spec = self.kind.method(command.method)
        turn = Turn(self.kind, self.key, command, spec, state, len(events), driver, "5eed", started=opened, bases=bases, epoch=1)
        return turn, driver

    async def _check_crashes(self, command: Command, arguments: dict[str, Any], start: int, turn: Turn, reply: bytes) -> None:
        """S19: with the whole journal recorded, running the turn again asks for nothing new and decides the same."""
        upto = len(self._events) - len(turn.emitted)
        if open_turn(self._events[:upto], command.command_id) is None:
            return
        again, second = self._turn(command, self._fold(start), upto=upto)
        again.bind(asyncio.current_task())
        if await again.decide(arguments) != reply or again.emitted != turn.emitted or again.sends != turn.sends or second.journal:
            raise InvariantError(f"{command.method} decides otherwise when its turn runs again after a crash")


def run(awaitable: Awaitable[Any]) -> Any:
    """Run one awaitable to its end: for tests without an asyncio plug-in."""

    async def main() -> Any:
        return await awaitable

    return asyncio.run(main())
