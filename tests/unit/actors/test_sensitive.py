"""`Sensitive` marks a field in any place of a type; the mark changes nothing about how it is decoded or stored."""

from typing import Any

import msgspec
import pytest

from actors import Event, Sensitive, State
from actors.sensitive import sensitive_values


class Person(msgspec.Struct):
    email: Sensitive[str]
    age: Sensitive[int | None] = None
    tags: list[Sensitive[str]] = []
    partner: "Person | None" = None
    notes: dict[str, Sensitive[str]] = {}
    open: str = ""


class Register(State):
    """A state of its own: events of `State` itself belong to every actor of every test."""


class Registered(Event[Register], tag="person.registered"):
    person: Person
    address: Sensitive[dict[str, Any]] = {}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"email": "a@b"}, ["a@b"]),
        ({"email": "a@b", "age": 5, "open": "o"}, ["a@b", 5]),
        ({"email": "a@b", "age": None, "tags": ["x", "y"]}, ["a@b", "x", "y"]),
        ({"email": "a@b", "partner": {"email": "c@d"}}, ["a@b", "c@d"]),
        ({"email": "a@b", "notes": {"k": "v"}}, ["a@b", "v"]),
        ({"open": "o"}, []),
        ("something else", []),
    ],
)
def test_marked_values_are_found_wherever_they_stand(value: Any, found: list[Any]) -> None:
    assert list(sensitive_values(Person, value)) == found


def test_of_a_marked_object_every_leaf_counts() -> None:
    value = {"person": {"email": "a@b"}, "address": {"street": "s", "zip": [1, 2], "valid": True}}
    assert list(sensitive_values(Registered, value)) == ["a@b", "s", 1, 2]


def test_a_mark_does_not_change_what_is_decoded() -> None:
    assert msgspec.json.decode(b'{"email":"a@b"}', type=Person) == Person(email="a@b")
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"email":1}', type=Person)
