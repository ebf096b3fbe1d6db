"""What the memories of the bench say. A memory is a dozen words of docstrings, in the frequencies of those; a question is four words of one
of them."""

import base64
from functools import cache
from typing import Final

import msgspec

from actors.memory.facts import Meaning
from actors.testing import recorded
from events.envelope import NewEvent, RecordedEvent
from events.ids import StreamId
from ops.bench.docstrings import kept_pairs
from projections.embedding.hashing import hashed

WORKSPACE: Final = "bench"
AGENTS: Final = 10
_START_US: Final = 1_700_000_000_000_000
_WORDS_EACH: Final = 12
_WORDS_ASKED: Final = 4


@cache
def _words() -> list[str]:
    return [word for pair in kept_pairs() for word in pair.text.split()]


def text_of(number: int) -> str:
    """The content of a memory, another one for each number."""
    words = _words()
    # Steps that share no factor with the number of words: as if drawn by lot, the same in every run.
    picked = (words[(number * 7_919 + place * (104_729 + number % 97)) % len(words)] for place in range(_WORDS_EACH))
    return f"{' '.join(picked)} {number}"


def question_of(number: int) -> str:
    """Four words of a memory in a row, without its number."""
    first = number % (_WORDS_EACH - _WORDS_ASKED)
    return " ".join(text_of(number).split()[first : first + _WORDS_ASKED])


def stored(number: int, position: int) -> RecordedEvent:
    """The event that remembers `text_of(number)`."""
    text = text_of(number)
    found = hashed(text)
    payload = {
        "memory": f"m{number}", "content": text, "type": "semantic", "importance": number % 10 / 10, "metadata": {}, "session": None,
        "agent": f"a{number % AGENTS}", "meaning": Meaning(model=found.model, vector=base64.b64encode(found.vector).decode()),
    }  # fmt: skip
    event = NewEvent(type="memory.stored", payload=msgspec.json.encode(payload))
    return recorded(StreamId(f"memory/{WORKSPACE}"), position, event, None, _START_US + position)
