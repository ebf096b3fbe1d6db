"""An actor's question to a projection over NATS: asked again while its projector is replaced, since a read may be repeated."""

import asyncio
from typing import Final

import nats.errors
from nats.aio.client import Client

from actors.errors import ActorError, OutcomeUnknown, Unavailable, error_from_body
from runtime.wire import ERROR_CODE

_ATTEMPT_S, _ATTEMPT_MAX_S = 1.0, 8.0
"""A projector that dies takes the questions that it was asked with it."""
_PAUSE_S: Final = 0.1
_NOBODY_S: Final = 5.0
"""So long nobody may be there, or not ready: a projector that is killed is back within two. Then the handler is told."""


async def ask_view(client: Client, subject: str, body: bytes, timeout_s: float, what: str) -> bytes:
    """The JSON reply to one question. Cancelled: nothing was changed.

    Raises:
        Unavailable: nobody answers for `what`, or it is not ready. OutcomeUnknown: no answer within `timeout_s`. ActorError: what it said.
    """
    loop = asyncio.get_running_loop()
    began, attempt_s = loop.time(), _ATTEMPT_S
    failure: ActorError = OutcomeUnknown(f"no answer from {what} within {timeout_s:g} s")
    while (left_s := began + timeout_s - loop.time()) > 0:
        try:
            message = await client.request(subject, body, timeout=min(attempt_s, left_s))
        except nats.errors.NoRespondersError:
            failure = Unavailable(f"{what} is not running", retry_after_ms=1_000)
        except (nats.errors.Error, TimeoutError) as error:
            failure = OutcomeUnknown(f"no answer from {what}: {error!r}")
            attempt_s = min(2 * attempt_s, _ATTEMPT_MAX_S)
            continue
        else:
            if not message.headers or ERROR_CODE not in message.headers:
                return message.data
            failure = error_from_body(message.data)
            if not isinstance(failure, Unavailable):
                raise failure
        if loop.time() - began > _NOBODY_S:
            break
        await asyncio.sleep(_PAUSE_S)
    raise failure
