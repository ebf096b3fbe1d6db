"""JSON in and out of the system: one encoder, and the strict check that every byte from outside passes (S13).

msgspec alone is too forgiving for an event log: it keeps the last of two equal keys, accepts integers of any size and recurses as deep as
Python allows. What another language would read differently from us is refused here, before it can be recorded.
"""

import hashlib
import json
import math
import re
from typing import Any, NoReturn

import msgspec

from events.errors import EncodingError
from events.limits import INT64_MAX, INT64_MIN, JSON_DEPTH_MAX

_encoder = msgspec.json.Encoder()
_MAYBE_INFINITE = re.compile(r"[0-9][eE]|[0-9]{300}")
_COARSE = bytes.maketrans(b"123456789{", b"0" * 9 + b"[")
"""All digits alike, and all opening brackets: one sweep for both things that are looked for."""
_NINETEEN_DIGITS = b"0" * 19
_SUSPICIOUS_BYTES = 19
"""A shorter text holds neither a long number nor a deep nesting."""
_canonical = msgspec.json.Encoder(order="sorted")

encode = _encoder.encode
"""Any msgspec-supported value as compact JSON bytes; does not check S13, see `encode_checked`."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise EncodingError(f"the key {key!r} stands twice in one object", field=key)
            seen.add(key)
    return found


def _int64(digits: str) -> int:
    # 19 digits always fit a comparison; more would make int() itself slow (and Python refuses 4,300).
    if len(digits) > 20 or not INT64_MIN <= (number := int(digits)) <= INT64_MAX:
        raise EncodingError(f"the integer {digits[:24]} does not fit 64 bits; send it as a string")
    return number


def _not_a_number(name: str) -> NoReturn:
    raise EncodingError(f"{name} is not JSON")


_strict = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_int64, parse_constant=_not_a_number)


def _depth(text: str) -> int:
    """Deepest nesting of `text`, which may be malformed; brackets inside strings do not count."""
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def decode_strict(body: bytes) -> Any:
    """`body` as a plain Python value, if every JSON reader would agree on it.

    Raises:
        EncodingError: not UTF-8, malformed, duplicate keys, NaN or Infinity, an integer beyond int64, a float out of range, a lone
            surrogate, or nesting beyond 64 levels.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise EncodingError(f"the body is not UTF-8 (byte {error.start})") from error
    # Counting is enough for nearly every body; only a suspicious one is scanned.
    if text.count("[") + text.count("{") > JSON_DEPTH_MAX and _depth(text) > JSON_DEPTH_MAX:
        raise EncodingError(f"the body is nested deeper than {JSON_DEPTH_MAX} levels")
    try:
        value = _strict.decode(text)
    except json.JSONDecodeError as error:
        raise EncodingError(f"the body is not JSON: {error.msg} (character {error.pos})") from error
    if "\\u" in text:
        _refuse_surrogates(value)
    if _MAYBE_INFINITE.search(text):
        _refuse_infinity(value)
    return value


def _refuse_surrogates(value: Any) -> None:
    try:
        _encoder.encode(value)
    except UnicodeEncodeError as error:
        raise EncodingError("the body holds half of a surrogate pair, which is no character") from error


def _refuse_infinity(value: Any) -> None:
    """1e400 parses as infinity, which no JSON text can carry on."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float) and item in (float("inf"), float("-inf")):
            raise EncodingError("a number of the body is out of range")
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def encode_checked(value: Any, what: str) -> bytes:
    """`value` as JSON that passes `decode_strict`: what we record must be readable by everybody (S13).

    Args:
        value: anything that msgspec encodes.
        what: named in the error, such as ``event account.deposited``.

    Raises:
        EncodingError: the value holds something JSON cannot carry.
    """
    try:
        body = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodingError(f"{what}: {error}") from error
    # What msgspec wrote is JSON without duplicate keys or half characters. What is left to find is rare and shows in the text.
    # (Digits are looked for in one sweep: a regular expression takes longer for 1 KB than the encoding itself, 10 us against 0.9.)
    if len(body) >= _SUSPICIOUS_BYTES:
        coarse = body.translate(_COARSE)
        if coarse.find(_NINETEEN_DIGITS) >= 0 or (len(body) > JSON_DEPTH_MAX and coarse.count(b"[") > JSON_DEPTH_MAX):
            try:
                decode_strict(body)
            except EncodingError as error:
                raise EncodingError(f"{what}: {error.message}") from error
    # Not `in`: CPython 3.11 makes and drops a TypeError for each before it looks.
    if body.find(b"null") >= 0:
        _refuse_silent_null(value, what)
    return body


def _refuse_silent_null(value: Any, what: str) -> None:
    """msgspec writes NaN and infinity as null: a silent change."""
    stack = [msgspec.to_builtins(value)]
    while stack:
        item = stack.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise EncodingError(f"{what}: {item} is not JSON")
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)


def canonical(value: Any) -> bytes:
    """`value` as JSON with sorted keys: equal values give equal bytes, whatever order their keys were set in."""
    return _canonical.encode(value)


def canonical_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, as hex: the state hash of S34 and the argument hash of S24."""
    return hashlib.sha256(_canonical.encode(value)).hexdigest()


def args_hash(method: str, args: bytes) -> str:
    """The argument hash of S24, the same for every spelling of equal arguments. args: JSON that passed `decode_strict`."""
    return canonical_hash((method, msgspec.json.decode(args)))
