"""Reading what a turn says, from outside: what was said before from its owner, the rest as it is said, joined by attempt and offset.

Messages on ``cue.chunk`` may be lost: the reader came late, its connection was away, or it was too slow. So they are taken only where they
follow what was given; everything else is asked of the owner (``_said``, `runtime.turns.spoken`), which keeps what a running turn has said.
What is given is therefore always what one attempt has said, in order, from its beginning - or the caller is told where it is not.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, Protocol

import msgspec

from actors.errors import ActorError, DeadlinePassed, OutcomeUnknown, Unknown
from events.clock import Clock
from runtime.turns.spoken import Said, SaidArguments

ASK_SAID_S: Final = 5.0
_LOOK_AGAIN_S: Final = 5.0
"""After so long a silence the owner is asked: the last message may have been lost with it."""
_AGAIN_S, _AGAIN_MAX_S = 0.05, 1.0
"""Between two questions in a row, if the first has brought nothing."""
_LAST_S: Final = 1.0
"""How long the last messages of a turn that has ended may be on their way."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the turn has said.

    restarted: another attempt says this, and everything given before is void: drop it. missing: so many parts before this one are lost
    (said before its owner's memory of 1 MiB begins).
    """

    attempt: int
    offset: int
    data: Any
    restarted: bool = False
    missing: int = 0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The turn has ended, and with `reply` (an error body unless ``done``). whole: what was given since the last restart is all that its
    last attempt has said; False: part of it is lost, or nobody knows. Then only the reply counts."""

    status: Literal["done", "refused", "failed"]
    reply: Any
    whole: bool


class Mail(Protocol):
    """What is published on a subject, from the moment that this was made."""

    async def next(self, timeout_s: float) -> tuple[str, bytes] | None:
        """Subject and body of the next message; None after `timeout_s`, or when the connection has come back."""
        ...

    def was_away(self) -> bool:
        """Whether the connection was away since this was called last: messages may be lost."""
        ...


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A message on ``cue.chunk``."""

    attempt: int
    offset: int
    end: bool
    data: msgspec.Raw


class Joining:
    """What has been given of one turn. Knows no connection and no clock: fed with messages and pages in any order, late or twice."""

    def __init__(self) -> None:
        self.attempt = 0
        self.offset = 0
        """Of the next part."""
        self.behind = True
        """There is something that only the owner can tell."""
        self._seen: dict[int, int] = {}
        self._void = False
        self._end: tuple[int, int] = (0, 0)

    @property
    def wanted(self) -> tuple[int, int]:
        """Attempt and offset to ask the owner for."""
        return self.attempt, self.offset

    @property
    def whole(self) -> bool:
        """Everything that the last attempt has said is given."""
        return self._end == (self.attempt, self.offset) and self.attempt > 0 and not self._void and len(self._seen) == self.offset

    def message(self, body: bytes) -> Iterator[Part]:
        """Take one message. What does not follow is left to the owner, who kept it before it was published."""
        heard = msgspec.json.decode(body, type=_Heard)
        here = (heard.attempt, heard.offset)
        if heard.attempt < self.attempt:
            return
        if heard.end:
            self._end = max(self._end, here)
            self.behind = self.behind or here != (self.attempt, self.offset)
        elif heard.attempt == self.attempt or heard.offset == 0:
            yield from self._take(heard.attempt, heard.offset, heard.data, 0)
        else:
            self.behind = True

    def page(self, said: Said) -> Iterator[Part]:
        """Take what the owner has told of a running turn, asked for what is `wanted`."""
        if said.attempt < self.attempt:
            # It has not spoken since it runs anew, or an earlier owner says this. If there is more, it will be told.
            self.behind = self.behind and said.attempt > 0
            return
        self.behind = said.more
        start = self.offset if said.attempt == self.attempt else 0
        for number, data in enumerate(said.chunks):
            yield from self._take(said.attempt, said.offset + number, data, max(0, said.offset - start) if number == 0 else 0)
            if self._void and self.behind:
                return

    def _take(self, attempt: int, offset: int, data: msgspec.Raw, missing: int) -> Iterator[Part]:
        digest = hash(bytes(data))
        if attempt > self.attempt:
            self._void = self._void or bool(self._seen)
            self.attempt, self.offset, self._seen = attempt, 0, {}
        if self._seen.get(offset, digest) != digest:
            # Nobody of ours says two things at one place. Whoever does, none of it is to be mixed: begin again with what the owner has.
            self.offset, self._seen, self._void, self.behind = 0, {}, True, True
            return
        if offset < self.offset:
            return
        if offset > self.offset + missing:
            self.behind = True
            return
        restarted, self._void = self._void, False
        self._seen[offset] = digest
        self.offset = offset + 1
        yield Part(attempt=attempt, offset=offset, data=msgspec.json.decode(data), restarted=restarted, missing=missing)


async def hear(
    messages: AbstractAsyncContextManager[Mail],
    ask: Callable[[SaidArguments], Awaitable[bytes]],
    clock: Clock,
    command_id: str,
    unknown_s: float,
) -> AsyncGenerator[Part | Ended, None]:
    """Every part of what the turn of `command_id` says, in order, then one `Ended`. A reader that comes late, was away or is slow gets the
    beginning from the owner and the rest as it is said; a reader that comes after the end gets `Ended` with the recorded reply. When the
    turn begins anew (its worker died, it is tried again), the next part is marked `restarted`, and what came before it is void.

    While no worker answers this waits. Close it (`contextlib.aclosing`) to stop early; nothing of the turn is cancelled by that.

    Args:
        ask: the actor's ``_said``.
        unknown_s: how long a command that nobody knows may still be on its way.

    Raises:
        Unknown: nobody has heard of the command. ActorError: the stream is erased or archived.
    """
    joining = Joining()
    began = clock.monotonic()
    async with messages as mail:
        pause_s, ask_at = _AGAIN_S, began
        last_at: float | None = None
        while True:
            now = clock.monotonic()
            if mail.was_away():
                ask_at = now
            if now >= ask_at:
                before, soon = joining.wanted, False
                try:
                    said = msgspec.json.decode(await ask(_wanted(command_id, joining)), type=Said)
                except Unknown:
                    if clock.monotonic() - began > unknown_s:
                        raise
                    said, soon = Said(status="running"), True
                except ActorError as error:
                    if not error.retryable and not isinstance(error, OutcomeUnknown | DeadlinePassed):
                        raise
                    said, soon = Said(status="running"), True
                now = clock.monotonic()
                if said.status == "running":
                    for part in joining.page(said):
                        yield part
                    last_at = None
                else:
                    # What it has said last is not kept by anybody, but may have been published.
                    last_at = last_at or (now + (_LAST_S if joining.attempt else 0.0))
                    if joining.whole or now >= last_at:
                        yield Ended(status=said.status, reply=msgspec.json.decode(said.reply), whole=joining.whole)
                        return
                    soon = True
                pause_s = _AGAIN_S if joining.wanted != before else min(2 * pause_s, _AGAIN_MAX_S)
                ask_at = now + (pause_s if soon or joining.behind else _LOOK_AGAIN_S)
                if said.more and joining.wanted != before:
                    ask_at = now
            message = await mail.next(max(0.0, ask_at - clock.monotonic()))
            if message is not None:
                was_behind = joining.behind
                for part in joining.message(message[1]):
                    yield part
                if joining.whole or (joining.behind and not was_behind):
                    ask_at = clock.monotonic()
                elif not joining.behind and last_at is None:
                    ask_at = clock.monotonic() + _LOOK_AGAIN_S


def _wanted(command_id: str, joining: Joining) -> SaidArguments:
    attempt, offset = joining.wanted
    return SaidArguments(command_id=command_id, after=offset, attempt=attempt)
