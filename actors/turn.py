"""The one turn engine (S36): decide, emit, apply, reply; steps, asks and sends as data.

A `Turn` handles one command of one actor. It knows no log, no NATS and no clock: a `Driver` journals and performs what it asks for.
`runtime` drives it against the log, `actors.testing` against memory. The order is always: journal the intent, run, journal the result.
"""

import asyncio
import random
import typing
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from actors.actor import Actor
from actors.errors import ActorError, BadPayload, NondeterminismError, StepFailed, TooLarge, error_body, error_from_body
from actors.event import Event
from actors.journal import Entry, Started, Use, derived_id, effect_event
from actors.ref import ActorRef, ViewRef
from actors.registry import ActorType, Method
from events.codec import encode, encode_checked
from events.envelope import Kind, NewEvent
from events.errors import EncodingError, InvariantError
from events.ids import CommandId, StreamId, is_token, stream_id
from events.limits import ARGUMENTS_BYTES_MAX, EVENT_BYTES_MAX, REPLY_BYTES_MAX, TIMER_ID_CHARACTERS, TURN_BYTES_MAX, TURN_EVENTS_MAX
from events.store import OutboxEntry, TimerEntry


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A request to one actor, as it came in. `chain` names the actors that wait for this ask, outermost first (S23).

    explicit: the caller chose the id, so that a repeat is possible. time: the sender's logical time, 0 from outside. copied_since_us: the
    id was made up by a worker, and since then another owner may have done a copy of this command (S5); 0 = it cannot. client: names the
    connection that asks from outside, as far as that is known; only fairness depends on it.
    """

    stream: StreamId
    method: str
    args: bytes
    command_id: CommandId
    explicit: bool
    received_at_us: int
    sender: str | None = None
    causation_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    deadline_ms: int | None = None
    chain: tuple[str, ...] = ()
    time: int = 0
    source: str | None = None
    copied_since_us: int = 0
    client: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """An ask to another actor, made by a turn. The id is derived, so a re-run asks with the same one."""

    receiver: StreamId
    method: str
    args: bytes
    command_id: CommandId
    timeout_s: float | None


class Driver(Protocol):
    """What a turn needs from whoever runs it."""

    async def record(self, turn: "Turn", events: list[NewEvent]) -> int:
        """Commit journal events singly and return their time in µs. The first call is the barrier of S15: it waits until every earlier
        turn of the actor is committed, and commits ``turn.started`` together with `events`."""
        ...

    async def ask(self, turn: "Turn", call: Call) -> bytes:
        """The reply of another actor. Raises ActorError."""
        ...

    async def query_view(self, turn: "Turn", projection: str, operation: str, body: bytes) -> bytes:
        """The reply of a projection. Raises ActorError."""
        ...

    async def run_step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call `function`; a plain one in a thread."""
        ...

    def send_chunk(self, turn: "Turn", offset: int, data: Any) -> None: ...

    def before_first_emit(self, turn: "Turn") -> None:
        """The state is about to differ from what is committed: time to copy it for queries, if the turn has a journal (S17)."""
        ...


class Turn:
    """One command being handled. Not reusable."""

    __slots__ = (
        "_busy", "_chunks", "_driver", "_new_ids", "_now_us", "_offset", "_random", "_task", "_uses",
        "command", "emitted", "entries", "journaled", "key", "kind", "method", "payload_bytes", "readonly", "seed", "sends",
        "state", "time", "timers", "timers_gone", "version",
    )  # fmt: skip

    def __init__(
        self,
        kind: ActorType[Any],
        key: str,
        command: Command,
        method: Method,
        state: Any,
        version: int,
        driver: Driver,
        seed: str,
        *,
        started: tuple[Started, dict[Use, Entry], int] | None = None,
    ) -> None:
        self.kind = kind
        self.key = key
        self.command = command
        self.method = method
        self.state = state
        self.version = version
        self.readonly = method.query
        self.seed = seed
        self.emitted: list[NewEvent] = []
        self.sends: list[OutboxEntry] = []
        self.timers: list[TimerEntry] = []
        self.timers_gone: list[str] = []
        self.payload_bytes = 0
        self.journaled = False
        self.entries: dict[Use, Entry] = {}
        self._now_us = command.received_at_us
        self.time = command.time
        """Logical time of the last journal entry: what this turn asks of others comes after it (S30)."""
        self._driver = driver
        self._uses: dict[tuple[str, str, str | None], int] = {}
        self._random: random.Random | None = None
        self._new_ids = 0
        self._chunks: list[Any] = []
        self._offset = 0
        self._busy = 0
        self._task: asyncio.Task[Any] | None = None
        if started is not None:
            opened, self.entries, _ = started
            self.seed, self._now_us, self.journaled = opened.seed, opened.now_us, True

    # -- running ------------------------------------------------------------------------------------------------------------------

    async def decide(self, arguments: dict[str, Any]) -> bytes:
        """Run the handler and return its reply as JSON. What it emitted and sends is in `emitted` and `sends`, not yet committed.

        Raises:
            ActorError: a refusal, or a reply too large.
            NondeterminismError: a re-run that left recorded entries unused (S19).
            Exception: whatever the handler raised.
        """
        actor: Actor[Any] = self.kind.cls(self)
        result = self.method.function(actor, **arguments)
        if self.method.asynchronous:
            result = await result
        self._check_left_over()
        return self.encode_reply(result)

    def answer(self, arguments: dict[str, Any]) -> bytes:
        """Run a query and return its reply as JSON."""
        actor: Actor[Any] = self.kind.cls(self)
        return self.encode_reply(self.method.function(actor, **arguments))

    def encode_reply(self, result: Any) -> bytes:
        try:
            reply = encode_checked(result, f"the reply of {self.kind.name}.{self.method.name}")
        except EncodingError as error:
            raise StepFailed(error.message, type="EncodingError") from error
        if len(reply) > REPLY_BYTES_MAX:
            raise TooLarge(f"the reply of {self.method.name} has {len(reply):,} bytes, allowed are {REPLY_BYTES_MAX:,}")
        return reply

    def started(self, code_version: str | None) -> Started:
        """What ``turn.started`` records."""
        return Started(
            command=self.command.method,
            arguments=msgspec.Raw(self.command.args or b"{}"),
            sender=self.command.sender,
            command_id=self.command.command_id,
            deadline_ms=self.command.deadline_ms,
            seed=self.seed,
            now_us=self._now_us,
            state_version=self.version,
            code_version=code_version,
        )

    # -- what handlers ask for ----------------------------------------------------------------------------------------------------

    def emit(self, event: Event[Any]) -> None:
        """S16: encode at once, decode the bytes as the registered type, apply the decoded event."""
        if self.readonly:
            raise InvariantError(f"{self.method.name} is a query: it may emit nothing")
        entry = self.kind.event_of(event)
        payload = encode_checked(event, f"event {entry.tag}")
        try:
            fact = entry.decoder.decode(payload)
        except msgspec.DecodeError as error:
            raise EncodingError(f"event {entry.tag} does not come back from JSON: {error}") from error
        if fact != event:
            raise EncodingError(f"event {entry.tag} does not come back from JSON as it went in: {event!r} became {fact!r}")
        self._check_size(entry.tag, payload)
        if not self.emitted:
            self._driver.before_first_emit(self)
        fact.apply(self.state)
        self.payload_bytes += len(payload)
        self.emitted.append(NewEvent(type=entry.tag, schema_version=entry.version, kind=Kind.STATE, payload=payload))

    def _check_size(self, tag: str, payload: bytes) -> None:
        if len(payload) > EVENT_BYTES_MAX:
            raise TooLarge(f"event {tag} has {len(payload):,} bytes, allowed are {EVENT_BYTES_MAX:,}")
        if len(self.emitted) >= TURN_EVENTS_MAX or self.payload_bytes + len(payload) > TURN_BYTES_MAX:
            raise TooLarge(f"a turn may emit {TURN_EVENTS_MAX:,} events and {TURN_BYTES_MAX:,} bytes")

    async def step(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str | None) -> Any:
        given = _json_value({"args": list(args), "kwargs": kwargs} if kwargs else {"args": list(args)})

        async def run() -> bytes:
            return encode_checked(await self._driver.run_step(function, args, kwargs), f"the result of step {name}")

        result = await self._effect("step", name, key, given, run)
        return msgspec.json.decode(result, type=_returns(function))

    def ref(self, actor: type[Actor[Any]] | str, id: str, timeout_s: float | None) -> ActorRef:
        type_name = actor if isinstance(actor, str) else actor.__actor_name__
        if type_name is None:
            raise BadPayload(f"{actor} has no name and so no address")
        receiver = stream_id(type_name, id)

        async def ask(method: str, arguments: dict[str, Any]) -> Any:
            return await self._ask(receiver, method, arguments, timeout_s, actor)

        def tell(method: str, arguments: dict[str, Any]) -> None:
            self._tell(receiver, method, arguments)

        return ActorRef(type_name, id, ask, tell)

    async def _ask(
        self, receiver: StreamId, method: str, arguments: dict[str, Any], timeout_s: float | None, actor: type[Actor[Any]] | str
    ) -> Any:
        body = self._arguments(receiver, method, arguments)
        name = f"{receiver}.{method}"
        use = self._peek("ask", name, None)
        call = Call(receiver=receiver, method=method, args=body, command_id=self._id("ask", name, use.n), timeout_s=timeout_s)
        given = {"receiver": receiver, "method": method, "arguments": msgspec.Raw(body), "command_id": call.command_id}

        async def run() -> bytes:
            return await self._driver.ask(self, call)

        reply = await self._effect("ask", name, None, given, run)
        returns = Any if isinstance(actor, str) else _returns(getattr(actor, method, None))
        return msgspec.json.decode(reply, type=returns)

    def _tell(self, receiver: StreamId, method: str, arguments: dict[str, Any]) -> None:
        if self.readonly:
            raise InvariantError(f"{self.method.name} is a query: it may send nothing")
        body = self._arguments(receiver, method, arguments)
        name = f"{receiver}.{method}"
        n = self._next("tell", name, None).n
        self.sends.append(
            OutboxEntry(
                receiver=receiver,
                method=method,
                args=body,
                command_id=self._id("tell", name, n),
                causation_id=self.command.command_id,
                correlation_id=self.command.correlation_id or self.command.command_id,
                traceparent=self.command.traceparent,
            )
        )

    def schedule(
        self,
        when: float | timedelta | datetime,
        method: str,
        every: float | timedelta | None,
        timer_id: str | None,
        arguments: dict[str, Any],
    ) -> str:
        if self.readonly:
            raise InvariantError(f"{self.method.name} is a query: it may schedule nothing")
        spec = self.kind.method(method)
        if spec.query:
            raise BadPayload(f"{method} is a query: a timer calls a command")
        body = self._arguments(self.command.stream, method, arguments)
        spec.decode(body)  # a mistake is told now, not when the timer is due
        name = timer_id or self.new_id()
        if not is_token(name) or len(name) > TIMER_ID_CHARACTERS:
            raise BadPayload(f"{name!r} is no name of a timer: 1 to {TIMER_ID_CHARACTERS} letters, digits, '_' or '-'")
        every_us = None if every is None else _duration_us(every)
        if every_us is not None and every_us < 1_000:
            raise BadPayload("a timer recurs at most every millisecond")
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise BadPayload("a date needs a time zone")
            due_us = int(when.timestamp() * 1_000_000)
        else:
            due_us = self._now_us + _duration_us(when)
        self.timers.append(
            TimerEntry(
                stream=self.command.stream, timer_id=name, due_us=due_us, wall=isinstance(when, datetime), every_us=every_us,
                method=method, args=body, set_at_us=self._now_us,
                correlation_id=self.command.correlation_id or self.command.command_id,
            )
        )  # fmt: skip
        return name

    def unschedule(self, timer_id: str) -> None:
        if self.readonly:
            raise InvariantError(f"{self.method.name} is a query: it may unschedule nothing")
        self.timers = [timer for timer in self.timers if timer.timer_id != timer_id]
        self.timers_gone.append(timer_id)

    def view(self, projection: str) -> ViewRef:
        if not is_token(projection):
            raise BadPayload(f"{projection!r} is no name of a projection")

        async def request(operation: str, arguments: dict[str, Any]) -> Any:
            body = encode_checked(arguments, f"the arguments of {projection}.{operation}")
            given = {"projection": projection, "operation": operation, "arguments": msgspec.Raw(body)}

            async def run() -> bytes:
                return await self._driver.query_view(self, projection, operation, body)

            return msgspec.json.decode(await self._effect("view", f"{projection}.{operation}", None, given, run))

        return ViewRef(request)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_us / 1_000_000, UTC)

    def random(self) -> float:
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random.random()

    def new_id(self) -> str:
        self._new_ids += 1
        return derived_id(self.seed, self._new_ids)

    def chunk(self, data: Any) -> None:
        """Held back before the barrier: until then the turn may be decided again on another state."""
        self._chunks.append(data)
        if self.journaled:
            self.flush_chunks()

    def drop_effects(self) -> None:
        """The turn ends without success: nothing that it sends or schedules is kept."""
        self.sends, self.timers, self.timers_gone = [], [], []

    def flush_chunks(self) -> None:
        for data in self._chunks:
            self._driver.send_chunk(self, self._offset, data)
            self._offset += 1
        self._chunks.clear()

    @property
    def chunks_sent(self) -> int:
        return self._offset

    # -- the journal --------------------------------------------------------------------------------------------------------------

    async def _effect(self, kind: str, name: str, key: str | None, given: dict[str, Any], run: Callable[[], Awaitable[bytes]]) -> bytes:
        """One journaled effect: from the record if it is there, else intent, run, result."""
        if self.readonly:
            raise InvariantError(f"{self.method.name} is a query: it may await nothing")
        use = self._next(kind, name, key)
        entry = self.entries.get(use)
        if entry is not None and entry.finished:
            return self._recorded(entry)
        if entry is None:
            self._check_follows(use)
            self._now_us = await self._driver.record(self, [effect_event(use, "started", given)])
            self.flush_chunks()
        else:
            entry.consumed = True
        began = self._now_us
        self._busy += 1
        try:
            result = await run()
        except Exception as error:  # whatever the effect raises is recorded, then raised as what a re-run would raise
            failure = _failure(error)
            self._now_us = await self._driver.record(self, [effect_event(use, "failed", failure)])
            raise _raised(failure, use) from error
        finally:
            self._busy -= 1
        if len(result) > EVENT_BYTES_MAX:
            failure = _failure(TooLarge(f"the result of {use} has {len(result):,} bytes, allowed are {EVENT_BYTES_MAX:,}"))
            self._now_us = await self._driver.record(self, [effect_event(use, "failed", failure)])
            raise _raised(failure, use)
        done = effect_event(use, "completed", {"result": msgspec.Raw(result)})
        self._now_us = max(began, await self._driver.record(self, [done]))
        return result

    def _recorded(self, entry: Entry) -> bytes:
        entry.consumed = True
        self._now_us = max(self._now_us, entry.at_us)
        if entry.failure is not None:
            raise _raised(entry.failure, entry.use)
        return b"null" if entry.result is None else bytes(entry.result)

    def _check_follows(self, use: Use) -> None:
        """S19, the sequential case: a handler that asks for something new, alone, while its journal holds finished entries that it has not
        asked for, is not the code that wrote the journal. (With concurrent steps only the end of the turn can tell.)"""
        if not self.entries or self._busy or asyncio.current_task() is not self._task:
            return
        unused = [entry.use for entry in self.entries.values() if not (entry.consumed or entry.carried)]
        if unused:
            raise _diverged(unused, use)

    def _check_left_over(self) -> None:
        unused = [entry.use for entry in self.entries.values() if not (entry.consumed or entry.carried)]
        if unused:
            raise _diverged(unused, None)

    def bind(self, task: asyncio.Task[Any] | None) -> None:
        """Name the task that runs the handler itself, so that concurrent steps can be told from sequential ones."""
        self._task = task

    def _peek(self, kind: str, name: str, key: str | None) -> Use:
        return Use(kind, name, key, self._uses.get((kind, name, key), 0) + 1)

    def _next(self, kind: str, name: str, key: str | None) -> Use:
        use = self._peek(kind, name, key)
        self._uses[(kind, name, key)] = use.n
        return use

    def _id(self, kind: str, name: str, n: int) -> CommandId:
        return CommandId(derived_id(self.command.stream, self.command.command_id, kind, name, n))

    def _arguments(self, receiver: str, method: str, arguments: dict[str, Any]) -> bytes:
        if not is_token(method):
            raise BadPayload(f"{method!r} is no name of a method")
        body = encode_checked(arguments, f"the arguments of {receiver}.{method}")
        if len(body) > ARGUMENTS_BYTES_MAX:
            raise TooLarge(f"the arguments of {receiver}.{method} have {len(body):,} bytes, allowed are {ARGUMENTS_BYTES_MAX:,}")
        return body


def _duration_us(duration: float | timedelta) -> int:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not 0 <= seconds <= 100 * 366 * 86_400:
        raise BadPayload(f"{duration!r} is no duration between 0 and 100 years")
    return int(seconds * 1_000_000)


def _json_value(given: dict[str, Any]) -> dict[str, Any]:
    """What a step was given, for the record; what JSON cannot carry is named by its type, since it is never read back."""
    try:
        encode(given)
    except (TypeError, ValueError, OverflowError):
        return {"args": None, "not_json": type(given).__name__}
    return given


_RETURNS: dict[Any, Any] = {}


def _returns(function: Any) -> Any:
    """The annotated result type of `function`, Any where there is none."""
    try:
        return _RETURNS[function]
    except (KeyError, TypeError):
        pass
    try:
        found = typing.get_type_hints(getattr(function, "func", function)).get("return", Any)
    except (TypeError, NameError, AttributeError):
        found = Any
    if found is type(None):
        found = None
    try:
        if len(_RETURNS) < 4_096:
            _RETURNS[function] = found
    except TypeError:
        pass
    return found


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, ActorError):
        return {"type": type(error).__name__, "message": error.message, "reply": error_body(error)}
    return {"type": type(error).__name__, "message": str(error)}


def _raised(failure: dict[str, Any], use: Use) -> Exception:
    """The exception that the handler sees, made from the record alone, so that it is the same on a re-run."""
    if "reply" in failure:
        return error_from_body(encode(failure["reply"]))
    return StepFailed(f"{use}: {failure['type']}: {failure['message']}", type=failure["type"])


def _diverged(unused: list[Use], asked: Use | None) -> NondeterminismError:
    recorded = ", ".join(map(str, unused[:5]))
    wanted = f"the code now asks for {asked}" if asked else "the code now ends without it"
    return NondeterminismError(f"the journal holds {recorded}; {wanted}", recorded=recorded, asked=str(asked) if asked else None)
