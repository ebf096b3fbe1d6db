"""What stands in the log for a thread: one Struct per event type. Their JSON is the payload, as FORMAT.md section 10 says.

`Raw` fields hold packed values (`packing`). Absent fields have their default: every one of them says what changed against the parent
checkpoint.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from actors.journal import Forked
from events.memo import memo

SAVED: Final = "graph.saved"
WRITES: Final = "graph.writes"
PARTS: Final = "graph.parts"
CLAIMED: Final = "graph.claimed"
REMOVED: Final = "graph.removed"
DELETED: Final = "graph.deleted"
REBASED: Final = "graph.rebased"
KEPT: Final = "graph.kept"
COPIED: Final = "graph.copied"
THREAD: Final = "graph.thread"
ITEMS: Final = "store.changed"
FORKED: Final = "stream.forked"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def iso_of(at_us: int) -> str:
    """Microseconds since 1970 as LangGraph writes a time."""
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat()


def _us_of(text: str | None) -> int | None:
    """The number of which `text` is the `iso_of`; None if there is none."""
    if type(text) is not str:
        return None
    if not text.isascii() or text[19:20] != "." or text[26:] != "+00:00":
        return _second_us(text, "")
    # Nearly all: a second that was there a moment ago, and a fraction, which is there where it is not 0.
    second_us, fraction = _second_us(text[:19], text[26:]), text[20:26]
    return second_us + int(fraction) if second_us is not None and fraction.isdigit() and fraction != "000000" else None


@memo("seconds of checkpoints", 64)
def _second_us(text: str, zone: str) -> int | None:
    try:
        at = datetime.fromisoformat(f"{text}{zone}")
    except ValueError:
        return None
    if at.tzinfo is not UTC or at.isoformat() != f"{text}{zone}":
        return None
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class _Recorded(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """first, parts: the parts that this event adds to those of its thread, and the number of the first of them."""

    first: int = 0
    parts: list[Raw] = []


class Saved(_Recorded, kw_only=True):
    """A checkpoint. parent: unset = the one recorded before it in this namespace, null = none.

    set: channels with a new value. append: lists that grew, and by what. gone: channels without a value. versions, seen, metadata: what is
    new or different; *_gone: what is no more. updated: unset = the channels of `versions` that are not gone, sorted. at_us: `ts` in
    microseconds since 1970, where `iso_of` that is `ts`. rest: fields of the checkpoint that have no name here.
    """

    id: str
    ns: str = ""
    parent: str | UnsetType | None = UNSET
    v: int = 4
    at_us: int | None = None
    ts: str | None = None
    metadata: dict[str, Raw] = {}
    metadata_gone: list[str] = []
    set: dict[str, Raw] = {}
    append: dict[str, Raw] = {}
    gone: list[str] = []
    versions: dict[str, int | float | str] = {}
    versions_gone: list[str] = []
    seen: dict[str, dict[str, int | float | str]] = {}
    seen_gone: list[str] = []
    updated: list[str] | UnsetType | None = UNSET
    rest: dict[str, Raw] = {}

    def updated_channels(self) -> list[str] | None:
        """LangGraph's field of that name."""
        if self.updated is not UNSET:
            return self.updated
        gone = self.gone
        return sorted([channel for channel in self.versions if channel not in gone]) if gone else sorted(self.versions)

    def tell_time(self, text: str | None) -> None:
        """Note `text` as `ts`, shorter where it is the usual one: what `iso_of` writes."""
        at_us = _us_of(text)
        if at_us is None:
            self.ts = text
        else:
            self.at_us = at_us


class Kept(Saved, kw_only=True):
    """A checkpoint that a rebase told anew. home: `thread_state.Checkpoint.home`. hidden: it is not shown, but another one is read back
    through it, so of its values and writes only what that needs is here."""

    home: int
    hidden: bool = False


class Writes(_Recorded, kw_only=True):
    """Writes of a task on a checkpoint, as (index, channel, value). checkpoint: unset = the newest of the namespace."""

    checkpoint: str | UnsetType = UNSET
    ns: str = ""
    task: str
    path: str = ""
    writes: list[tuple[int, str, Raw]]


class PartsAdded(_Recorded, kw_only=True):
    """Parts that did not fit the next event."""


class Claimed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """From here on only the claim `owner`, counted from 1, may write the thread."""

    owner: int


class Removed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Checkpoints, as (namespace, id), that are not shown any more. why: prune or runs."""

    why: str
    checkpoints: list[tuple[str, str]]


class Deleted(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The thread begins anew behind this event: no checkpoint and no part from before is left."""


class Rebased(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The thread begins anew behind this event, and the events of its transaction behind it say all that is left: none refers to what was
    said before. why: prune or runs. gone: how many checkpoints are no longer shown."""

    why: str
    gone: int


class Copied(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The thread holds what `stream` held at `version`."""

    stream: str
    version: int


class Thread(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The thread's own id, where it cannot stand in the name of a stream."""

    thread: str


class ItemChange(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An item of a store that was put, or deleted where its value is null. vectors: float32, little-endian, base64."""

    namespace: list[str]
    key: str
    at_us: int
    value: Raw
    vectors: list[str] = []


class ItemsChanged(_Recorded, kw_only=True):
    """What one batch changed in a store."""

    items: list[ItemChange]


BY_TYPE: Final[dict[str, Any]] = {
    tag: msgspec.json.Decoder(cls)
    for tag, cls in (
        (SAVED, Saved), (WRITES, Writes), (PARTS, PartsAdded), (CLAIMED, Claimed), (REMOVED, Removed), (DELETED, Deleted),
        (REBASED, Rebased), (KEPT, Kept), (COPIED, Copied), (THREAD, Thread), (FORKED, Forked), (ITEMS, ItemsChanged),
    )
}  # fmt: skip
