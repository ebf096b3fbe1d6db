"""The filter language of `log`, `tail` and ``cue.log.read``: which events somebody wants to see. Its meaning is a `Selection`.

filter = term (" " term)*        all kinds of terms must hold
term   = ["-"] key ":" value     "-" (or "!") excludes; several terms of one key include any of them
       | ["-"] word              the same as text:word

type:account.*    tag of the event, a glob (* ? [..])
actor:account/42  stream, a glob; without "/" the actor type (actor:rev*)
kind:state        state | step | message | timer | control, a glob
corr:ID           correlation id, a glob; cmd: the same for the command id
sender:account/42 stream that sent the command, a glob; "client" = no stream did
error:true        failed only (error:false: the others)
text:word         in payload as stored, summary, error or tag, in either case; "text:two words" in quotes
after:5m          recorded (logical time) at or after a duration ago (s, m, h, d) or an ISO 8601 time; before: the opposite
"""

import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from actors.errors import BadPayload
from events.selection import Field, Selection, Term

_UNITS_US: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
FILTER_CHARACTERS_MAX: Final = 4_096
_FIELDS: Final[Mapping[str, Field]] = {
    "type": "type", "kind": "kind", "corr": "correlation_id", "cmd": "command_id", "sender": "sender", "error": "error", "text": "text",
}  # fmt: skip


def parse_filter(text: str = "", *, now_us: int = 0) -> Selection:
    """What `text` lets through; empty lets everything through.

    Args:
        now_us: what durations count back from.

    Raises:
        BadPayload: a term that is not of the language; names it.
    """
    if len(text) > FILTER_CHARACTERS_MAX:
        raise _bad(f"the filter has more than {FILTER_CHARACTERS_MAX:,} characters")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _bad(f"the filter {text!r} cannot be read: {error}") from error
    included: dict[str, list[Term]] = {}
    excluded: list[Term] = []
    bounds: dict[str, list[int]] = {"after": [], "before": []}
    for word in words:
        negated = len(word) > 1 and word[0] in "-!"
        key, colon, value = word[negated:].partition(":")
        if not colon:
            key, value = "text", key
        if not value:
            raise _bad(f"the term {word!r} has no value")
        if key in bounds:
            if negated:
                raise _bad(f"{word!r}: write before: instead of -after:, and the other way round")
            bounds[key].append(moment_us(value, now_us))
        elif negated:
            excluded.append(_term(key, value, word))
        else:
            included.setdefault(key, []).append(_term(key, value, word))
    return Selection(
        included=tuple(map(tuple, included.values())),
        excluded=tuple(excluded),
        after_us=max(bounds["after"], default=None),
        before_us=min(bounds["before"], default=None),
    )


def filter_text(wanted: Selection) -> str:
    """`wanted` in the language, for a reader that is reached by text; the inverse of `parse_filter`.

    Raises:
        BadPayload: groups that mix keys, which the language cannot say.
    """
    keys = {field: key for key, field in _FIELDS.items()} | {"stream": "actor", "actor_type": "actor"}
    words: list[str] = []
    for terms in wanted.included:
        if len({keys[term.field] for term in terms}) > 1:
            raise _bad("a group of a filter has one key")
        words += [f"{keys[term.field]}:{term.pattern}" for term in terms]
    words += [f"-{keys[term.field]}:{term.pattern}" for term in wanted.excluded]
    words += [f"{key}:{_iso(at)}" for key, at in (("after", wanted.after_us), ("before", wanted.before_us)) if at is not None]
    return shlex.join(words)


def _iso(at_us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).isoformat(timespec="microseconds")


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


def _term(key: str, value: str, word: str) -> Term:
    if key == "actor":
        return Term(field="stream" if "/" in value else "actor_type", pattern=value)
    if key not in _FIELDS:
        raise _bad(f"{word!r}: unknown key {key!r} (known: type actor kind corr cmd sender error text after before)")
    if key == "error" and value not in ("true", "false"):
        raise _bad(f"{word!r}: error is true or false")
    return Term(field=_FIELDS[key], pattern=value)


def _bad(message: str) -> BadPayload:
    return BadPayload(message, field="filter")
