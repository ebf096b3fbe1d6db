"""What another JSON reader would read differently is refused at the edge (S13), and equal arguments have equal hashes (S24)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.codec import args_hash, canonical, canonical_hash, decode_strict, encode_checked
from events.errors import EncodingError
from events.limits import INT64_MAX, INT64_MIN, JSON_DEPTH_MAX

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(INT64_MIN, INT64_MAX) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"a":1} x', b"{'a':1}", b'{"a":1,"a":1}', b'[{"a":{"b":1,"b":2}}]', b"NaN", b"[Infinity]", b"-Infinity", b"1e400",
        b"[-1e999]", b"9223372036854775808", b"-9223372036854775809", b"1" * 5_000, b'"\\ud800"', b'{"\\udfff":1}',
        b'"\xff"', b'"\xed\xa0\x80"',
        b"[" * (JSON_DEPTH_MAX + 1) + b"]" * (JSON_DEPTH_MAX + 1), b"[" * 100_000, b'"\x00"', b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_a_body_that_readers_disagree_on_is_refused(body: bytes) -> None:
    with pytest.raises(EncodingError):
        decode_strict(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"9223372036854775807", INT64_MAX), (b"-9223372036854775808", INT64_MIN), (b'"\\ud83d\\ude00"', "😀"),
        (b'{"a":1,"b":1}', {"a": 1, "b": 1}),
        (b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX, None),
        (b'"' + b"[" * 1_000 + b'"', "[" * 1_000), (b"1e308", 1e308), (b"null", None),
    ],
)  # fmt: skip
def test_a_body_at_the_edge_of_what_is_allowed_is_read(body: bytes, value: object) -> None:
    decoded = decode_strict(body)
    assert value is None or decoded == value


@given(json_values)
def test_what_is_encoded_can_be_read_by_everybody(value: object) -> None:
    body = encode_checked(value, "value")
    assert decode_strict(body) == value == json.loads(body)


@pytest.mark.parametrize("value", [2**63, {"a": 2**64}, "\ud800", {"\ud800": 1}, object(), {"a": {1: object()}}])
def test_a_value_that_json_cannot_carry_is_named_in_the_error(value: object) -> None:
    with pytest.raises(EncodingError, match=r"event a\.b"):
        encode_checked(value, "event a.b")


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical(value) == canonical(backwards)
    assert canonical_hash(value) == canonical_hash(backwards)


def test_equal_arguments_have_one_hash_however_they_are_spelled() -> None:
    """S24: a repeat from another client library must not look like another command."""
    assert args_hash("m", b'{"a":1,"b":"x"}') == args_hash("m", b'{ "b" : "\\u0078", "a" : 1 }')
    assert args_hash("m", b'{"a":1}') != args_hash("m", b'{"a":2}')
    assert args_hash("m", b'{"a":1}') != args_hash("n", b'{"a":1}')
