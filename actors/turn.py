"""The one turn engine (S36): decide, emit, apply, reply; steps, asks and sends as data.

A `Turn` handles one command of one actor. It knows no log, no NATS and no clock: a `Driver` journals and performs what it asks for.
`runtime` drives it against the log, `actors.testing` against memory. The order is always: journal the intent, run, journal the result.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from actors import effects
from actors.actor import Actor
from actors.driver import Driver
from actors.errors import ActorError, BadPayload, OutcomeUnknown, StepFailed, TooLarge
from actors.event import Event
from actors.holding import Held
from actors.journal import Entry, Opened, Started, Stood, Wait, derived_id
from actors.json_schema import schema_of
from actors.message import Call, Command
from actors.models.port import Models
from actors.past import NO_PAST, Past
from actors.recovery import Plan, Recovery, keyed
from actors.ref import ActorRef, ViewRef
from actors.registry import ActorType, Method
from actors.scope import current_scope
from actors.step_cache import CacheWish, cached_step
from actors.stepping import Journaled, Suspended
from events.codec import encode_checked
from events.envelope import Kind, NewEvent
from events.errors import EncodingError, InvariantError
from events.ids import CommandId, StreamId, is_token, stream_id
from events.limits import EVENT_BYTES_MAX, REPLY_BYTES_MAX, TURN_BYTES_MAX, TURN_EVENTS_MAX
from events.store import OutboxEntry, TimerEntry

__all__ = ["Call", "Command", "Driver", "Suspended", "Turn"]


class Turn(Journaled):
    """One command being handled. Not reusable.

    One that runs again after a wait (S20) goes through its finished segments first: each on the state that it was decided on, its effects
    from the journal, what it emits compared with the record. Behind its last wait it goes on with the actor's own state.
    """

    __slots__ = (
        "_chunks", "_held", "_new_ids", "_offset", "_present", "_random", "_resumed", "emitted", "journaled", "payload_bytes", "seed",
        "sends", "state", "time", "timers", "timers_gone", "version",
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
        started: Opened | None = None,
        bases: Sequence[Any] = (),
        epoch: int = 0,
    ) -> None:
        """
        Args:
            started: the journal of a turn that runs again. bases: the states that its finished segments were decided on.
            epoch: of this owner: chunks of segments that it ran itself are not sent twice.
        """
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
        self.entries = {}
        self._now_us = command.received_at_us
        self.time = command.time
        """Logical time of the last journal entry: what this turn asks of others comes after it (S30)."""
        self.recorded = 0
        self._driver = driver
        self._uses = {}
        self._random: random.Random | None = None
        self._new_ids = 0
        self._chunks: list[Any] = []
        self._offset = 0
        self._resumed = 0
        self._held: Held | None = None
        self._busy = 0
        self._once_gone = None
        self._under_way = None
        self.ended = False
        self._task = None
        self.suspended = False
        self.once_running = {}
        self._past = NO_PAST
        self._present = state
        if started is not None:
            opened, self.entries = started.started, started.entries
            self.time = max(self.time, started.time)
            self.seed, self._now_us, self.journaled = opened.seed, opened.now_us, True
            self._past = Past(started.segments, bases, muted=started.epoch == epoch)
            self._resumed = len(started.segments) if started.epoch == epoch else 0
            self.state = self._past.state(state)

    # -- running ------------------------------------------------------------------------------------------------------------------

    async def decide(self, arguments: dict[str, Any]) -> bytes:
        """Run the handler and return its reply as JSON. What it emitted and sends is in `emitted` and `sends`, not yet committed.

        Raises:
            ActorError: a refusal, or a reply too large.
            NondeterminismError: a re-run that left recorded entries unused (S19).
            Exception: whatever the handler raised.
        """
        actor: Actor[Any] = self.kind.cls(self)
        try:
            result = self.method.function(actor, **arguments)
            if self.method.asynchronous:
                result = await result
        except BaseException as cause:
            self.ended = True
            if self._under_way:
                await self.end_effects(cause)
            raise
        self.ended = True
        if self._under_way:
            await self.end_effects(None)
        self._check_live()
        self._check_left_over()
        return self.encode_reply(result)

    def answer(self, arguments: dict[str, Any]) -> bytes:
        """Run a query and return its reply as JSON."""
        actor: Actor[Any] = self.kind.cls(self)
        return self.encode_reply(self.method.function(actor, **arguments))

    def encode_reply(self, result: Any) -> bytes:
        try:
            reply = encode_checked(result, self.method.title)
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
        self._check_may("emit")
        entry = self.kind.event_of(event)
        payload = encode_checked(event, entry.title)
        try:
            fact = entry.decoder.decode(payload)
        except msgspec.DecodeError as error:
            raise EncodingError(f"{entry.title} does not come back from JSON: {error}") from error
        if fact != event:
            raise EncodingError(f"{entry.title} does not come back from JSON as it went in: {event!r} became {fact!r}")
        if self._past is not NO_PAST and self._past:
            self._past.follow(entry.tag, entry.version, payload)
            fact.apply(self.state)
            return
        if self.emitted or len(payload) > EVENT_BYTES_MAX:
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

    async def step(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str | None, recovery: Recovery,
        wish: CacheWish | None = None, verify: Callable[..., Any] | None = None, timeout_s: float | timedelta | None = None,
    ) -> Any:  # fmt: skip
        given = effects.json_value({"args": list(args), "kwargs": kwargs} if kwargs else {"args": list(args)})
        decode = partial(msgspec.json.decode, type=effects.returns_of(function))
        use = self._peek("step", name, key)
        effect_key = self._id("step", name, use.n) if key is None else self._id("step", f"{name}\0{key}", use.n)

        async def call(called: Callable[..., Any]) -> Any:
            with keyed(effect_key):
                return await self._driver.run_step(called, args, kwargs)

        async def run() -> bytes:
            return encode_checked(await call(function), f"the result of step {name}")

        async def check() -> bytes | None:
            found = None if verify is None else await call(verify)
            return None if found is None else encode_checked(found, f"what was found of step {name}")

        timeout_us = None if timeout_s is None else effects.duration_us(timeout_s)
        plan = Plan(recovery, effect_key, function, None if verify is None else check, timeout_us)
        cached = None if wish is None else cached_step(self, self._driver, wish, (name, function, args, kwargs), decode)
        try:
            return decode(await self._effect("step", name, key, given, run, plan=plan, cached=cached))
        finally:
            if cached is not None:
                cached.end()

    def ref(self, actor: type[Actor[Any]] | str, id: str, timeout_s: float | None) -> ActorRef:
        type_name = actor if isinstance(actor, str) else actor.__actor_name__
        if type_name is None:
            raise BadPayload(f"{actor} has no name and so no address")
        receiver = stream_id(type_name, id)

        async def ask(method: str, arguments: dict[str, Any]) -> Any:
            return await self._ask(receiver, method, arguments, timeout_s, actor)

        return ActorRef(type_name, id, ask, partial(self.tell, receiver))

    async def _ask(
        self, receiver: StreamId, method: str, arguments: dict[str, Any], timeout_s: float | None, actor: type[Actor[Any]] | str
    ) -> Any:
        body = effects.arguments_of(receiver, method, arguments)
        name = f"{receiver}.{method}"
        use = self._peek("ask", name, None)
        held = self._held = self._held or Held(self.kind.beside)
        call = Call(
            receiver=receiver, method=method, args=body, command_id=self._id("ask", name, use.n), timeout_s=timeout_s,
            repeated=use in self.entries, settles=held.settled_by(receiver, method),
        )  # fmt: skip
        given = {"receiver": receiver, "method": method, "arguments": msgspec.Raw(body), "command_id": call.command_id}

        stood: dict[str, Stood] = {}

        async def run() -> bytes:
            return await self._driver.ask(self, call, partial(stood.__setitem__, "stood"))

        entry = self.entries.get(use)
        if entry is not None and entry.stood is not None:
            self._driver.answered(self, entry.stood)
        about = (receiver, method, arguments)
        held.asks(*about)
        try:
            reply = await self._effect("ask", name, None, given, run, mark=stood)
        except ActorError as error:
            if not isinstance(error, OutcomeUnknown):
                held.refused(*about)
            raise
        held.answered(*about, reply)
        returns = Any if isinstance(actor, str) else effects.returns_of(getattr(actor, method, None))
        return msgspec.json.decode(reply, type=returns)

    def tell(self, receiver: StreamId, method: str, arguments: dict[str, Any]) -> CommandId:
        """Send with the commit; returns the command's id."""
        self._check_may("send")
        body = effects.arguments_of(receiver, method, arguments)
        if not self._past:
            self._driver.check_send(self, receiver)
        name = f"{receiver}.{method}"
        command_id = self._id("tell", name, self._next("tell", name, None).n)
        self.sends.append(
            OutboxEntry(
                receiver=receiver, method=method, args=body, command_id=command_id, causation_id=self.command.command_id,
                correlation_id=self.command.correlation_id or self.command.command_id, traceparent=self.command.traceparent,
            )
        )  # fmt: skip
        return command_id

    def schedule(
        self,
        when: float | timedelta | datetime,
        method: str,
        every: float | timedelta | None,
        timer_id: str | None,
        arguments: dict[str, Any],
    ) -> str:
        self._check_may("schedule")
        spec = self.kind.method(method)
        if spec.query:
            raise BadPayload(f"{method} is a query: a timer calls a command")
        body = effects.arguments_of(self.command.stream, method, arguments)
        spec.decode(body)  # a mistake is told now, not when the timer is due
        name = timer_id or self.new_id()
        correlation_id = self.command.correlation_id or self.command.command_id
        self.timers.append(effects.timer_entry(self.command.stream, name, when, every, method, body, self._now_us, correlation_id))
        return name

    def unschedule(self, timer_id: str) -> None:
        self._check_may("unschedule")
        self.timers = [timer for timer in self.timers if timer.timer_id != timer_id]
        self.timers_gone.append(timer_id)

    def view(self, projection: str, fresh: bool) -> ViewRef:
        if not is_token(projection):
            raise BadPayload(f"{projection!r} is no name of a projection")

        async def request(operation: str, arguments: dict[str, Any]) -> Any:
            body = encode_checked(arguments, f"the arguments of {projection}.{operation}")
            given = {"projection": projection, "operation": operation, "arguments": msgspec.Raw(body)}

            async def run() -> bytes:
                return await self._driver.query_view(self, projection, operation, body, fresh)

            return msgspec.json.decode(await self._effect("view", f"{projection}.{operation}", None, given, run))

        return ViewRef(request)

    @property
    def models(self) -> Models | None:
        return self._driver.models

    @property
    def home(self) -> int:
        return self._driver.home

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_us / 1_000_000, UTC)

    def random(self) -> float:
        if (scope := current_scope()) is not None:
            if scope.numbers is None:
                scope.numbers = random.Random(f"{self.seed} {scope.name}")
            return scope.numbers.random()
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random.random()

    def new_id(self) -> str:
        if (scope := current_scope()) is not None:
            return derived_id(self.seed, scope.name, scope.next_number())
        self._new_ids += 1
        return derived_id(self.seed, self._new_ids)

    def chunk(self, data: Any) -> None:
        """Held back before the barrier: until then the turn may be decided again on another state."""
        if self._past.muted:
            self._offset += 1
            return
        self._chunks.append(data)
        if self.journaled:
            self.flush_chunks()

    def drop_effects(self) -> None:
        """The turn ends without success: nothing that it sends or schedules is kept."""
        self.sends, self.timers, self.timers_gone = [], [], []

    def give_back(self) -> None:
        """The turn ends: what it still holds of others goes back with its last commit."""
        if self._held is not None and self._held.open:
            self.sends += self._held.releases(self.command)

    def flush_chunks(self) -> None:
        for data in self._chunks:
            self._driver.send_chunk(self, self._offset, data)
            self._offset += 1
        self._chunks.clear()

    @property
    def resumed(self) -> int:
        """Behind how many waits it goes on under the owner that ran what came before, of which it says nothing again."""
        return self._resumed

    # -- waits --------------------------------------------------------------------------------------------------------------------

    def under_way(self, command_id: CommandId) -> bool:
        """Whether that command of this actor has come and its turn has not ended: it is queued, runs or waits. Once false, false for ever,
        so a re-run of this turn that was told so is told so again."""
        return self._driver.under_way(command_id)

    def next_wait(self, name: str) -> int:
        """Which use of its name the next wait will be."""
        return self._peek("wait", name, None).n

    def wait_id(self, name: str, n: int) -> str:
        """The id of the n-th wait of that name."""
        return self._id("wait", name, n)

    async def wait_for(self, name: str, timeout_s: float | timedelta | None, type: Any, *, schema: bytes | None = None) -> Any:
        """S20: the first time this commits the segment and unwinds the turn; on the re-run after the answer it returns it. schema: of the
        answer, where it says more than `type`."""
        self._check_may("await")
        if not is_token(name):
            raise BadPayload(f"{name!r} is no name of a wait: 1 to 64 letters, digits, '_' or '-'")
        if self._busy or (self._task is not None and asyncio.current_task() is not self._task):
            raise InvariantError(f"wait {name}: a turn waits alone; end its concurrent steps and asks first")
        use = self._next("wait", name, None)
        entry = self.entries.get(use)
        if entry is None:
            self._check_follows(use)
            timeout_us = None if timeout_s is None else effects.duration_us(timeout_s)
            schema = schema_of(type, name) if schema is None else schema
            wait = Wait(name=name, n=use.n, wait_id=self.wait_id(name, use.n), timeout_us=timeout_us, schema=schema)
            await self._suspend(wait)
        else:
            self._end_segment(entry)
            if not entry.finished:
                self._check_left_over()
                self._driver.still_waits(self, entry.started["wait_id"])
                self.suspended = True
                raise Suspended
        value = self._recorded(self.entries[use])
        try:
            return msgspec.json.decode(value, type=type)
        except msgspec.DecodeError as error:
            # It fitted when it was given: the code has changed since.
            raise StepFailed(f"the answer to {name} does not fit: {error}", type="ValidationError") from error

    def _end_segment(self, entry: Entry) -> None:
        """The re-run has come to the end of a finished segment. From here on the state of the next one counts."""
        self._past.end(self.sends, entry.use)
        entry.consumed = True
        self.drop_effects()
        self.state = self._past.state(self._present)
