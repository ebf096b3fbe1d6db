"""One table of number, name and class: what is raised at the actor is raised again at the caller (design.md 3, style.md 5)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import (
    NOT_DONE,
    UNKNOWN,
    WIRE_ERRORS,
    ActorError,
    Denied,
    HandlerFailed,
    IdReused,
    NondeterminismError,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    StepFailed,
    error_body,
    error_from_body,
)
from events.codec import encode, encode_checked
from events.errors import CuebookError

TABLE = {
    (202, "waiting"): (True, UNKNOWN),
    (400, "bad_payload"): (False, NOT_DONE),
    (404, "unknown"): (False, NOT_DONE),
    (409, "rejected"): (False, NOT_DONE),
    (409, "id_reused"): (False, NOT_DONE),
    (410, "gone"): (False, NOT_DONE),
    (413, "too_large"): (False, NOT_DONE),
    (429, "overloaded"): (True, NOT_DONE),
    (499, "cancelled"): (False, NOT_DONE),
    (500, "failed"): (False, NOT_DONE),
    (503, "unavailable"): (True, NOT_DONE),
    (503, "stopped"): (False, NOT_DONE),
    (504, "deadline_passed"): (False, NOT_DONE),
    (507, "full"): (True, NOT_DONE),
    (508, "call_cycle"): (False, NOT_DONE),
    (520, "unknown_outcome"): (True, UNKNOWN),
}
"""design.md 3, with whether to ask again and what is known. 429, 503, 504 and 507 always mean not done."""

by_class = pytest.mark.parametrize("kind", WIRE_ERRORS, ids=lambda kind: kind.__name__)


def all_subclasses(cls: type[ActorError]) -> set[type[ActorError]]:
    return {cls}.union(*(all_subclasses(child) for child in cls.__subclasses__()))


def test_the_table_is_the_one_of_the_contract() -> None:
    assert {(kind.number, kind.error): (kind.retryable, kind.outcome) for kind in WIRE_ERRORS} == TABLE
    assert len(WIRE_ERRORS) == len(TABLE)


def test_every_error_of_an_actor_stands_in_the_table() -> None:
    """One that does not would come back as another class: `Denied` is told as `Rejected`, which it is."""
    ours = {cls for cls in all_subclasses(ActorError) if cls.__module__ == "actors.errors"}
    assert ours == {ActorError, Denied, *WIRE_ERRORS}


@by_class
def test_an_error_survives_the_wire_with_its_fields(kind: type[ActorError]) -> None:
    error = kind("no, because 😀", cents=5, path=["a/b", "c/d"], nothing=None, nested={"code": 1})
    again = error_from_body(encode_checked(error_body(error), "the error"))
    assert type(again) is kind
    assert again.message == str(again) == "no, because 😀"
    assert again.fields == error.fields
    assert error_body(again) == error_body(error)


@by_class
def test_the_body_of_an_error_says_what_a_client_without_our_code_needs(kind: type[ActorError]) -> None:
    """design.md 3."""
    body = error_body(kind("why", place="here"))
    assert body == {
        "code": kind.number, "error": kind.error, "message": "why", "retryable": kind.retryable, "outcome": kind.outcome, "place": "here",
    }  # fmt: skip


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OWN_FIELDS = st.dictionaries(
    st.text().filter(lambda name: name not in {"code", "error", "message", "retryable", "outcome", "self"}), JSON_VALUES
)


@given(st.sampled_from(WIRE_ERRORS), st.text(), OWN_FIELDS)
def test_any_message_and_any_fields_survive_the_wire(kind: type[ActorError], message: str, fields: dict[str, Any]) -> None:
    again = error_from_body(encode(error_body(kind(message, **fields))))
    assert (type(again), again.message, again.fields) == (kind, message, fields)


def test_a_field_cannot_take_the_place_of_a_fixed_one() -> None:
    """A refusal with a field called `code` must not travel as another number."""
    body = error_body(Rejected("no", code=200, error="fine", outcome="done", retryable=True, cents=1))
    assert body == {"code": 409, "error": "rejected", "message": "no", "retryable": False, "outcome": "not_done", "cents": 1}


@pytest.mark.parametrize(
    ("number", "name", "kind"),
    [
        (409, "rejected", Rejected), (409, "id_reused", IdReused), (409, "newer", Rejected), (500, "newer", HandlerFailed),
        (429, "", Overloaded), (520, "newer", OutcomeUnknown), (418, "teapot", OutcomeUnknown), (599, "newer", OutcomeUnknown),
        (200, "done", OutcomeUnknown), (0, "", OutcomeUnknown), (-1, "rejected", OutcomeUnknown),
    ],
)  # fmt: skip
def test_an_unknown_name_or_number_maps_to_its_family(number: int, name: str, kind: type[ActorError]) -> None:
    """A newer worker may answer an older client: a known number decides; of an unknown one nothing is promised."""
    error = error_from_body(encode({"code": number, "error": name, "message": "why", "place": "here"}))
    assert type(error) is kind
    assert (error.message, error.fields) == ("why", {"place": "here"})


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x00", b"\xff", b"null", b"5", b'"text"', b"[]", b"{}", b"{", b'{"code":409}', b'{"code":409,"error":"rejected"}',
        b'{"error":"rejected","message":"x"}', b'{"code":null,"error":"x","message":"x"}', b'{"code":"x","error":"x","message":"x"}',
        b'{"code":[],"error":"x","message":"x"}', b'{"code":NaN,"error":"x","message":"x"}', b'{"code":1e999,"error":"x","message":"x"}',
        b'{"code":409,"error":"rejected","message":"x"', b"<html>502</html>", b"[" * 100_000, b'{"code":' + b"[" * 100_000,
        b'{"code":409,"error":"rejected","message":"\xff"}', b'{"code":"' + b"1" * 5_000 + b'","error":"x","message":"x"}',
    ],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_a_body_that_is_no_error_of_ours_leaves_the_outcome_unknown(body: bytes) -> None:
    """I-7: a proxy's answer or a torn one must never be taken for a refusal."""
    error = error_from_body(body)
    assert type(error) is OutcomeUnknown
    assert error.fields == {}


@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_body_makes_the_reader_raise(body: bytes) -> None:
    assert isinstance(error_from_body(body), ActorError)


def test_a_field_that_python_could_not_take_is_dropped() -> None:
    error = error_from_body(b'{"code":409,"error":"rejected","message":"no","self":1,"cents":2}')
    assert (type(error), error.fields) == (Rejected, {"cents": 2})


@pytest.mark.parametrize("kind", [StepFailed, NondeterminismError])
def test_what_concerns_only_the_turn_itself_does_not_travel(kind: type[CuebookError]) -> None:
    """It reaches the caller as a failed handler (500) or a parked turn, never by its own name."""
    assert not issubclass(kind, ActorError)
    assert kind.code in {"step_failed", "nondeterminism"}
