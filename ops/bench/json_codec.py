"""JSON of one event: our codec beside the standard library's."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from actors import Event, State
from events.codec import encode_checked
from ops.bench.measure import Case, Cases, Sample, Setting, repeated

_AT_ONCE: Final = 200


class Notes(State):
    """What the event below changes."""

    taken: int = 0


class NoteTaken(Event[Notes], tag="bench.note_taken"):
    """About 1 KB of JSON, shaped as what agents record: ids, a text, a few numbers, some tags."""

    note_id: str
    author: str
    importance: float
    tokens: int
    tags: list[str]
    sources: dict[str, int]
    text: str

    def apply(self, state: Notes) -> None:
        state.taken += 1


def note(number: int = 0) -> NoteTaken:
    """A note of about 1 KB."""
    return NoteTaken(
        note_id=f"0197a5c0d2e4-{number:016x}", author="reviewer/workspace-7", importance=0.75, tokens=1_234 + number,
        tags=["performance", "sqlite", "group commit", "reviewed"],
        sources={f"runtime/module_{part}.py": 100 + part for part in range(8)},
        text="A commit costs one fsync, whatever it carries: so what arrives while one runs is the next batch. " * 6,
    )  # fmt: skip


@asynccontextmanager
async def json_cases(_: Setting) -> AsyncIterator[Cases]:
    """Encoding with the check that an event gets (S13), decoding into its type; the standard library does it with dictionaries."""
    event = note()
    plain: dict[str, Any] = msgspec.to_builtins(event)
    body = encode_checked(event, "note")
    decode = msgspec.json.Decoder(NoteTaken).decode
    text = body.decode()
    yield {
        "json-encode": _case(lambda: encode_checked(event, "note")),
        # To bytes, as both must leave as bytes.
        "json-encode-stdlib": _case(lambda: json.dumps(plain).encode()),
        "json-decode": _case(lambda: decode(body)),
        "json-decode-stdlib": _case(lambda: json.loads(text)),
    }


def _case(once: Callable[[], object]) -> Case:
    def many() -> int:
        for _ in range(_AT_ONCE):
            once()
        return _AT_ONCE

    async def run(seconds: float) -> Sample:
        return repeated(many, seconds)

    return run
