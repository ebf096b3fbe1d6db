"""The client: actors, events, projections and the log of a deployment, from any process that reaches its NATS server.

Knows no client library: a `Link` carries messages, `client_nats` is the one that there is. What makes a call safe stands here: every
command has an id, made up once per call, and is repeated under it until its deadline, so a crash of a worker costs time only (S9).
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from actors.actor import Actor
from actors.errors import (
    ActorError,
    BadPayload,
    DeadlinePassed,
    LogFull,
    OutcomeUnknown,
    Overloaded,
    Stopped,
    TooLarge,
    Unavailable,
    error_from_body,
)
from actors.ref import Methods
from actors.registry import ActorType
from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.codec import encode_checked
from events.envelope import RecordedEvent
from events.errors import ConfigurationError, EncodingError, TransientError
from events.ids import StreamId, is_token, parse_stream_id, stream_id
from events.limits import ARGUMENTS_BYTES_MAX, ASK_DEADLINE_S, PUBLISH_RESERVE_BYTES
from runtime.hearing import ASK_SAID_S, Ended, Part, hear
from runtime.link import Answer, Link
from runtime.past.log_service import Page
from runtime.turns.spoken import SAID, SaidArguments
from runtime.wire import DEADLINE, Subjects

URL_VARIABLE: Final = "CUEBOOK_NATS_URL"
_ATTEMPT_S, _ATTEMPT_MAX_S = 1.0, 8.0
"""How long an attempt may stay without an answer before the next: a worker that died takes its unanswered asks with it."""
_BACKOFF_S, _BACKOFF_MAX_S = 0.02, 1.0
_LOOK_AGAIN_S: Final = 5.0
"""A follower looks again after so long without a hint: a worker that died between commit and publish has sent none."""
_PAGE: Final = 500


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Partial output of a turn that runs. A higher attempt replaces what came before; offset counts from 0 in each."""

    stream: str
    method: str
    command_id: str
    attempt: int
    offset: int
    data: Any
    end: bool


Interpret = Callable[[Answer], ActorError | None]


class Client:
    """A deployment as seen from outside. Made by `connect`; safe for concurrent use on one event loop."""

    def __init__(self, link: Link, namespace: str = "cue", *, clock: Clock | None = None, entropy: Entropy | None = None) -> None:
        self._link = link
        # The number of shards matters to nobody outside.
        self._subjects = Subjects(namespace, 1)
        self._clock = clock or SystemClock()
        self._entropy = entropy or SystemEntropy()
        self._name = self._entropy.token_bytes(8).hex()
        self._calls = 0
        self._types: dict[type, ActorType[Any]] = {}

    def ref(self, actor: type[Actor[Any]] | str, id: str, *, timeout_s: float = ASK_DEADLINE_S) -> "ClientRef":
        """An actor: ``await ref.deposit(cents=500)``, ``await ref.tell.deposit(cents=500)``.

        Args:
            actor: its class, which gives replies their type and refuses unknown methods here; or its type name.
            timeout_s: how long an ask may take, unless the call says otherwise.

        Raises:
            ValueError: type or id is no single subject token.
        """
        kind: ActorType[Any] | None = None
        if not isinstance(actor, str):
            kind = self._types.get(actor)
            if kind is None:
                kind = self._types[actor] = ActorType(actor)
        return ClientRef(self, kind, stream_id(actor if isinstance(actor, str) else kind.name if kind else "", id), timeout_s)

    def view(self, projection: str, *, after: Mapping[int, int] | None = None, timeout_s: float = ASK_DEADLINE_S) -> Methods:
        """A projection: ``await cue.view("memory").recall(query=..., k=5)`` returns plain JSON values.

        Args:
            after: shard to position that the view must have reached before it answers: of the meta data of a reply, or of the log's head.
        """

        async def request(operation: str, arguments: dict[str, Any]) -> Any:
            if after:
                arguments = {**arguments, "_after": {str(shard): position for shard, position in after.items()}}
            return await self._ask_view(projection, operation, arguments, timeout_s)

        return Methods(request)

    async def ask_view(self, projection: str, operation: str, /, **arguments: Any) -> Any:
        """One operation by name, those of ours included: ``_status``, ``_rebuild``, ``_release``."""
        return await self._ask_view(projection, operation, arguments, ASK_DEADLINE_S)

    async def _ask_view(self, projection: str, operation: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        body = encode_checked(arguments, f"the arguments of {projection}.{operation}")
        return msgspec.json.decode(await self._read(self._subjects.view(_token(projection), _token(operation)), body, timeout_s))

    async def log(self, operation: str, /, *, timeout_s: float = ASK_DEADLINE_S, **arguments: Any) -> Any:
        """One request to ``cue.log.<operation>``, see `runtime.past.log_service`; the reply as plain JSON values."""
        return msgspec.json.decode(await self._log(operation, arguments, timeout_s))

    async def events(
        self, stream: str, *, after: int = 0, on_gap: Callable[[str], None] | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Every event of `stream` with version > `after`: what is recorded, then what happens, in order and without a gap. Never ends.

        Messages are hints only: each makes this read from the log what it has not seen, so a lost one costs time, never an event. While the
        server or every worker is away it waits.

        Args:
            on_gap: called with one line when the log is out of reach, and when it is back.
        """
        type_name, key = parse_stream_id(stream)
        version = after

        async def read() -> Page:
            return await self._page({"stream": stream, "after": version, "limit": _PAGE})

        async with self._link.listen(f"{self._subjects.namespace}.event.{type_name}.{key}.>") as news:
            while True:
                news.forget()
                page = await self._patiently(read, on_gap)
                for event in page.events:
                    # A page answers one attempt of several; an event is given once.
                    if event.version > version:
                        version = event.version
                        yield event
                if page.next is None:
                    await news.wait(_LOOK_AGAIN_S)

    async def follow(
        self, positions: Mapping[int, int], *, filter: str = "", on_gap: Callable[[str], None] | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Every event of all shards after `positions`, in order per shard, as `events` does for a stream. Never ends."""
        place = dict(positions)

        async def read() -> Page:
            # JSON has no numbers as keys.
            return await self._page({"positions": {str(shard): at for shard, at in place.items()}, "filter": filter, "limit": _PAGE})

        async with self._link.listen(self._subjects.commit("*")) as news:
            while True:
                news.forget()
                page = await self._patiently(read, on_gap)
                for event in page.events:
                    yield event
                place.update(page.positions or {})
                if page.next is None:
                    await news.wait(_LOOK_AGAIN_S)

    async def chunks(self, type: str = "*", id: str = "*", method: str = "*", command_id: str = "*") -> AsyncGenerator[Chunk, None]:
        """Partial output of running turns, from now on; ``*`` stands for any. Not recorded: what nobody listens to is gone. Never ends."""
        parts = [part if part == "*" else _token(part) for part in (type, id, method, command_id)]
        prefix = f"{self._subjects.namespace}.chunk."
        async with self._link.messages(prefix + ".".join(parts)) as mail:
            while True:
                if (message := await mail.next(_LOOK_AGAIN_S)) is not None:
                    subject, body = message
                    actor, key, name, command = subject[len(prefix) :].split(".")
                    said = msgspec.json.decode(body, type=dict[str, Any])
                    yield Chunk(stream=f"{actor}/{key}", method=name, command_id=command, **said)

    def stream(self, stream: str, command_id: str, *, unknown_s: float = 5.0) -> AsyncGenerator[Part | Ended, None]:
        """What the turn of a command says, from its beginning, whenever this is called and however often: see `runtime.hearing.hear`."""
        type_name, key = parse_stream_id(stream)
        subject = f"{self._subjects.namespace}.chunk.{type_name}.{key}.*.{_token(command_id)}"

        async def ask(wanted: SaidArguments) -> bytes:
            arguments = msgspec.to_builtins(wanted)
            return await self.ask(stream_id(type_name, key), SAID, arguments, ASK_SAID_S, None)

        return hear(self._link.messages(subject), ask, self._clock, command_id, unknown_s)

    async def _patiently(self, read: Callable[[], Awaitable[Page]], on_gap: Callable[[str], None] | None) -> Page:
        told = False
        while True:
            try:
                page = await read()
            except (Unavailable, Overloaded) as error:
                if on_gap is not None and not told:
                    on_gap(f"the log is out of reach: {error.message}")
                told = True
                continue
            if on_gap is not None and told:
                on_gap("the log is in reach again; nothing was lost")
            return page

    async def _page(self, arguments: dict[str, Any]) -> Page:
        return msgspec.json.decode(await self._log("read", arguments, 5.0), type=Page)

    async def _log(self, operation: str, arguments: dict[str, Any], timeout_s: float) -> bytes:
        body = encode_checked(arguments, f"the arguments of log.{operation}")
        return await self._read(self._subjects.log(_token(operation)), body, timeout_s)

    async def _read(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """A request that changes nothing, and so has no outcome to be unsure of."""
        try:
            return await self.call(subject, body, timeout_s)
        except OutcomeUnknown as error:
            raise Unavailable(f"no answer on {subject} within {timeout_s:g} s", retry_after_ms=1_000) from error

    # -- calls --------------------------------------------------------------------------------------------------------------------

    def new_command_id(self) -> str:
        """A fresh id. It begins with the time, so that ids of one time land side by side in the inbox index."""
        self._calls += 1
        return f"{self._clock.wall_us():014x}-{self._name}-{self._calls:x}"

    async def ask(self, stream: StreamId, method: str, arguments: dict[str, Any], timeout_s: float, command_id: str | None) -> bytes:
        """The JSON reply of one command or query; `ClientRef` is the way to call this.

        Raises:
            ActorError: as the actor answered; after the deadline OutcomeUnknown with the command id (ask again with it), or the last error
                if every attempt was certainly not done.
        """
        command_id = _token(command_id) if command_id is not None else self.new_command_id()
        subject = self._subjects.ask(stream, _token(method), command_id)
        headers = None
        if timeout_s != ASK_DEADLINE_S:
            headers = {DEADLINE: str(self._clock.wall_us() // 1_000 + int(timeout_s * 1_000))}
        body = _arguments(arguments, f"the arguments of {stream}.{method}")
        return await self.call(subject, body, timeout_s, headers=headers, command_id=command_id)

    async def answer(self, stream: str, wait_id: str, value: Any, timeout_s: float = ASK_DEADLINE_S) -> Any:
        """Answer an open wait (S22): ``{"status": "answered", "command_id": ...}``. The same answer again is told the same.

        Raises:
            BadPayload: not what the wait asks for; it stays open. Rejected: somebody was first; `winner` says what. Unknown: no such wait.
        """
        body = await self.ask(stream_id(*parse_stream_id(stream)), "_answer", {"wait_id": wait_id, "value": value}, timeout_s, None)
        return msgspec.json.decode(body)

    async def tell(
        self, stream: StreamId, method: str, arguments: dict[str, Any], command_id: str | None, timeout_s: float = ASK_DEADLINE_S
    ) -> str:
        """Hand a command to JetStream, which keeps it until it is handled (S11); returns its id once it is kept.

        Raises:
            Unavailable: there is no JetStream stream for tells: no deployment ever ran on that server.
            OutcomeUnknown: no answer in `timeout_s`; tell again with the same id.
        """
        command_id = _token(command_id) if command_id is not None else self.new_command_id()
        subject = self._subjects.tell(stream, _token(method), command_id)
        body = _arguments(arguments, f"the arguments of {stream}.{method}")
        await self.call(subject, body, timeout_s, command_id=command_id, interpret=_stored)
        return command_id

    async def call(
        self,
        subject: str,
        body: bytes,
        timeout_s: float,
        *,
        headers: dict[str, str] | None = None,
        command_id: str | None = None,
        interpret: Interpret | None = None,
    ) -> bytes:
        """Send until there is an answer that is not "try again", at most `timeout_s`; whichever attempt is answered counts."""
        room = self._link.payload_bytes_max - PUBLISH_RESERVE_BYTES
        if len(body) > room:
            raise TooLarge(f"{len(body):,} bytes are more than the {room:,} that this NATS server takes")
        interpret = interpret or _answered
        # From the monotonic clock: a step of the wall clock ends no call.
        now = self._clock.monotonic()
        give_up, send_at = now + timeout_s, now
        attempt_s, backoff_s = _ATTEMPT_S, _BACKOFF_S
        attempts = 0
        undecided: set[int] = set()
        failure: ActorError | None = None
        with self._link.replies() as replies:
            while now < give_up:
                if now >= send_at:
                    send_at, attempt_s = now + attempt_s, min(2 * attempt_s, _ATTEMPT_MAX_S)
                    try:
                        await replies.send(subject, body, headers)
                        attempts += 1
                        undecided.add(attempts)
                    except TransientError as error:
                        failure = Unavailable(error.message)
                        send_at, backoff_s = now + self._pause_s(failure, backoff_s), min(2 * backoff_s, _BACKOFF_MAX_S)
                answer = await replies.next(min(send_at, give_up) - now)
                now = self._clock.monotonic()
                if answer is None:
                    continue
                failure = interpret(answer)
                if failure is None:
                    return answer.body
                if failure.outcome == "not_done":
                    undecided.discard(answer.attempt)
                if isinstance(failure, DeadlinePassed | Stopped) and undecided:
                    break  # this attempt came too late, but an earlier one may have been in time
                # A refusal and a failure are remembered under the id (S24): every attempt ends so. "The disk is full" is said of one
                # attempt; another of this call may be on its way to an owner that has room.
                if failure.final or not isinstance(failure, Unavailable | Overloaded | OutcomeUnknown | LogFull):
                    raise failure
                if isinstance(failure, LogFull) and attempts == 1:
                    raise failure
                send_at = now + self._pause_s(failure, backoff_s)
                backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
        if not undecided and failure is not None and failure.outcome == "not_done":
            raise failure
        safe = "; asking again with the same id is safe" if command_id else ""
        raise OutcomeUnknown(f"no answer within {timeout_s:g} s{safe}", command_id=command_id)

    def _pause_s(self, failure: ActorError, backoff_s: float) -> float:
        """Half of the backoff or of what was asked for, whichever is longer, and a random half: callers must not come back together."""
        wanted = failure.fields.get("retry_after_ms")
        base = max(backoff_s, wanted / 1_000 if isinstance(wanted, int) else 0.0)
        return base * (0.5 + int.from_bytes(self._entropy.token_bytes(2)) / 131_072)


class _Tell:
    """``ref.tell.deposit(cents=500)`` or ``ref.tell("deposit", cents=500)``; both return the command id once the command is kept."""

    __slots__ = ("_ref",)

    def __init__(self, ref: "ClientRef") -> None:
        self._ref = ref

    async def __call__(self, method: str, /, *, command_id: str | None = None, **arguments: Any) -> str:
        return await self._ref._tell(method, arguments, command_id)

    def __getattr__(self, method: str) -> Callable[..., Awaitable[str]]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda **arguments: self._ref._tell(method, arguments, None)


class ClientRef:
    """One actor. Any attribute is a method: ``await ref.deposit(cents=500)``; `ask` and `tell` are the ways with options."""

    __slots__ = ("_client", "_kind", "_timeout_s", "stream", "tell")

    def __init__(self, client: Client, kind: ActorType[Any] | None, stream: StreamId, timeout_s: float) -> None:
        self._client = client
        self._kind = kind
        self._timeout_s = timeout_s
        self.stream = stream
        self.tell = _Tell(self)

    async def ask(self, method: str, /, *, timeout_s: float | None = None, command_id: str | None = None, **arguments: Any) -> Any:
        """Call a command or query and return its reply.

        Cancelled: nothing is sent again; what was sent may still be done. Repeats itself by id inside the deadline (S9).

        Args:
            command_id: the idempotency key; a repeat with it gets the original reply. None makes one up.

        Raises:
            Rejected: the actor refused. OutcomeUnknown: no answer in time; its field command_id repeats the call safely.
            ActorError: everything else of design.md 3.
        """
        return await self._ask(method, arguments, timeout_s, command_id)

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda **arguments: self._ask(method, arguments, None, None)

    async def _ask(self, method: str, arguments: dict[str, Any], timeout_s: float | None, command_id: str | None) -> Any:
        reserved = method.startswith("_")
        returns = Any if self._kind is None or reserved else self._kind.method(method).returns
        body = await self._client.ask(self.stream, method, arguments, self._timeout_s if timeout_s is None else timeout_s, command_id)
        try:
            return msgspec.json.decode(body, type=returns)
        except msgspec.DecodeError as error:
            raise EncodingError(f"{self.stream}.{method} was done, but its reply is not {returns}: {error}") from error

    async def _tell(self, method: str, arguments: dict[str, Any], command_id: str | None) -> str:
        if self._kind is not None:
            self._kind.method(method)
        return await self._client.tell(self.stream, method, arguments, command_id)


def _answered(answer: Answer) -> ActorError | None:
    if answer.nobody:
        return Unavailable("nobody serves that subject right now: no deployment runs there, or it is just starting")
    return error_from_body(answer.body) if answer.error else None


def _stored(answer: Answer) -> ActorError | None:
    """JetStream's acknowledgement of a publish."""
    if answer.nobody:
        return Unavailable("no JetStream stream keeps tells on that server: no deployment ever ran there")
    try:
        said = msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.DecodeError:
        return OutcomeUnknown("the server's acknowledgement cannot be read")
    error = said.get("error")
    return Unavailable(f"JetStream did not keep the tell: {error}") if error is not None else None


def _arguments(arguments: dict[str, Any], what: str) -> bytes:
    body = encode_checked(arguments, what)
    if len(body) > ARGUMENTS_BYTES_MAX:
        raise TooLarge(f"{what} have {len(body):,} bytes, allowed are {ARGUMENTS_BYTES_MAX:,}")
    return body


def _token(text: str) -> str:
    if not is_token(text):
        raise BadPayload(f"{text!r} is not 1 to 64 letters, digits, '_' or '-'", field="subject")
    return text


@asynccontextmanager
async def connect(url: str | None = None, *, namespace: str = "cue", wait_s: float = 5.0, **options: Any) -> AsyncIterator[Client]:
    """Connect to a deployment: ``async with connect() as cue: ...``. The connection is kept up until the block ends.

    Args:
        url: the NATS server, credentials included or in `options`; None takes the environment's CUEBOOK_NATS_URL.
        wait_s: how long the first connection may take.
        options: further arguments of ``nats.connect``, such as `user` and `password`, or `user_credentials`.

    Raises:
        ConfigurationError: no URL. TransientError: no server answers there.
    """
    from runtime.over_nats.client_nats import open_link

    if "servers" not in options:
        url = url or os.environ.get(URL_VARIABLE)
        if not url:
            raise ConfigurationError(f"there is no NATS server to connect to: give connect(url), or set {URL_VARIABLE}")
        options["servers"] = [url]
    async with open_link(wait_s=wait_s, options=options) as link:
        yield Client(link, namespace)
