"""The port between a client and what carries its messages. Adapter: `runtime.over_nats.client_nats`."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

import msgspec

from runtime.hearing import Mail


class Answer(msgspec.Struct, frozen=True):
    """One message that came back. nobody: the server's own 503, no subscriber; error: an error reply of ours; attempt: which sending of the
    call it answers, counted from 1."""

    body: bytes
    error: bool = False
    nobody: bool = False
    attempt: int = 1


class Replies(Protocol):
    """The answers to all attempts of one call, whichever of them is answered."""

    async def send(self, subject: str, body: bytes, headers: dict[str, str] | None) -> None:
        """Raises: TransientError, InvariantError (the client is closed)."""
        ...

    async def next(self, timeout_s: float) -> Answer | None:
        """The next answer; None after `timeout_s`."""
        ...


class News(Protocol):
    """Hints that something happened, and reconnects, which may have swallowed some."""

    def forget(self) -> None: ...

    async def wait(self, timeout_s: float) -> None:
        """Until a hint that came after the last `forget`, or `timeout_s`."""
        ...


class Link(Protocol):
    """A connection that keeps itself up."""

    @property
    def payload_bytes_max(self) -> int: ...

    def replies(self) -> AbstractContextManager[Replies]: ...

    def listen(self, subject: str) -> AbstractAsyncContextManager[News]: ...

    def messages(self, subject: str) -> AbstractAsyncContextManager[Mail]:
        """What is published from here on; the oldest are dropped if the reader falls far behind."""
        ...
