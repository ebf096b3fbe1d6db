"""One pure function from a text to what should happen with it."""

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from actors.classifier.words import AGENT, DEFAULT_WORDS, ORDER, Words
from actors.people.language import in_language_of
from events.memo import memo

Action = Literal["direct_response", "clarification", "route_agent", "control", "safe_execution", "fallback"]
MEMO_ENTRIES = 4_096
DEPTH_MAX = 3
"""Beyond this many hand-overs between agents a request counts as going in circles."""


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """What a text asks for. Scores lie between 0 and 1; `digest` is the first 32 hex digits of SHA-256 over the text as given."""

    digest: str
    words_version: str
    flags: list[str]
    work: str | None
    sufficient_context: bool
    coherence: float
    confidence: float
    safety: float
    action: Action
    agent: str | None = None
    control: str | None = None
    response: str | None = None
    """A ready answer, where none has to be thought of."""
    question: str | None = None
    """What to ask back, where the text leaves too much open."""

    @property
    def safe(self) -> bool:
        return self.safety > 0.5

    @property
    def needs_clarification(self) -> bool:
        return self.action == "clarification"


def classify(text: str, depth: int = 0, words: Words = DEFAULT_WORDS) -> Classification:
    """What `text` asks for. A repeat comes from the memo, which is keyed by text, depth and words.

    Args:
        text: as the person wrote it; only the first 4,000 characters count.
        depth: how many agents have handed it on already.
        words: what is known of language; `words_with` adds to it.
    """
    return _memo(text[:4_000], min(depth, DEPTH_MAX + 1), words)


def forget() -> None:
    """Empty the memo: results under words that nobody uses any more take no room."""
    _memo.cache_clear()


def memo_info() -> tuple[int, int, int]:
    """Hits, misses and entries of the memo of this process since it was emptied."""
    info = _memo.cache_info()
    return info.hits, info.misses, info.currsize


def classify_by(text: str, depth: int, words: Words) -> Classification:
    """`classify` without memo."""
    said = _spaced(text)
    tokens = said.split()
    work = kind_of_work(said, words)
    flags = [
        name
        for name in ("personal", "temporal", "comparison", "philosophical", "meta")
        if _has(said, getattr(words, name))
    ]  # fmt: skip
    control = tokens[0] if 1 <= len(tokens) <= 2 and tokens[0] in words.control else None
    greeting = _greets_only(tokens, words)
    nonsense = control is None and not greeting and work is None and not flags and _nonsense(tokens, words)
    reference = len(tokens) <= 4 and any(token in words.reference for token in tokens[:2])
    for name, holds in (("greeting", greeting), ("nonsense", nonsense), ("control", control is not None), ("reference", reference)):
        if holds:
            flags.append(name)
    enough = work is not None and _enough(work, tokens, said, words)
    coherence = 0.0 if nonsense else min(1.0, 0.6 + 0.05 * len(tokens))
    confidence = _bounded(
        0.5 + 0.4 * greeting + 0.4 * (control is not None) + 0.3 * enough + 0.3 * ("meta" in flags) - 0.4 * nonsense
        - 0.2 * (reference and not enough) - 0.2 * ("philosophical" in flags)
    )  # fmt: skip
    safety = _bounded(
        0.5 + 0.2 * (coherence > 0.7) + 0.2 * (confidence > 0.6) + 0.1 * (not reference) - 0.5 * nonsense - 0.3 * (depth >= DEPTH_MAX)
        - 0.3 * ("philosophical" in flags)
    )  # fmt: skip
    action, question, response = _decided(text, greeting, nonsense, control, reference, work, enough, flags, safety)
    return Classification(
        digest=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32], words_version=words.version, flags=sorted(flags),
        work=work, sufficient_context=enough, coherence=round(coherence, 3), confidence=round(confidence, 3), safety=round(safety, 3),
        action=action, agent=AGENT[work] if action == "route_agent" and work is not None else None, control=control, response=response,
        question=question,
    )  # fmt: skip


def kind_of_work(said: str, words: Words) -> str | None:
    """The kind of development work that a text names, None where it names none.

    The verb that the text begins with, behind a greeting or a "please", decides; else the first kind in `ORDER`. A verb of making counts
    only there: "the build tool is great" asks for nothing, and "create an app with tests" is not about testing.
    """
    start = said
    shorter = True
    while shorter:
        shorter = False
        for lead in (*words.greeting, *words.polite):
            if start.startswith(f"{lead} "):
                start = start[len(lead) + 1 :]
                shorter = True
    first = start.split(" ", 1)[0]
    if _has(first, words.implementation):
        return "implementation"
    for work in ORDER:
        # German verbs stand at the end of a wish: "ich möchte eine App bauen".
        if work == "implementation" and not (start != said and _has(start.rsplit(" ", 1)[-1], words.implementation)):
            continue
        if _has(start, getattr(words, work)):
            return work
    return None


def _decided(
    text: str,
    greeting: bool,
    nonsense: bool,
    control: str | None,
    reference: bool,
    work: str | None,
    enough: bool,
    flags: Sequence[str],
    safety: float,
) -> tuple[Action, str | None, str | None]:
    """Action, question, ready answer, these two in the language of `text`; the first line that fits counts."""
    if control is not None:
        return "control", None, None
    if greeting:
        return "direct_response", None, in_language_of(text, de="Hallo! Wobei kann ich helfen?", en="Hello! What can I help with?")
    if nonsense:
        return "clarification", in_language_of(text, de=_NOTHING_SAID[0], en=_NOTHING_SAID[1]), None
    if work is not None and enough:
        return "route_agent", None, None
    if reference:
        return "clarification", in_language_of(text, de=_REFERS_TO[0], en=_REFERS_TO[1]), None
    if work is not None:
        german, english = _QUESTIONS[work]
        return "clarification", in_language_of(text, de=german, en=english), None
    if "meta" in flags or "philosophical" in flags or "personal" in flags:
        return "direct_response", None, None
    return ("safe_execution" if safety > 0.5 else "fallback"), None, None


_NOTHING_SAID = ("Das habe ich nicht verstanden. Was soll ich tun?", "I did not understand that. What shall I do?")
_REFERS_TO = (
    "Worauf bezieht sich das? Bitte die Datei, die Funktion oder den Fehler nennen.",
    "What does that refer to? Please name the file, the function or the error.",
)
_QUESTIONS = {
    "performance": (
        "Was genau ist langsam: welcher Aufruf, welche Datei, wie lange dauert es?",
        "What exactly is slow: which call, which file, how long does it take?",
    ),
    "bug_report": (
        "Welcher Fehler tritt wo auf? Bitte Meldung und Stelle nennen.", "Which error, and where? Please give the message and the place.",
    ),
    "refactoring": ("Was soll umgebaut werden, und wohin?", "What is to be restructured, and into what?"),
    "testing": ("Was soll getestet oder geprüft werden?", "What is to be tested or reviewed?"),
    "implementation": ("Was soll gebaut werden? Ein Satz zum Ziel genügt.", "What is to be built? One sentence about the goal will do."),
    "technology": ("Wofür soll die Technik dienen?", "What is the technology to be used for?"),
    "database": ("Um welches Schema oder welche Tabelle geht es?", "Which schema or which table is it about?"),
    "ai_integration": ("Was soll das Modell leisten?", "What is the model to do?"),
}  # fmt: skip
"""What to ask back about each kind of work, in German and in English."""


def _enough(work: str, tokens: Sequence[str], said: str, words: Words) -> bool:
    """Whether somebody could start: the predecessor's rule per kind of work, with its counts lowered where they refused plain requests."""
    if tokens[0] in words.reference:
        return False
    vague = any(token in words.everything for token in tokens)
    match work:
        case "performance" | "refactoring":
            return len(tokens) > 1
        case "bug_report" | "ai_integration":
            return len(tokens) > 3
        case "implementation":
            return len(tokens) > 2 and not vague and not all(token in words.reference for token in tokens[1:2])
        case "testing" | "technology":
            return len(tokens) > 2
        case _:
            return _has(said, words.schema) and len(tokens) > 2


def _greets_only(tokens: Sequence[str], words: Words) -> bool:
    said = " ".join(tokens) + " "
    longest_first = sorted(words.greeting, key=len, reverse=True)
    rest = next((said[len(one) :].strip() for one in longest_first if said.startswith(f"{one} ")), None)
    return rest is not None and rest in {"", "zusammen", "there", "du", "alle", "all", "team"}


def _nonsense(tokens: Sequence[str], words: Words) -> bool:
    """No words at all, or only such as a hand on a keyboard makes."""
    return all(_mashed(token, words) for token in tokens)


def _mashed(token: str, words: Words) -> bool:
    letters = re.sub(r"[\W\d_]", "", token)
    if not letters:
        return True
    if len(letters) >= 4 and (len(set(letters)) <= 2 or any(letters in row or letters in row[::-1] for row in words.keyboard)):
        return True
    vowels = sum(letter in "aeiouyäöü" for letter in letters)
    return len(letters) >= 5 and (vowels == 0 or re.search(r"[^aeiouyäöü]{6}", letters) is not None)


def _spaced(text: str) -> str:
    """Lower case, words apart by one space; dots and slashes inside a word stay, so that ``auth.py`` is one."""
    return " ".join(word for word in (found.strip(".,;:!?\"'()[]{}/") for found in re.findall(r"[^\s,;:!?]+", text.lower())) if word)


@memo("patterns of words", 256)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    each = "|".join(re.escape(word[:-1]) + r"\w*" if word.endswith("*") else re.escape(word) for word in words)
    return re.compile(rf"(?<![\w.-])(?:{each})(?![\w-])")


def _has(said: str, words: tuple[str, ...]) -> bool:
    return _pattern(words).search(said) is not None


def _bounded(score: float) -> float:
    return min(1.0, max(0.0, score))


_memo = memo("classifications", MEMO_ENTRIES)(classify_by)
