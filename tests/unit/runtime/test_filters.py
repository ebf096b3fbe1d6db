"""The filter language: what each kind of term lets through, and what is refused."""

import msgspec
import pytest

from actors.errors import BadPayload
from events.envelope import Kind, RecordedEvent
from events.ids import EventId, Position, StreamId, Version
from events.selection import matches
from runtime.past.filters import duration_us, filter_text, moment_us, parse_filter


def event(**changed: object) -> RecordedEvent:
    plain = RecordedEvent(
        shard=0, position=Position(1), time=1_000_000_000, stream=StreamId("account/42"), version=Version(1), event_id=EventId("e1"),
        type="account.deposited", schema_version=1, recorded_at_us=1_000_000_000, command_id="c1",
        causation_id=None,
        correlation_id="corr-1", traceparent=None, sender=None, branch="main", parent=None, kind=Kind.STATE, owner_epoch=1,
        code_version=None, duration_us=None,
        summary=None, error=None, payload=msgspec.Raw(b'{"note":"Gruesse an Ada"}'), salt=None, key_id=None, state_hash=None, hash="",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("type:account.*", True),
        ("type:step.*", False),
        ("type:step.* type:account.*", True),
        ("-type:account.*", False),
        ("-type:step.*", True),
        ("type:account.* -actor:account/42", False),
        ("actor:account/42", True),
        ("actor:account/4", False),
        ("actor:account", True),
        ("actor:acc*", True),
        ("actor:account/*", True),
        ("actor:reviewer", False),
        ("kind:state", True),
        ("kind:step", False),
        ("error:true", False),
        ("error:false", True),
        ("corr:corr-1", True),
        ("corr:corr-?", True),
        ("corr:other", False),
        ("text:ada", True),
        ("ADA", True),
        ('"text:an ada"', True),
        ("-ada", False),
        ("deposited", True),
        ("nothing-like-it", False),
    ],
)
def test_a_term_lets_through_what_it_names(text: str, expected: bool) -> None:
    assert matches(parse_filter(text), event()) is expected


def test_error_true_means_failed_only() -> None:
    assert matches(parse_filter("error:true"), event(error="it broke"))
    assert matches(parse_filter("broke"), event(error="it broke"))


def test_durations_count_back_from_the_given_now() -> None:
    """An event at the bound is after it; before: is open."""
    now_us = 1_000_000_000 + 300_000_000
    assert matches(parse_filter("after:5m", now_us=now_us), event())
    assert not matches(parse_filter("after:299s", now_us=now_us), event())
    assert not matches(parse_filter("before:5m", now_us=now_us), event())
    assert matches(parse_filter("before:299s", now_us=now_us), event())


def test_the_narrowest_of_several_bounds_holds() -> None:
    wanted = parse_filter("after:10m after:5m before:1m before:2m", now_us=600_000_000)
    assert (wanted.after_us, wanted.before_us) == (300_000_000, 480_000_000)


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment_us("1970-01-01T00:00:01", 0) == moment_us("1970-01-01T01:00:01+01:00", 0) == 1_000_000


@pytest.mark.parametrize(
    ("text", "found"), [("30s", 30_000_000), ("1.5h", 5_400_000_000), ("2d", 172_800_000_000), ("5", None), ("m", None)]
)
def test_a_duration_is_a_number_with_a_unit(text: str, found: int | None) -> None:
    assert duration_us(text) == found


@pytest.mark.parametrize("text", ["frob:1", "error:maybe", "after:soon", "type:", "-after:5m", '"open', "a" * 5_000])
def test_what_is_not_of_the_language_is_refused_as_the_filter(text: str) -> None:
    with pytest.raises(BadPayload) as refused:
        parse_filter(text)
    assert refused.value.fields["field"] == "filter"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type:a.* -kind:step",
        "actor:rev* actor:account/4[23]",
        "corr:x cmd:y sender:client",
        '"text:two words" !error:true',
        "after:5m before:1s",
    ],
)
def test_a_filter_says_itself_in_text(text: str) -> None:
    """A reader that is reached by text is told the same selection; times as times, not as durations that move on."""
    wanted = parse_filter(text, now_us=1_700_000_000_123_456)
    assert parse_filter(filter_text(wanted)) == wanted
