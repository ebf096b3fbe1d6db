"""A call to a model service, as a handler makes it: admitted, tried, retried, handed to a fallback, checked - each part a recorded effect.

Written on what every actor has (asks, steps, chunks, time, randomness), so that a crash anywhere goes on at the first part that is not
recorded, and a re-run decides the same: the waits between attempts come from `Actor.random`, the time from the journal.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt
from tenacity.stop import stop_base

from actors.errors import BadPayload, DeadlinePassed, OutcomeUnknown, StepFailed, Unavailable
from actors.models.admission import Admission, Admitted, Held, Queued
from actors.models.errors import AnswerInvalid, BudgetSpent, ModelRefused, ModelUnavailable
from actors.models.limits import BACKOFF_S, FAIR_CHANCE_S, REPAIRS_MAX, ProviderLimits
from actors.models.port import Asking, Models
from actors.models.records import Answer, Failure, Message, Piece, Request, ToolSpec, Usage
from actors.recovery import DEADLINE
from events.codec import canonical_hash

T = TypeVar("T")
DEADLINE_S = 300.0
PROVIDER = "provider"
"""Type of the actors that admit calls: `actors.models.provider`, named because every actor can ask a model and so that one imports this."""

_ADMISSION: Any = Admission


class ModelRef:
    """A model service as seen by one turn: ``await self.model("fast").chat([...])``."""

    def __init__(self, actor: Asking, models: Models | None, name: str) -> None:
        """Raises: BadPayload: no such provider is configured."""
        if models is None:
            raise BadPayload(f"no model provider is configured, so {name!r} cannot be asked: see [models] in the settings")
        self._actor = actor
        self._models = models
        self._name = name
        models.limits(name)  # a wrong name is told here, not after a minute

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        temperature: float | None = None,
        max_tokens: int = 4_000,
        deadline_s: float = DEADLINE_S,
        stream: bool = False,
        fallback: bool = True,
        json_schema: dict[str, Any] | None = None,
    ) -> Answer:
        """Ask, and get an answer or a typed error.

        Transient failures are tried again with growing, jittered waits, or as long as the provider says (Retry-After), up to its number of
        attempts and within `deadline_s`. While its breaker is open the fallbacks are asked; without any, this waits for the trial if the
        deadline allows that, else fails at once.

        Args:
            deadline_s: for everything: waits for a permit, attempts, waits between them. What is under way then is ended. Across restarts.
            stream: show what is said on ``cue.chunk`` as `Piece` records.
            fallback: whether those who stand in for the provider may answer.

        Raises:
            ModelUnavailable: no answer in time. ModelRefused: never an answer to this. BudgetSpent: no money left.

        If cancelled, the request is ended; its permit goes back with the end of the turn.
        """
        request = Request(
            messages=tuple(messages), tools=tuple(tools), json_schema=json_schema, temperature=temperature, max_tokens=max_tokens
        )
        return await self._answer(request, _Deadline(self._actor, deadline_s), stream=stream, fallback=fallback)

    async def ask_for(
        self, type: "type[T]", messages: Sequence[Message], *, deadline_s: float = DEADLINE_S, stream: bool = False, fallback: bool = True,
        **options: Any,
    ) -> T:  # fmt: skip
        """An answer of a given shape, checked; a model that misses it is told why and asked once more, before the same deadline.

        Args:
            options: `tools`, `temperature`, `max_tokens`, as of `chat`.

        Raises:
            AnswerInvalid: it missed it twice. And as `chat`.
        """
        schema = msgspec.json.schema(type)
        said, tools = list(messages), tuple(options.pop("tools", ()))
        deadline = _Deadline(self._actor, deadline_s)
        for repairs in range(REPAIRS_MAX + 1):
            request = Request(messages=tuple(said), json_schema=schema, tools=tools, **options)
            answer = await self._answer(request, deadline, stream=stream, fallback=fallback)
            try:
                return msgspec.json.decode(_unfenced(answer.text), type=type)
            except msgspec.DecodeError as error:
                if repairs == REPAIRS_MAX:
                    who, said_last = answer.provider, answer.text[:1_000]
                    raise AnswerInvalid(f"{who} gave no valid answer: {error}", provider=who, reason="schema", text=said_last) from error
                said += [
                    Message(role="assistant", content=answer.text),
                    Message(
                        role="user",
                        content=f"That does not fit: {error}. Answer with JSON of this schema only:\n{json.dumps(schema, sort_keys=True)}",
                    ),
                ]
        raise AnswerInvalid("no answer was asked for", provider=self._name, reason="schema")

    async def _answer(self, request: Request, deadline: "_Deadline", *, stream: bool, fallback: bool) -> Answer:
        """Of the first of those who may be asked that gives one."""
        actor = self._actor
        call = actor.new_id()
        names = [self._name, *(self._models.fallbacks(self._name) if fallback else ())]
        for position, name in enumerate(names):
            last = position == len(names) - 1
            try:
                return await _Attempts(actor, self._models, name, request, call, deadline, stream, last=last).answer()
            except ModelUnavailable as error:
                if last or error.fields.get("reason") == DEADLINE:
                    raise
        raise ModelUnavailable(f"{self._name} has no one to ask", provider=self._name, reason="none")


class _Deadline:
    """Of one call, whoever is asked: counted from the first entry that it makes in the journal. What is recorded before that, and is
    `Actor.now` until then, may be old: a command that waited in its mailbox is no shorter of time than another."""

    def __init__(self, actor: Asking, seconds: float) -> None:
        self._actor = actor
        self._seconds = seconds
        self._ends_at: float | None = None

    def begin(self) -> None:
        """An entry has been made. Idempotent."""
        if self._ends_at is None:
            self._ends_at = self._actor.now().timestamp() + self._seconds

    def left_s(self) -> float:
        return self._seconds if self._ends_at is None else self._ends_at - self._actor.now().timestamp()


class _Attempts:
    """All attempts of one call at one provider."""

    def __init__(
        self, actor: Asking, models: Models, name: str, request: Request, call: str, deadline: _Deadline, stream: bool, *, last: bool
    ) -> None:
        self._actor = actor
        self._models = models
        self._name = name
        self._limits: ProviderLimits = models.limits(name)
        self._request = request
        self._call = call
        self._deadline = deadline
        self._stream = stream
        self._last = last
        self._tried = 0
        # Flights are shared within a process: only what always lives in one, whoever dies, may count as one call.
        self._question = f"{actor.home}-{canonical_hash(request)[:32]}"

    async def answer(self) -> Answer:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._limits.attempts) | _TooLate(self._deadline),
            retry=retry_if_result(lambda ended: isinstance(ended, Failure) and ended.kind == "transient"),
            wait=self._wait_s,
            sleep=self._sleep,
            # The last failure is an outcome like any other, and becomes our own error below.
            retry_error_callback=lambda state: state.outcome.result() if state.outcome is not None else None,
        )
        ended: Answer | Failure = await retrying(self._attempt)
        if isinstance(ended, Answer):
            return ended
        if ended.kind == "permanent":
            raise ModelRefused(f"{self._name}: {ended.message}", provider=self._name, reason=ended.code)
        raise ModelUnavailable(f"{self._name}: {ended.message}", provider=self._name, reason=ended.code, attempts=self._tried)

    async def _attempt(self) -> Answer | Failure:
        actor = self._actor
        permit = await self._admitted()
        self._tried += 1
        agent, run = actor.actor_type, actor.correlation_id
        function = partial(self._models.call, on_text=self._piece() if self._stream else _silent)
        key = f"{self._call}-{self._name}"
        provider = actor.ref(PROVIDER, self._name)
        began, left = actor.now(), self._deadline.left_s()
        try:
            ended: Answer | Failure = await actor.step(
                "model", _typed(function), self._name, self._request, self._call, key=key, timeout_s=max(0.0, left)
            )
        except StepFailed as error:
            lasted_s = (actor.now() - began).total_seconds()
            if lasted_s >= min(FAIR_CHANCE_S, self._limits.timeout_s):
                await provider.report(permit=permit, agent=agent, run=run, usage=Usage(), failure=str(error.fields["type"]))
            else:
                await provider.leave(permit=permit)  # it says nothing of the provider
            if error.fields["type"] != DEADLINE:
                raise
            raise self._out_of_time("there was no answer before the deadline") from error
        if isinstance(ended, Answer):
            await provider.report(permit=permit, agent=agent, run=run, usage=ended.usage)
        elif ended.shared:
            await provider.leave(permit=permit)
        else:
            await provider.report(
                permit=permit, agent=agent, run=run, usage=ended.usage, failure=ended.code, transient=ended.kind == "transient"
            )
        return ended

    async def _admitted(self) -> str:
        """A permit, after whatever wait in line it takes and the deadline allows.

        If cancelled, or if the turn ends for another reason, the permit or the place in line is given back (`actors.holding`).
        """
        actor = self._actor
        reserve = self._limits.cost(sum(len(message.content) for message in self._request.messages) // 3, self._request.max_tokens)
        while True:
            left = self._deadline.left_s()
            if left <= 0:
                raise self._out_of_time("the deadline has passed")
            try:
                said = await actor.ref(PROVIDER, self._name, timeout_s=left).admit(
                    agent=actor.actor_type, run=actor.correlation_id, reserve=reserve, deadline_s=min(left, self._limits.timeout_s),
                    limits=msgspec.to_builtins(self._limits), permit=actor.new_id(), patience_s=left, stays=self._last,
                    question=self._question,
                )  # fmt: skip
            except (DeadlinePassed, OutcomeUnknown) as error:
                raise self._out_of_time("the deadline came before a permit") from error
            self._deadline.begin()
            admission = msgspec.convert(said, _ADMISSION)
            if isinstance(admission, Queued):
                admission = await self._turn_in_line(admission, left)
            if isinstance(admission, Admitted):
                if admission.delay_s > 0:
                    await self._sleep(admission.delay_s)
                return admission.permit
            if not isinstance(admission, Held):
                raise BudgetSpent(
                    f"{self._name}: {admission.spent / 1e6:.2f} of {admission.limit / 1e6:.2f} USD are spent", provider=self._name,
                    reason=admission.reason, spent=admission.spent, limit=admission.limit,
                )  # fmt: skip
            # Others stand in for one that is down; whoever is merely busy is waited for.
            if admission.retry_s >= left or (admission.reason == "open" and not self._last):
                raise ModelUnavailable(
                    f"{self._name}: {_HELD[admission.reason]}", provider=self._name, reason=admission.reason,
                    retry_after_ms=round(admission.retry_s * 1_000),
                )  # fmt: skip
            if admission.retry_s > 0:
                await self._sleep(admission.retry_s)

    async def _turn_in_line(self, queued: Queued, left_s: float) -> Admission:
        """What comes of standing in line. Raises: ModelUnavailable: the deadline came first."""
        provider = self._actor.ref(PROVIDER, self._name, timeout_s=left_s)
        try:
            said = await provider.standing(permit=queued.permit)
        except (DeadlinePassed, OutcomeUnknown, Unavailable) as error:
            raise ModelUnavailable(
                f"{self._name}: {queued.ahead} went first, and the deadline came before its turn", provider=self._name, reason="busy"
            ) from error
        return cast(Admission, msgspec.convert(said, _ADMISSION))

    def _wait_s(self, state: RetryCallState) -> float:
        """Full jitter up to a bound that doubles (M. Brooker, Exponential Backoff And Jitter, 2015), never less than the provider asks."""
        ended = state.outcome.result() if state.outcome is not None else None
        shortest, longest = BACKOFF_S
        bound = min(longest, shortest * 2 ** (state.attempt_number - 1))
        asked = ended.retry_after_s if isinstance(ended, Failure) and ended.retry_after_s is not None else 0.0
        return float(max(asked, self._actor.random() * bound))

    async def _sleep(self, seconds: float) -> None:
        await self._actor.step("pause", pause, round(seconds, 3))

    def _out_of_time(self, why: str) -> ModelUnavailable:
        return ModelUnavailable(f"{self._name}: {why}", provider=self._name, reason=DEADLINE, attempts=self._tried)

    def _piece(self) -> Callable[[str], None]:
        offset = 0
        attempt = self._tried

        def said(text: str) -> None:
            nonlocal offset
            if text:
                self._actor.chunk(Piece(call=self._call, attempt=attempt, offset=offset, text=text))
                offset += len(text)

        return said


class _TooLate(stop_base):
    """tenacity: stop when the wait that is due would pass the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline

    def __call__(self, state: RetryCallState) -> bool:
        return state.upcoming_sleep >= self._deadline.left_s()


async def pause(seconds: float) -> None:
    """Wait between two attempts; a step, so that a re-run does not wait again."""
    await asyncio.sleep(seconds)


def _typed(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(provider: str, request: Request, key: str) -> Answer | Failure:
        ended: Answer | Failure = await function(provider, request, key)
        return ended

    return call


def _silent(text: str) -> None:
    """For calls that nobody listens to."""


def _unfenced(text: str) -> bytes:
    """The JSON in an answer: models like to wrap it in a code fence although told not to."""
    inner = text.strip()
    if inner.startswith("```"):
        inner = inner.partition("\n")[2].rpartition("```")[0]
    return inner.strip().encode()


_HELD = {
    "open": "it has failed too often and is left alone for a while",
    "rate": "its rate allows no call before the deadline",
    "busy": "all of its permitted calls are under way",
}
