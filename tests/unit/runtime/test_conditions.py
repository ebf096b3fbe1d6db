"""JSON pointers, and what `--break-on` understands: nothing in a condition reaches beyond the values it is given."""

from typing import Any

import pytest

from actors.errors import BadPayload
from runtime.past.conditions import MISSING, Moment, at_pointer, parse_condition, parse_pointer

DOCUMENT = {"a/b": {"~": [10, {"x": None}]}, "": 1, "list": [1, 2]}


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("", DOCUMENT), ("/a~1b/~0/0", 10), ("/a~1b/~0/1/x", None), ("/", 1), ("/list/1", 2), ("/list/2", MISSING), ("/list/-", MISSING),
        ("/list/01", MISSING), ("/list/x", MISSING), ("/nobody/x", MISSING),
    ],
)  # fmt: skip
def test_a_pointer_names_what_rfc_6901_says(pointer: str, expected: Any) -> None:
    assert at_pointer(DOCUMENT, parse_pointer(pointer)) == expected


@pytest.mark.parametrize("text", ["a", "a/b", "/~2", "/a~"])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(BadPayload):
        parse_pointer(text)


def moment(before: Any = None, after: Any = None, **facts: Any) -> Moment:
    known = {"type": "account.deposited", "event": {"cents": 5}, "stream": "account/a", "version": 3, "error": None, "sender": None}
    return Moment(before or {}, after or {"cents": 120, "notes": ["a", "b"], "deep": {"x": [1]}}, {**known, **facts})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=account.*", True), ("type=step.*", False), ("/cents changed", True), ("/nobody changed", False), ("state.cents > 100", True),
        ("state.cents > 100 and event.cents == 5", True), ("state.cents < 100 or version == 4", False), ("not error", True),
        ("error == null", True), ("'a' in state.notes", True), ("len(state.notes) == 2", True), ("state['deep']['x'][0] == 1", True),
        ("state.nobody.at.all > 3", False), ("state.notes > 3", False), ("state.cents / 0 > 1", False), ("1 < state.cents < 200", True),
        ("stream == 'account/a' and sender is null", True), ("-state.cents < 0", True), ("state.notes * 9999999999", False),
        ("len(state.cents)", False), ("type == 'account.deposited'", True),
    ],
)  # fmt: skip
def test_a_condition_is_asked_of_the_moment(text: str, expected: bool) -> None:
    assert parse_condition(text)(moment()) is expected


@pytest.mark.parametrize(
    "text",
    [
        "", "state.", "__import__('os')", "open('x')", "state.cents := 3", "lambda: 1", "[x for x in state]", "frob > 1", "a/b changed",
        "state.__class__()", "f'{state}'", "(yield)", "2 ** 9999", "1 << 9999", "x" * 2_000,
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(BadPayload):
        parse_condition(text)


def test_a_member_is_never_an_attribute() -> None:
    """``state.__class__`` looks for a member of that name."""
    assert parse_condition("state.__class__ == null")(moment()) is True
