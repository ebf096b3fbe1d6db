"""The events of the memory as this view reads them. Their shapes are part of the log's format; the classes that emit them are in
`actors.memory`, which nothing here may import."""

from typing import Any, Final

import msgspec

STORED: Final = "memory.stored"
ACCESSED: Final = "memory.accessed"
FORGOTTEN: Final = "memory.forgotten"
MEANING_RENEWED: Final = "memory.meaning_renewed"
PATTERN_LEARNED: Final = "memory.pattern_learned"
INTERACTION_RECORDED: Final = "memory.interaction_recorded"
SUBJECT_NOTED: Final = "memory.subject_noted"


class MeaningRecord(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    vector: str


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    memory: str
    content: str
    type: str
    importance: float
    metadata: dict[str, Any]
    session: str | None
    agent: str | None
    meaning: MeaningRecord


class Accessed(msgspec.Struct, frozen=True, kw_only=True):
    counts: dict[str, int]


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    memories: list[str]


class MeaningRenewed(msgspec.Struct, frozen=True, kw_only=True):
    meanings: dict[str, MeaningRecord]


class PatternLearned(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    pattern: str
    solution: str
    success: bool


class InteractionRecorded(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    with_actor: str
    type: str
    content: str
    result: str | None
    session: str | None


class NotedItem(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    importance: float
    meaning: MeaningRecord | None = None


class SubjectNoted(msgspec.Struct, frozen=True, kw_only=True):
    subject: str
    round: str
    agent: str | None
    found: dict[str, NotedItem]
    gone: list[str]


Record = Stored | Accessed | Forgotten | MeaningRenewed | PatternLearned | InteractionRecorded | SubjectNoted

_DECODERS: Final[dict[str, msgspec.json.Decoder[Record]]] = {
    STORED: msgspec.json.Decoder(Stored),
    ACCESSED: msgspec.json.Decoder(Accessed),
    FORGOTTEN: msgspec.json.Decoder(Forgotten),
    MEANING_RENEWED: msgspec.json.Decoder(MeaningRenewed),
    PATTERN_LEARNED: msgspec.json.Decoder(PatternLearned),
    INTERACTION_RECORDED: msgspec.json.Decoder(InteractionRecorded),
    SUBJECT_NOTED: msgspec.json.Decoder(SubjectNoted),
}
HANDLED: Final = tuple(_DECODERS)


def record_of(tag: str, payload: msgspec.Raw | bytes) -> Record:
    """What an event says. Raises: msgspec.ValidationError, KeyError: it is none of the memory's."""
    return _DECODERS[tag].decode(payload)
