"""Which events somebody wants to see, as data: a reader may look for them where they lie instead of handing every event out.

One meaning, two executions: `matches` here, and `selection_sqlite` inside SQLite, which may only let too much through, never too little;
`matches` has the last word. The contract suite compares the two.
"""

import fnmatch
import re
from typing import Final, Literal

import msgspec

from events.envelope import RecordedEvent
from events.memo import memo

Field = Literal["type", "stream", "actor_type", "kind", "correlation_id", "command_id", "sender", "error", "text"]


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One test of an event.

    type, kind, correlation_id, command_id: a glob (``*``, ``?``, ``[..]``) over the field, null as the empty text; sender: the same, null
    as `OUTSIDE`; stream, actor_type: over the name of the stream, and over what stands before its "/"; error: "true" or "false", whether
    one is set; text: contained in type, summary, error or payload. A text of ASCII letters is found in either case of ASCII letters, any
    other text in either case of all letters.
    """

    field: Field
    pattern: str


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Every group of `included` must have a term that holds, and no term of `excluded` may; after_us <= logical time < before_us."""

    included: tuple[tuple[Term, ...], ...] = ()
    excluded: tuple[Term, ...] = ()
    after_us: int | None = None
    before_us: int | None = None

    def __bool__(self) -> bool:
        return bool(self.included or self.excluded or self.after_us is not None or self.before_us is not None)


EVERYTHING: Final = Selection()
OUTSIDE: Final = "client"
"""How whoever is no actor is called: the sender of a command that no stream sent."""


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a selection. upto: how far the shard was looked through, found or not: where the next page goes on; end: to its end."""

    events: list[RecordedEvent]
    upto: int
    end: bool


def correlated(*correlation_ids: str) -> Selection:
    """Everything of these conversations."""
    return Selection(included=(tuple(Term(field="correlation_id", pattern=literal(each)) for each in correlation_ids),))


def literal(text: str) -> str:
    """A glob that only `text` itself fits."""
    return re.sub(r"([*?[])", r"[\1]", text)


def matches(wanted: Selection, event: RecordedEvent) -> bool:
    """Whether `event` is wanted."""
    if wanted.after_us is not None and event.time < wanted.after_us:
        return False
    if wanted.before_us is not None and event.time >= wanted.before_us:
        return False
    if any(holds(term, event) for term in wanted.excluded):
        return False
    return all(any(holds(term, event) for term in terms) for terms in wanted.included)


def holds(term: Term, event: RecordedEvent) -> bool:
    """Whether `term` is true of `event`."""
    value: str
    match term.field:
        case "error":
            return (event.error is not None) is (term.pattern == "true")
        case "text":
            return _contains(event, term.pattern)
        case "stream":
            value = event.stream
        case "actor_type":
            value = event.stream.partition("/")[0]
        case "kind":
            value = event.kind.value
        case "sender":
            value = event.sender or OUTSIDE
        case field:
            value = getattr(event, field) or ""
    return _glob(term.pattern).match(value) is not None


@memo("patterns of selections", 256)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def _contains(event: RecordedEvent, wanted: str) -> bool:
    texts = [text for text in (event.type, event.summary, event.error) if text is not None]
    if wanted.isascii():
        # bytes.lower() knows ASCII only, and so does LIKE.
        sought = wanted.encode().lower()
        return any(sought in text.encode().lower() for text in texts) or sought in bytes(event.payload).lower()
    sought_text = wanted.casefold()
    return any(sought_text in text.casefold() for text in (*texts, bytes(event.payload).decode(errors="replace")))
