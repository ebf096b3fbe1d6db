"""Values as JSON in which content stands once (S38).

Strings of 64 bytes and more, messages, and other large values are *parts*: numbered per thread, written by the event that first needs them,
and referred to as ``{"~": number}`` from then on. So a message that is an input, a task's write and an element of a channel is stored once.
A part may refer to earlier ones, never to later ones.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from actors.graph.errors import UnregisteredTypeError
from actors.graph.kinds import BIG, FLOAT, KEY, PAIRS, TEXT, Kind, Kinds, plain_int
from events.errors import CorruptLogError, EncodingError
from events.limits import EVENT_BYTES_MAX, JSON_DEPTH_MAX

PART_BYTES: Final = 64
"""A reference takes about 10 bytes, and naming a part in its event as many."""
MEMO_OBJECTS: Final = 4_096
CHUNK_CHARACTERS: Final = EVENT_BYTES_MAX // 8
"""What is longer is stored in chunks: a character takes at most six bytes in JSON, and an event holds 1 MiB (S12)."""
LONG_TEXT: Final = "long"
LONG_JSON: Final = "json"
_LONG_JSON_START: Final = b'{"~":"json",'
LEVELS_PER_KIND: Final = 3
"""An object, its field `v`, and the pairs in it: more than that no kind adds."""
DEPTH_MAX: Final = JSON_DEPTH_MAX - 4
"""Of a value: the payload around it has at most four levels of its own."""
_DIGEST_BYTES: Final = 16

_json: Final = msgspec.json.Encoder()
_decode: Final = msgspec.json.Decoder().decode


class Parts:
    """The parts of one thread, by number and by content. Not safe for concurrent use."""

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: bytes) -> None:
        """A part as read from the log."""
        self._numbers.setdefault(_digest(text), len(self._texts))
        self._texts.append(text)
        self.bytes += len(text)

    def number(self, text: bytes) -> int:
        """The number of a part, new or known."""
        digest = _digest(text)
        known = self._numbers.get(digest)
        if known is None:
            known = self._numbers[digest] = len(self._texts)
            self._texts.append(text)
            self.bytes += len(text)
        return known

    def text(self, number: int) -> bytes:
        """Raises CorruptLogError: there is no such part."""
        if not 0 <= number < len(self._texts):
            raise CorruptLogError(f"a stored value refers to part {number} of {len(self._texts)}")
        return self._texts[number]

    def since(self, number: int) -> Sequence[bytes]:
        return self._texts[number:]

    def take_back(self, number: int) -> None:
        """Forget the parts from `number` on: they were not written."""
        for text in self._texts[number:]:
            if self._numbers.get(digest := _digest(text), -1) >= number:
                del self._numbers[digest]
            self.bytes -= len(text)
        del self._texts[number:]


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


class Memo:
    """What messages were packed as, so that a list of a thousand costs little when one is added.

    Keyed by the object, which is kept, and only believed while its fingerprint is the same. The older half is dropped when full.
    """

    def __init__(self, fingerprint: Callable[[Any], int | None]) -> None:
        self._fingerprint = fingerprint
        self._young: dict[int, tuple[Any, int, int]] = {}
        self._old: dict[int, tuple[Any, int, int]] = {}

    def find(self, value: Any) -> int | None:
        """The part that `value` is."""
        key = id(value)
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
        if found[1] != self._fingerprint(value):
            return None
        self._young[key] = found
        return found[2]

    def clear(self) -> None:
        self._young, self._old = {}, {}

    def keep(self, value: Any, number: int) -> None:
        mark = self._fingerprint(value)
        if mark is None:
            return
        if len(self._young) >= MEMO_OBJECTS:
            self._old, self._young = self._young, {}
        self._young[id(value)] = (value, mark, number)


class Packer:
    """Packs and unpacks the values of one thread."""

    def __init__(self, kinds: Kinds, fingerprint: Callable[[Any], int | None]) -> None:
        self.parts = Parts()
        self._kinds = kinds
        self._fingerprint = fingerprint
        self._memo = Memo(fingerprint)
        self._depth = 0

    def fresh(self) -> "Packer":
        """One without parts, for a thread that begins anew. What was packed by this one can still be unpacked by it."""
        return Packer(self._kinds, self._fingerprint)

    def take_back(self, number: int) -> None:
        """Forget the parts from `number` on: what they were packed for was not written."""
        if len(self.parts) > number:
            self.parts.take_back(number)
            self._memo.clear()

    # Packing

    def text(self, value: Any) -> bytes:
        """`value` as JSON, with references.

        Raises:
            UnregisteredTypeError: it holds something of a type without a kind.
            EncodingError: it is nested too deep (S13).
        """
        if _stands_for_itself(value):
            return _json.encode(value)
        self._depth = 0
        return _json.encode(self._walk(value))

    def shared(self, value: Any) -> bytes:
        """As `text`, but a reference if it is large: a second copy of it costs nothing."""
        text = self.text(value)
        return text if len(text) < PART_BYTES else self.reference(text)

    def reference(self, text: bytes) -> bytes:
        """`text`, or a reference to it if it is large."""
        if len(text) < PART_BYTES:
            return text
        if len(text) > CHUNK_CHARACTERS:
            return _json.encode({KEY: LONG_JSON, "v": self._chunks(text.decode())})
        return b'{"~":%d}' % self.parts.number(text)

    def resolved(self, text: bytes) -> bytes:
        """What `text` refers to as a whole; itself if it is no reference."""
        if text.startswith(b'{"~":') and text[5:6].isdigit():
            return self.parts.text(int(text[5:-1]))
        return self.joined(_decode(text)).encode() if text.startswith(_LONG_JSON_START) else text

    def joined(self, packed: dict[str, Any]) -> str:
        """The string, or the JSON text, that is stored in chunks."""
        return "".join(self._unwalk(chunk) for chunk in packed["v"])

    def _walk(self, value: Any) -> Any:
        cls = type(value)
        if cls is str:
            return self._string(value)
        if value is None or cls is bool:
            return value
        if cls is int:
            return value if plain_int(value) else self._tagged(BIG, value)
        if cls is float:
            return value if math.isfinite(value) else self._tagged(FLOAT, value)
        if cls is list:
            self._enter(1)
            items = [item if _stands_for_itself(item) else self._walk(item) for item in value]
            self._depth -= 1
            return items
        if cls is dict:
            return self._dict(value)
        kind = self._kinds.of(value)
        if not kind.shared:
            return self._tagged(kind, value)
        number = self._memo.find(value)
        if number is not None:
            return {KEY: number}
        packed = self._tagged(kind, value)
        text = _json.encode(packed)
        if not PART_BYTES <= len(text) <= CHUNK_CHARACTERS:
            return packed
        number = self.parts.number(text)
        self._memo.keep(value, number)
        return {KEY: number}

    def _enter(self, levels: int) -> None:
        self._depth += levels
        if self._depth > DEPTH_MAX:
            raise EncodingError(f"a value is nested too deep: its JSON would have more than {JSON_DEPTH_MAX} levels (S13)")

    def _dict(self, value: dict[Any, Any]) -> Any:
        for key in value:
            if type(key) is not str or key == KEY or not _is_text(key):
                return self._tagged(PAIRS, value)
        self._enter(1)
        packed = {key: item if _stands_for_itself(item) else self._walk(item) for key, item in value.items()}
        self._depth -= 1
        return packed

    def _string(self, value: str) -> Any:
        if not _is_text(value):
            return self._tagged(TEXT, value)
        if len(value) < PART_BYTES and (value.isascii() or len(value.encode()) < PART_BYTES):
            return value
        if len(value) > CHUNK_CHARACTERS:
            return {KEY: LONG_TEXT, "v": self._chunks(value)}
        return {KEY: self.parts.number(_json.encode(value))}

    def _chunks(self, value: str) -> list[Any]:
        chunks = (value[start : start + CHUNK_CHARACTERS] for start in range(0, len(value), CHUNK_CHARACTERS))
        return [{KEY: self.parts.number(_json.encode(chunk))} for chunk in chunks]

    def _tagged(self, kind: Kind, value: Any) -> dict[str, Any]:
        self._enter(LEVELS_PER_KIND)
        packed = {KEY: kind.name, **kind.pack(value, self._walk)}
        self._depth -= LEVELS_PER_KIND
        return packed

    # Unpacking

    def value(self, text: bytes) -> Any:
        """What `text` says: new objects at every call.

        Raises:
            UnregisteredTypeError: it holds a kind that is not registered. CorruptLogError: it is not what we write.
        """
        return self._unwalk(_decode(text))

    def _unwalk(self, packed: Any) -> Any:
        cls = type(packed)
        if cls is list:
            return [self._unwalk(item) for item in packed]
        if cls is not dict:
            return packed
        name = packed.get(KEY)
        if name is None:
            return {key: self._unwalk(item) for key, item in packed.items()}
        if type(name) is int:
            return self._unwalk(_decode(self.parts.text(name)))
        if type(name) is not str:
            raise CorruptLogError(f"a stored value has the kind {name!r}")
        try:
            if name == LONG_TEXT:
                return self.joined(packed)
            if name == LONG_JSON:
                return self._unwalk(_decode(self.joined(packed)))
            kind = self._kinds.named(name)
            del packed[KEY]
            return kind.unpack(packed, self._unwalk)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnregisteredTypeError(f"a stored value of kind {name!r} cannot be read: {error}", kind=name) from error


def _stands_for_itself(value: Any) -> bool:
    """Most of what there is: packing changes nothing about it."""
    cls = type(value)
    if cls is str:
        return len(value) < PART_BYTES and value.isascii()
    return value is None or cls is bool or (cls is int and plain_int(value))


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
