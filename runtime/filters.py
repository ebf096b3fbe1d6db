"""The filter language of `log`, `tail` and ``cue.log.read``: which events somebody wants to see. Knows events and text, no store.

filter = term (" " term)*        all kinds of terms must hold
term   = ["-"] key ":" value     "-" excludes; several terms of one key include any of them
       | ["-"] word              the same as text:word

type:account.*    tag of the event, a glob (* ? [..])
actor:account/42  stream, a glob; without "/" the actor type (actor:rev*)
kind:state        state | step | message | timer | control, a glob
corr:ID           correlation id, a glob
error:true        failed only (error:false: the others)
text:word         in payload, summary, error or tag, in either case; "text:two words" in quotes
after:5m          recorded (logical time) at or after a duration ago (s, m, h, d) or an ISO 8601 time; before: the opposite
"""

import fnmatch
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from actors.errors import BadPayload
from events.envelope import RecordedEvent

_UNITS_US: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
FILTER_CHARACTERS_MAX: Final = 4_096

Test = Callable[[RecordedEvent], bool]


class Filter:
    """A parsed filter. `after_us` and `before_us` bound the logical time, so that a reader may skip what lies outside."""

    __slots__ = ("_excluded", "_included", "after_us", "before_us", "text")

    def __init__(self, text: str = "", *, now_us: int = 0) -> None:
        """
        Args:
            text: the filter; empty lets everything through.
            now_us: what durations count back from.

        Raises:
            BadPayload: a term that is not of the language; names it.
        """
        self.text = text
        self.after_us: int | None = None
        self.before_us: int | None = None
        self._included: dict[str, list[Test]] = {}
        self._excluded: list[Test] = []
        if len(text) > FILTER_CHARACTERS_MAX:
            raise _bad(f"the filter has more than {FILTER_CHARACTERS_MAX:,} characters")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise _bad(f"the filter {text!r} cannot be read: {error}") from error
        for word in words:
            self._add(word, now_us)

    def _add(self, word: str, now_us: int) -> None:
        excluded = word.startswith("-") and len(word) > 1
        key, colon, value = word[excluded:].partition(":")
        if not colon:
            key, value = "text", key
        if not value:
            raise _bad(f"the term {word!r} has no value")
        if key in ("after", "before"):
            if excluded:
                raise _bad(f"{word!r}: write before: instead of -after:, and the other way round")
            self._bound(key, moment_us(value, now_us))
            return
        test = _test(key, value, word)
        if excluded:
            self._excluded.append(test)
        else:
            self._included.setdefault(key, []).append(test)

    def _bound(self, key: str, at_us: int) -> None:
        if key == "after":
            self.after_us = at_us if self.after_us is None else max(self.after_us, at_us)
        else:
            self.before_us = at_us if self.before_us is None else min(self.before_us, at_us)

    def __bool__(self) -> bool:
        return bool(self._included or self._excluded or self.after_us is not None or self.before_us is not None)

    def matches(self, event: RecordedEvent) -> bool:
        """Whether `event` is wanted."""
        if self.after_us is not None and event.time < self.after_us:
            return False
        if self.before_us is not None and event.time >= self.before_us:
            return False
        if any(test(event) for test in self._excluded):
            return False
        return all(any(test(event) for test in tests) for tests in self._included.values())


EVERYTHING: Final = Filter()


def duration_us(text: str) -> int | None:
    """``30s``, ``5m``, ``1.5h``, ``2d`` in microseconds; None if `text` is no duration."""
    found = _DURATION.fullmatch(text)
    return None if found is None else int(float(found[1]) * _UNITS_US[found[2]])


def moment_us(text: str, now_us: int) -> int:
    """A duration before `now_us`, or an ISO 8601 time (UTC where it names no zone), as microseconds since 1970.

    Raises:
        BadPayload: neither.
    """
    ago = duration_us(text)
    if ago is not None:
        return now_us - ago
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _bad(f"{text!r} is neither a duration such as 5m nor a time such as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)


def _test(key: str, value: str, word: str) -> Test:
    if key == "error":
        if value not in ("true", "false"):
            raise _bad(f"{word!r}: error is true or false")
        failed = value == "true"
        return lambda event: (event.error is not None) is failed
    if key == "text":
        return _text_test(value.casefold())
    glob = re.compile(fnmatch.translate(value)).match
    if key == "type":
        return lambda event: glob(event.type) is not None
    if key == "kind":
        return lambda event: glob(event.kind.value) is not None
    if key == "corr":
        return lambda event: glob(event.correlation_id or "") is not None
    if key == "actor":
        if "/" in value:
            return lambda event: glob(event.stream) is not None
        return lambda event: glob(event.stream.partition("/")[0]) is not None
    raise _bad(f"{word!r}: unknown key {key!r} (known: type actor kind corr error text after before)")


def _text_test(wanted: str) -> Test:
    def test(event: RecordedEvent) -> bool:
        for field in (event.type, event.summary, event.error):
            if field is not None and wanted in field.casefold():
                return True
        return wanted in bytes(event.payload).decode(errors="replace").casefold()

    return test


def _bad(message: str) -> BadPayload:
    return BadPayload(message, field="filter")
