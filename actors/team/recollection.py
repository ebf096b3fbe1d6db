"""What is different from the last review of the same workspace: asked of its memory, which then knows what holds now.

The comparison is the memory actor's and not the view's: a view may lag behind a review that has just ended. A finding is the same if rule,
file and message are, whatever line it has moved to.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from actors.actor import Actor
from actors.errors import ActorError, Cancelled, StepFailed
from actors.memory import Difference, Memory, Standing
from actors.team.parts import Part, read_part, write_part
from actors.tools.findings import Finding, Severity
from actors.tools.report import Since

SUBJECT: Final = "findings"
COMPARED_MAX: Final = 20_000
"""As many things as a subject may have; of more findings the worst are compared."""
SEARCHABLE_MAX: Final = 300
"""Of the new findings of one review: so many, the worst, are also found by their meaning."""
_SEARCHABLE_AT_ONCE: Final = 50
_AT_ONCE: Final = 500
_NAMED: Final = 50
_TEXT_CHARACTERS: Final = 240
_ASK_S: Final = 60.0
_IMPORTANCE: Final[dict[Severity, float]] = {"high": 0.9, "medium": 0.6, "low": 0.3}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A finding as the memory keeps it."""

    key: str
    text: str
    importance: float


class SeenAll(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of a review, the worst first, as a part. digest: of the set of them."""

    part: Part
    digest: str
    count: int


def write_seen(parts: str, ranked: Sequence[Finding]) -> SeenAll:
    """Within a step: the findings as the memory keeps them, into a part."""
    met: Counter[tuple[str, str, str]] = Counter()
    seen: list[Seen] = []
    for finding in ranked[:COMPARED_MAX]:
        same = (finding.rule, finding.file, finding.message)
        met[same] += 1
        key = hashlib.sha256("\0".join((*same, str(met[same]))).encode()).hexdigest()[:16]
        text = f"{finding.severity} {finding.rule} {finding.file}:{finding.line} {finding.message}"
        seen.append(Seen(key=key, text=_shortened(text), importance=_IMPORTANCE[finding.severity]))
    digest = hashlib.sha256("".join(sorted(each.key for each in seen)).encode()).hexdigest()
    return SeenAll(part=write_part(parts, "seen", seen), digest=digest, count=len(ranked))


async def since_last(agent: Actor[Any], review: str, seen: SeenAll) -> Since:
    """Compare with what the memory knows, and have it know this review from now on.

    Without a memory the review goes on, and `missing` says why nothing is compared.
    """
    try:
        return await _compared(agent, review, seen)
    except Cancelled:
        raise
    except (ActorError, StepFailed) as error:
        return Since(missing=f"the memory did not answer: {error.message}")


async def _compared(agent: Actor[Any], review: str, seen: SeenAll) -> Since:
    memory = agent.ref(Memory, agent.id, timeout_s=_ASK_S)
    last: Standing | None = await memory.standing(subject=SUBJECT)
    if last is not None and last.digest == seen.digest:
        # As always when nothing was changed: then not even the keys are sent.
        await memory.note(subject=SUBJECT, round=review, digest=seen.digest, total=seen.count, found={}, gone=[])
        return Since(review=last.round, at=last.at, findings=last.total)
    keys = await agent.step("keys", partial(keys_of, seen.part))
    difference: Difference = await memory.compare(subject=SUBJECT, keys=keys)
    gone, shown = list(difference.gone), list[str]()
    pages = _pages(difference.found)
    for number, page in enumerate(pages):
        found = await agent.step("new findings", partial(found_in, seen.part, page))
        shown += [note["text"] for note in found.values()][: _NAMED - len(shown)]
        await memory.note(
            subject=SUBJECT, round=review, digest=seen.digest if number == len(pages) - 1 else "", total=seen.count, found=found,
            gone=gone if number == 0 else [], searchable=number * _SEARCHABLE_AT_ONCE < SEARCHABLE_MAX,
        )  # fmt: skip
    fixed = sorted(difference.gone.values(), key=lambda known: (-known.importance, known.text))
    if last is None:
        return Since(new=len(difference.found))
    return Since(
        review=last.round, at=last.at, findings=last.total, new=len(difference.found), fixed=len(fixed), new_findings=shown,
        fixed_findings=[known.text for known in fixed[:_NAMED]],
    )  # fmt: skip


def _pages(keys: list[str]) -> list[list[str]]:
    """Small ones as long as vectors come along; at least one, to say what is gone."""
    pages = [keys[first : first + _SEARCHABLE_AT_ONCE] for first in range(0, min(len(keys), SEARCHABLE_MAX), _SEARCHABLE_AT_ONCE)]
    pages += [keys[first : first + _AT_ONCE] for first in range(SEARCHABLE_MAX, len(keys), _AT_ONCE)]
    return pages or [[]]


def keys_of(part: Part) -> list[str]:
    """Step: the keys of all findings, the worst first."""
    return [each.key for each in read_part(part, list[Seen])]


def found_in(part: Part, keys: list[str]) -> dict[str, dict[str, Any]]:
    """Step: the findings with these keys, as the memory takes them."""
    wanted = set(keys)
    return {each.key: {"text": each.text, "importance": each.importance} for each in read_part(part, list[Seen]) if each.key in wanted}


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "…"
