"""The edge: which bodies are the arguments of a method, and which field is wrong (S13, design.md 3 and 4)."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors import Actor, State, command
from actors.errors import BadPayload
from actors.registry import ActorType, Method, field_of
from events.codec import decode_strict
from events.errors import EncodingError
from events.limits import INT64_MAX, INT64_MIN, JSON_DEPTH_MAX


class Desk(State):
    pass


class Page(msgspec.Struct, kw_only=True):
    number: int
    text: str = ""


class DeskActor(Actor[Desk], name="desk"):
    @command
    async def file(self, cents: int, note: str = "none", labels: list[str] = []) -> None:  # noqa: B006
        """A mutable default is usual Python."""

    @command
    async def print(self, page: Page, copies: float = 1.0) -> None: ...

    @command
    async def keep(self, value: Any) -> None: ...

    @command
    async def tick(self) -> None: ...

    @command
    async def loose(self, value=None): ...  # type: ignore[no-untyped-def]


KIND = ActorType(DeskActor)
FILE, PRINT, KEEP, TICK = (KIND.method(name) for name in ("file", "print", "keep", "tick"))


def nested(levels: int) -> bytes:
    """A body for `keep` that is `levels` deep, the body's own braces counted."""
    return b'{"value":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


# -- what is taken ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "body", "arguments"),
    [
        (FILE, b'{"cents":5,"note":"x","labels":["a"]}', {"cents": 5, "note": "x", "labels": ["a"]}),
        (FILE, b'{"cents":5}', {"cents": 5, "note": "none", "labels": []}),
        (FILE, b'{"labels":[],"cents":5}', {"cents": 5, "note": "none", "labels": []}),
        (FILE, b' {\t"cents" :\r\n 5 } \n', {"cents": 5, "note": "none", "labels": []}),
        (FILE, b'{"cents":-0}', {"cents": 0, "note": "none", "labels": []}),
        (FILE, b'{"cents":%d}' % INT64_MAX, {"cents": INT64_MAX, "note": "none", "labels": []}),
        (FILE, b'{"cents":%d}' % INT64_MIN, {"cents": INT64_MIN, "note": "none", "labels": []}),
        (FILE, b'{"c\\u0065nts":1,"note":"\\ud83d\\ude00"}', {"cents": 1, "note": "😀", "labels": []}),
        (FILE, '{"cents":1,"note":"Ü 😀"}'.encode(), {"cents": 1, "note": "Ü 😀", "labels": []}),
        (FILE, b'{"cents":1,"note":"{[{["}', {"cents": 1, "note": "{[{[", "labels": []}),
        (FILE, b'{"cents":1,"note":"' + b"[" * 1_000 + b'"}', {"cents": 1, "note": "[" * 1_000, "labels": []}),
        (PRINT, b'{"page":{"number":1}}', {"page": Page(number=1), "copies": 1.0}),
        (PRINT, b'{"page":{"number":1,"text":""},"copies":2}', {"page": Page(number=1), "copies": 2.0}),
        (KEEP, b'{"value":null}', {"value": None}),
        (KEEP, b'{"value":1e308}', {"value": 1e308}),
        (TICK, b"{}", {}),
        (TICK, b"", {}),
    ],
)  # fmt: skip
def test_a_body_of_exactly_the_arguments_is_taken(method: Method, body: bytes, arguments: dict[str, Any]) -> None:
    assert method.decode(body) == arguments


def test_a_body_may_be_nested_as_deep_as_the_limit_and_no_deeper() -> None:
    """S13: 64 levels."""
    assert KEEP.decode(nested(JSON_DEPTH_MAX))
    with pytest.raises(BadPayload, match="nested deeper than 64"):
        KEEP.decode(nested(JSON_DEPTH_MAX + 1))


def test_a_default_is_fresh_for_every_command() -> None:
    """What one handler does to its arguments must not reach the next command."""
    first = FILE.decode(b'{"cents":1}')
    first["labels"].append("mine")
    assert FILE.decode(b'{"cents":1}')["labels"] == []


def test_a_parameter_without_annotation_takes_any_value() -> None:
    loose = KIND.method("loose")
    assert loose.decode(b'{"value":[1,{"a":null}]}') == {"value": [1, {"a": None}]}
    assert loose.decode(b"") == {"value": None}


# -- what is refused ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "body", "field"),
    [
        (FILE, b"", "cents"),
        (FILE, b"{}", "cents"),
        (FILE, b'{"note":"x"}', "cents"),
        (FILE, b'{"cents":"5"}', "cents"),
        (FILE, b'{"cents":true}', "cents"),
        (FILE, b'{"cents":null}', "cents"),
        (FILE, b'{"cents":5.5}', "cents"),
        (FILE, b'{"cents":5,"note":null}', "note"),
        (FILE, b'{"cents":5,"labels":["a",1]}', "labels[1]"),
        (FILE, b'{"cents":5,"labels":{}}', "labels"),
        (FILE, b'{"cents":5,"Cents":5}', "Cents"),
        (FILE, b'{"cents":5,"extra":1}', "extra"),
        (FILE, b'{"cents":5,"self":1}', "self"),
        (FILE, b'{"cents":5,"cents":5}', "cents"),
        (FILE, b'{"cents":5,"c\\u0065nts":5}', "cents"),
        (PRINT, b'{"page":{"number":1,"number":2}}', "number"),
        (PRINT, b'{"page":{"number":"1"}}', "page.number"),
        (PRINT, b'{"page":{}}', "number"),
        (KEEP, b'{"value":{"a":1,"a":1}}', "a"),
        (TICK, b'{"x":1}', "x"),
    ],
)  # fmt: skip
def test_a_wrong_missing_unknown_or_repeated_field_is_named(method: Method, body: bytes, field: str) -> None:
    """design.md 3: 400 names the field."""
    with pytest.raises(BadPayload) as refusal:
        method.decode(body)
    assert refusal.value.fields["field"] == field
    assert refusal.value.message.startswith(f"{method.name}: ")


@pytest.mark.parametrize(
    "body",
    [
        b"null", b"[]", b"[1]", b'"x"', b"5", b"{", b"}", b'{"value":}', b'{"value":1,}', b"{'value':1}", b'{"value":1}{}',
        b'{"value":1} x',
        b'{"value":NaN}', b'{"value":Infinity}', b'{"value":-Infinity}', b'{"value":1e400}', b'{"value":[-1e999]}', b'{"value":01}',
        b'{"value":9223372036854775808}', b'{"value":-9223372036854775809}', b'{"value":[{"a":18446744073709551616}]}',
        b'{"value":' + b"1" * 5_000 + b"}", b'{"value":"\\ud800"}', b'{"value":{"\\udfff":1}}', b'{"value":"\\udc00\\ud800"}',
        b'{"value":"\xff"}', b'{"value":"\xed\xa0\x80"}', b'{"value":"\xc0\xaf"}', b'\xef\xbb\xbf{"value":1}', b'{"value":"\x00"}', b"\x00",
        nested(100), nested(100_000), b'{"value":' * 100_000, b"{\xa0}", "{\u2003}".encode(),
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_a_body_that_is_no_plain_json_object_is_refused(body: bytes) -> None:
    """S13: whatever readers in two languages could read differently is 400."""
    with pytest.raises(BadPayload) as refusal:
        KEEP.decode(body)
    assert refusal.value.number == 400


def test_an_error_that_names_no_place_has_no_field() -> None:
    assert field_of(msgspec.ValidationError("Expected `object`, got `array`")) is None
    assert field_of(EncodingError("the body is not JSON")) is None


# -- the fast path never decides otherwise than the strict one ----------------------------------------------------------------------------


def verdict(method: Method, body: bytes, *, fast: bool) -> Any:
    """The arguments as JSON, or the field that is wrong; with `fast`, what production does."""
    try:
        if fast:
            return repr(method.decode(body))
        decode_strict(body or b"{}")
        arguments = method.decoder.decode(body or b"{}")
        return repr({name: getattr(arguments, name) for name in method.arguments.__struct_fields__})
    except BadPayload as error:
        return ("refused", error.fields["field"])
    except (EncodingError, msgspec.ValidationError) as error:
        return ("refused", field_of(error))


LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
    | st.sampled_from([INT64_MAX, INT64_MAX + 1, INT64_MIN, INT64_MIN - 1, 10**15, 10**16, 10**19, 1e16, -0.0])
    | st.sampled_from(["\ud800", "[" * 70, "\x7f\u2028"])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "number", "text"]), inner, max_size=3),
    max_leaves=6,
)
PAIRS = st.lists(st.tuples(st.sampled_from(["cents", "note", "labels", "page", "copies", "value", "extra"]), VALUES), max_size=4)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON-like text: of right and wrong fields in any order, some twice, in any spelling; now and then damaged."""
    ascii_only, comma, colon = draw(st.booleans()), draw(st.sampled_from([",", ", ", " ,\n"])), draw(st.sampled_from([":", ": "]))

    def spelt(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=(comma, colon))

    text = "{" + comma.join(spelt(key) + colon + spelt(value) for key, value in draw(PAIRS)) + "}"
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at + draw(st.integers(0, 2)) :]
    return body


@pytest.mark.parametrize("method", [FILE, PRINT, KEEP, TICK], ids=lambda method: method.name)
@given(body=bodies())
@example(body=b'{"cents":1,"note":"none","labels":[]}')
@example(body=b'{"value":1234567890123456}')
@example(body=b'{"value":{"a":9223372036854775808}}')
@example(body=b'{"value":' + b"[" * 63 + b"]" * 63 + b"}")
@example(body=b'{"value":' + b"[" * 64 + b"]" * 64 + b"}")
def test_the_fast_path_and_the_strict_path_give_the_same_verdict(method: Method, body: bytes) -> None:
    """S13: the fast path is an optimisation, not another set of rules."""
    assert verdict(method, body, fast=True) == verdict(method, body, fast=False)


@given(st.fixed_dictionaries({"cents": st.integers(INT64_MIN, INT64_MAX), "note": st.text(), "labels": st.lists(st.text(), max_size=3)}))
def test_what_a_client_encodes_is_what_the_handler_gets(arguments: dict[str, Any]) -> None:
    for body in (msgspec.json.encode(arguments), json.dumps(arguments).encode(), json.dumps(arguments, indent=1).encode()):
        assert FILE.decode(body) == arguments


class RawActor(Actor[Desk], name="raw"):
    @command
    async def keep(self, value: msgspec.Raw) -> None: ...


def test_a_duplicate_key_inside_a_raw_argument_is_refused() -> None:
    """S13."""
    with pytest.raises(BadPayload):
        ActorType(RawActor).method("keep").decode(b'{"value":{"a":1,"a":2}}')
