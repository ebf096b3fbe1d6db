"""Taking out of a log what must not leave the house, before it is written anywhere (`export --correlation`).

Three rules decide, in every text of an event and of every other row: a value that somebody named or that stood in a field marked as
sensitive; a member whose name says that it is a secret; a text that looks like a key or a token. What is redacted keeps its JSON type, so
that it still decodes.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from events.codec import encode

REDACTED: Final = "[redacted]"
VALUE_CHARACTERS_MIN: Final = 4
"""Shorter values are not looked for: they would be found everywhere."""

_NAMES: Final = re.compile(
    r"(^|[_-])(pass(word|wd|phrase)|secret|api[_-]?key|access[_-]?key|private[_-]?key|auth(orization)?|cookie|credentials?|token)$", re.I
)
# Shapes of keys as their issuers document them; each is long enough not to meet words.
_SHAPES: Final = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
            r"\bsk-[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic
            r"\bpplx-[A-Za-z0-9]{16,}",
            r"\bgh[pousr]_[A-Za-z0-9]{20,}",
            r"\bgithub_pat_[A-Za-z0-9_]{20,}",
            r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
            r"\bAKIA[0-9A-Z]{16}\b",
            r"\bAIza[A-Za-z0-9_-]{30,}",
            r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JSON web token
            r"(?<=://)[^/\s:@]+:[^/\s:@]+(?=@)",  # user and password of an URL
            r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}=*",
        )
    ),
    re.S,
)


class Redactor:
    """values: texts to take out wherever they stand, also inside longer ones."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        wanted = sorted({value for value in values if len(value) >= VALUE_CHARACTERS_MIN}, key=len, reverse=True)
        self._values = re.compile("|".join(re.escape(value) for value in wanted)) if wanted else None
        self.count = 0
        """How many places were redacted so far."""

    def text(self, text: str) -> str:
        """`text` with every value and every shape in it replaced."""
        if self._values is not None:
            text, found = self._values.subn(REDACTED, text)
            self.count += found
        text, found = _SHAPES.subn(REDACTED, text)
        self.count += found
        return text

    def body(self, body: bytes) -> bytes:
        """A JSON body, the same bytes if nothing in it is redacted.

        Raises:
            msgspec.DecodeError: it is not JSON.
        """
        before = self.count
        redacted = self._value(msgspec.json.decode(body), name="")
        return body if self.count == before else encode(redacted)

    def _value(self, value: Any, *, name: str) -> Any:
        if isinstance(value, str):
            if value and _NAMES.search(name):
                self.count += 1
                return REDACTED
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self._value(inner, name=key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._value(inner, name=name) for inner in value]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and self._values is not None and self._values.fullmatch(str(value)) is not None:
            # A number is only ever redacted by value: 0 keeps its type.
            self.count += 1
            return type(value)(0)
        return value
