"""Asks of this process to the owners of shards: sent, and sent again under the same id, until an answer settles them (S8, S9).

Knows no client library. An ask may be sent many times and each sending may be answered, lost, or still be on its way in the socket of a
paused worker, so three kinds of answers are told apart. A result, a refusal and a failure settle the command, because the log remembers
them under its id (S24). "Nobody is there" makes it go out again. "Not done" for want of room or time (429, 504, 507) is said of one sending
only: it settles the ask if that was the only one; else it goes out again, and if time runs out its outcome is unknown, not "not done".
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from actors.errors import ActorError, DeadlinePassed, LogFull, OutcomeUnknown, Overloaded, Stopped, Unavailable, error_from_body
from events.clock import Clock
from events.ids import StreamId
from events.limits import FULL_RETRY_S
from runtime.exchange import Reply
from runtime.wire import Answer, Envelope

_AGAIN_S: Final = 5.0
"""Only a safety net: a new owner and a missing one are both announced."""
_NO_OWNER_AGAIN_S: Final = 0.1
_UNAVAILABLE_AGAIN_S: Final = 0.2


NO_ROOM: Final = (Unavailable, Stopped, Overloaded, DeadlinePassed, LogFull)
"""What is said of one sending only: the log was not asked, and remembers nothing of it."""


class _Waiting(msgspec.Struct, kw_only=True):
    """An ask that is under way. refused: the sendings that were answered "not done", and by what the last of them."""

    envelope: Envelope
    shard: int
    future: asyncio.Future[Reply]
    token: str
    repeated: bool
    sent: int = 0
    refused: set[int] = msgspec.field(default_factory=set)
    failure: ActorError | None = None
    again: asyncio.TimerHandle | None = None


class Asks:
    """What this process has asked and not heard of.

    Args:
        inbox: prefix of the subjects for answers, without a trailing dot.
        shard_of: the shard of a stream.
        send: queues one envelope for the owner of a shard.
    """

    def __init__(self, inbox: str, clock: Clock, shard_of: Callable[[StreamId], int], send: Callable[[int, Envelope], None]) -> None:
        self._inbox = inbox
        self._clock = clock
        self._shard_of = shard_of
        self._send = send
        self._waiting: dict[str, _Waiting] = {}
        self._count = 0
        self._ownerless: set[int] = set()

    async def ask(self, envelope: Envelope, deadline_ms: int, *, repeated: bool = False) -> Reply:
        """Send until an answer settles it or the deadline passes; the id makes repeats harmless.

        Cancelled: nothing is sent again; what was sent may still be done.

        Args:
            repeated: the same id was asked before, by an earlier run of the turn: that sending may still be on its way.
        """
        self._count += 1
        waiting = _Waiting(
            envelope=envelope, shard=self._shard_of(StreamId(envelope.stream)), future=asyncio.get_running_loop().create_future(),
            token=f"{self._inbox}.r.{self._count}", repeated=repeated,
        )  # fmt: skip
        key = f"{self._count}"
        # Spread, so that many do not repeat at once.
        again_s = _AGAIN_S * (0.8 + 0.025 * (self._count % 16))
        self._waiting[key] = waiting
        net: asyncio.TimerHandle | None = None

        def repeat() -> None:
            nonlocal net
            self._once(waiting)
            net = asyncio.get_running_loop().call_later(again_s, repeat)

        try:
            repeat()
            async with asyncio.timeout(max(0.0, deadline_ms / 1_000 - self._clock.wall_us() / 1_000_000)):
                return await waiting.future
        except TimeoutError:
            if waiting.failure is not None and not repeated and len(waiting.refused) == waiting.sent:
                return Reply(error=waiting.failure)
            return Reply(error=OutcomeUnknown(f"no answer from {envelope.stream} before the deadline; ask again with the same id"))
        finally:
            del self._waiting[key]
            for handle in (net, waiting.again):
                if handle is not None:
                    handle.cancel()

    def on_answer(self, token: str, answer: Answer) -> None:
        """`token` is what follows the inbox and ``r.`` in the subject: the number of the ask, and that of a later sending."""
        key, _, sending = token.partition(".")
        waiting = self._waiting.get(key)
        if waiting is None or waiting.future.done():
            return
        error = error_from_body(answer.body) if answer.failed else None
        if isinstance(error, NO_ROOM) and not error.final:
            waiting.refused.add(int(sending or 1))
            waiting.failure = error
            if isinstance(error, Unavailable) or waiting.sent > 1 or waiting.repeated:
                self._later(waiting, error)
                return
        waiting.future.set_result(Reply(b"null" if error else answer.body, error, answer.version, answer.position, answer.time))

    def on_nobody(self, shard: int) -> None:
        """The server's own answer: nobody owns `shard` right now. However many say so, all of its asks go out again once."""
        if shard in self._ownerless:
            return
        self._ownerless.add(shard)
        asyncio.get_running_loop().call_later(_NO_OWNER_AGAIN_S, self._try_owner, shard)

    def again(self, shard: int) -> None:
        """Repeat everything that is asked of `shard`: it has a new owner, or had none."""
        for waiting in list(self._waiting.values()):
            if waiting.shard == shard:
                self._once(waiting)

    async def wait_answered(self) -> None:
        """Wait until nothing asked from here is unanswered."""
        while self._waiting:
            await asyncio.wait([waiting.future for waiting in self._waiting.values()])
            await asyncio.sleep(0)  # let the askers take their answers

    def _try_owner(self, shard: int) -> None:
        self._ownerless.discard(shard)
        self.again(shard)

    def _later(self, waiting: _Waiting, error: ActorError) -> None:
        """One repeat, however many sendings are answered so: else each repeat would bring forth the next ones."""
        if waiting.again is None and not isinstance(error, DeadlinePassed):
            delay_s = FULL_RETRY_S if isinstance(error, LogFull | Stopped) else _UNAVAILABLE_AGAIN_S
            waiting.again = asyncio.get_running_loop().call_later(delay_s, self._once, waiting)

    def _once(self, waiting: _Waiting) -> None:
        if waiting.again is not None:
            waiting.again.cancel()
            waiting.again = None
        if not waiting.future.done():
            waiting.sent += 1
            reply = waiting.token if waiting.sent == 1 else f"{waiting.token}.{waiting.sent}"
            self._send(waiting.shard, msgspec.structs.replace(waiting.envelope, reply=reply))
