"""Journal entries as data, and names that depend on what they were made from alone (S15, S19)."""

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from actors.journal import RESERVED_TAGS, TURN_ENDS, Use, derived_id, effect_event, end_event, sent_event
from events.envelope import Kind
from events.ids import is_tag, is_token

PARTS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8) | st.integers(0, 99), min_size=1)


@given(PARTS)
def test_a_derived_id_is_a_token_of_26_characters_and_repeats(parts: list[str | int]) -> None:
    """It stands in subjects and files: one case only."""
    name = derived_id(*parts)
    assert is_token(name)
    assert len(name) == 26
    assert name == name.lower()
    assert derived_id(*parts) == name


@given(PARTS, PARTS)
def test_a_derived_id_depends_on_all_its_parts_and_their_borders(one: list[str | int], two: list[str | int]) -> None:
    """S19: (turn, kind, name, n); text and number of one spelling are the same part."""
    assume([*map(str, one)] != [*map(str, two)])
    assert derived_id(*one) != derived_id(*two)


def test_changing_any_part_of_an_ask_changes_its_id() -> None:
    parts = ["account/a", "turn-1", "ask", "account/b.deposit", 1]
    others = {derived_id(*parts[:at], "other", *parts[at + 1 :]) for at in range(len(parts))}
    assert len(others | {derived_id(*parts), derived_id(*parts[:-1]), derived_id(*parts, "")}) == len(parts) + 3


def test_a_derived_id_never_changes_between_releases() -> None:
    """A turn that was open over an upgrade asks with the id that the older program made."""
    assert derived_id("account/a", "turn-1", "ask", "account/b.deposit", 1) == "36aphm7ixvyyrsia5gq7bn4cce"


@pytest.mark.parametrize("kind", ["step", "ask", "view"])
@pytest.mark.parametrize("outcome", ["started", "completed", "failed"])
def test_an_effect_is_recorded_as_a_step_that_never_touches_state(kind: str, outcome: str) -> None:
    """S15."""
    event = effect_event(Use(kind, "n", "k", 2), outcome, {"message": "m" * 600} if outcome == "failed" else {"x": 1})
    assert event.type == f"{kind}.{outcome}"
    assert event.type in RESERVED_TAGS
    assert event.kind is Kind.STEP
    assert event.summary == f"{kind} n [k] #2 {outcome}"
    assert event.error == ("m" * 500 if outcome == "failed" else None)
    payload = msgspec.json.decode(event.payload)
    assert (payload["name"], payload["key"], payload["n"]) == ("n", "k", 2)


def test_a_summary_is_short_whatever_the_name() -> None:
    assert len(effect_event(Use("step", "n" * 500, None, 1), "started", {}).summary or "") == 200


def test_a_send_is_recorded_where_it_leaves() -> None:
    event = sent_event("account/b", "deposit", b'{"cents": 5}', "id-1")
    assert (event.type, event.kind) == ("message.sent", Kind.MESSAGE)
    assert event.payload == b'{"receiver":"account/b","method":"deposit","command_id":"id-1","arguments":{"cents": 5}}'


@pytest.mark.parametrize("end", sorted(TURN_ENDS))
def test_the_end_of_a_turn_is_a_control_event_of_ours(end: str) -> None:
    event = end_event(end, {"command_id": "x"}, duration_us=5, error="why")
    assert (event.kind, event.duration_us, event.error, event.summary) == (Kind.CONTROL, 5, "why", end.replace(".", " "))
    assert end in RESERVED_TAGS


def test_our_own_tags_have_the_form_of_all_tags() -> None:
    assert all(is_tag(tag) for tag in RESERVED_TAGS)
