"""Asking over plain NATS, and looking into the log from outside, for tests. Knows the wire of design.md 3 and nothing of the runtime."""

import asyncio
import json
import time
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg


class Answer(NamedTuple):
    """A reply: its decoded body, its headers, and the code of an error (None = a result)."""

    body: Any
    headers: dict[str, str]
    code: int | None


def answer_of(message: Msg) -> Answer:
    headers = dict(message.headers or {})
    code = headers.get("Nats-Service-Error-Code")
    if not message.data and headers.get("Status") == "503":
        return Answer(None, headers, 503)
    return Answer(json.loads(message.data), headers, int(code) if code else None)


async def ask(client: Client, tail: str, body: object = None, *, headers: dict[str, str] | None = None, timeout_s: float = 10.0) -> Answer:
    """``cue.ask.<tail>`` once. body: bytes as they are, else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
    return answer_of(await client.request(f"cue.ask.{tail}", data, timeout=timeout_s, headers=headers))


async def ask_until_done(
    client: Client, tail: str, body: object, *, deadline_s: float = 30.0, attempt_s: float = 2.0, headers: dict[str, str] | None = None
) -> Answer:
    """What a plain NATS client does (S9): the same id again after a timeout, a bodiless 503, or a retryable answer."""
    give_up = time.monotonic() + deadline_s
    while True:
        left = give_up - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no final answer to {tail} within {deadline_s:.0f} s")
        try:
            found = await ask(client, tail, body, headers=headers, timeout_s=min(attempt_s, left))
        except nats.errors.NoRespondersError:
            await asyncio.sleep(0.05)
            continue
        except (nats.errors.TimeoutError, TimeoutError):
            continue
        if found.code in (503, 520, 429):
            await asyncio.sleep(0.05)
            continue
        return found


async def log(client: Client, operation: str, **arguments: Any) -> Any:
    """``cue.log.<operation>``; asked again when the worker that was asked dies before it answers."""
    give_up = time.monotonic() + 15
    while True:
        try:
            found = answer_of(await client.request(f"cue.log.{operation}", json.dumps(arguments).encode(), timeout=2))
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            assert time.monotonic() < give_up, f"cue.log.{operation} does not answer"
            await asyncio.sleep(0.05)
            continue
        assert found.code is None, found
        return found.body


async def positions(client: Client) -> dict[str, int]:
    """The end of every shard: what is written moves it."""
    vector: dict[str, int] = (await log(client, "head"))["positions"]
    return vector


async def stream_events(client: Client, stream: str) -> list[dict[str, Any]]:
    """All events of a stream, page by page."""
    events: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = await log(client, "read", stream=stream, after=after, limit=1_000)
        events += page["events"]
        after = page["next"]
    return events


async def wait_events(client: Client, stream: str, count: int, timeout_s: float = 20.0) -> list[dict[str, Any]]:
    """Wait until a stream has at least `count` events."""
    give_up = time.monotonic() + timeout_s
    while len(events := await stream_events(client, stream)) < count:
        assert time.monotonic() < give_up, f"{stream} has {len(events)} of {count} events after {timeout_s:.0f} s"
        await asyncio.sleep(0.02)
    return events
