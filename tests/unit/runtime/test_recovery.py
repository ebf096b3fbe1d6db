"""The one fold: snapshot and events to state, or a named reason why not (S16, S17, I-8)."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.journal import TURN_ENDS, Use, effect_event, end_event
from actors.registry import ActorType
from actors.testing import recorded
from events.envelope import Kind, NewEvent, RecordedEvent
from events.errors import CorruptLogError, UnknownEventTypeError
from events.ids import StreamId, Version
from events.store import Snapshot
from ops.examples.bank import Account, AccountActor
from runtime.turns.recovery import fold, recover

STREAM = StreamId("account/42")
KIND = ActorType(AccountActor)


def deposited(cents: int) -> NewEvent:
    return NewEvent(type="account.deposited", payload=b'{"cents":%d}' % cents)


def withdrawn(cents: int, to: str | None) -> NewEvent:
    return NewEvent(type="account.withdrawn", payload=msgspec.json.encode({"cents": cents, "to": to}))


def stepped(n: int) -> NewEvent:
    return effect_event(Use("step", "fetch", None, n), "started", {"args": []})


def stream(events: Sequence[NewEvent], *, command_ids: Sequence[str] | None = None) -> list[RecordedEvent]:
    """`events` with the versions 1 to n, of the given commands or of one each."""
    return [
        recorded(STREAM, version, event, command_ids[version - 1] if command_ids else f"c-{version}", version)
        for version, event in enumerate(events, 1)
    ]


def snapshot_at(events: Sequence[RecordedEvent], version: int) -> Snapshot:
    """What the runtime would have stored after `version`."""
    state, _ = fold(KIND, events[:version])
    return Snapshot(stream=STREAM, version=Version(version), state=KIND.encode_state(state), shape=KIND.shape)


NEW_EVENTS = st.one_of(
    st.integers(-(10**9), 10**9).map(deposited),
    st.builds(withdrawn, st.integers(-(10**9), 10**9), st.none() | st.text(max_size=5)),
    st.integers(1, 9).map(stepped),
    st.sampled_from(sorted(TURN_ENDS)).map(lambda end: end_event(end, {})),
)
STREAMS = st.lists(NEW_EVENTS, max_size=12).map(stream)


# -- folds agree --------------------------------------------------------------------------------------------------------------------------


@given(STREAMS)
def test_recovery_from_any_snapshot_equals_recovery_from_the_first_event(events: list[RecordedEvent]) -> None:
    """I-8: fold(snapshot at k + tail) = fold(all), for each k; snapshots are disposable."""
    whole = recover(KIND, None, events)
    assert (whole.state, whole.version) == fold(KIND, events)
    for version in range(1, len(events) + 1):
        found = recover(KIND, snapshot_at(events, version), events[version:])
        assert (found.state, found.version) == (whole.state, whole.version)
        assert found.snapshot_version == version


@given(STREAMS, st.data())
def test_a_fold_may_be_cut_anywhere_and_goes_on_from_there(events: list[RecordedEvent], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events)))
    state, version = fold(KIND, events, to=cut)
    assert version == cut
    assert fold(KIND, events, state=state, after=cut) == fold(KIND, events)


@given(STREAMS)
def test_only_state_events_change_the_state(events: list[RecordedEvent]) -> None:
    """S15: steps, messages and control events never touch it."""
    expected = Account()
    for event in events:
        if event.kind is Kind.STATE:
            KIND.apply(expected, event)
    found = recover(KIND, None, events)
    assert found.state == expected
    assert found.tail_bytes == sum(len(bytes(event.payload)) for event in events if event.kind is Kind.STATE)


def test_an_empty_stream_is_the_initial_state_at_version_zero() -> None:
    found = recover(KIND, None, [])
    assert (found.state, found.version, found.snapshot_version, found.journal, found.tail_bytes) == (Account(), 0, 0, [], 0)


def test_a_fold_of_nothing_new_keeps_what_it_was_given() -> None:
    events = stream([deposited(1), deposited(2)])
    state, version = fold(KIND, events, state=Account(cents=3), after=2)
    assert (state, version) == (Account(cents=3), 2)


def test_recovery_keeps_the_journal_of_the_open_turn_only() -> None:
    """S19: ended turns are history."""
    ended, open_, other = "c-ended", "c-open", "c-other"
    events = stream(
        [stepped(1), stepped(1), end_event("turn.completed", {}), deposited(5), stepped(2), stepped(3), end_event("turn.failed", {})],
        command_ids=[ended, open_, ended, ended, open_, other, other],
    )
    found = recover(KIND, None, events)
    assert [(event.version, event.command_id) for event in found.journal] == [(2, open_), (5, open_)]
    assert found.state == Account(cents=5)


# -- what stops recovery ------------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 8), st.data())
def test_a_gap_in_the_versions_stops_recovery(count: int, data: st.DataObject) -> None:
    """S27: a lost event is never folded over."""
    events = stream([deposited(1)] * count)
    lost = data.draw(st.integers(1, count - 1))
    del events[lost - 1]
    with pytest.raises(CorruptLogError) as stopped:
        recover(KIND, None, events)
    assert stopped.value.fields == {"stream": STREAM, "expected": lost, "found": lost + 1, "position": f"0:{lost + 1}"}


def test_an_event_that_stands_twice_or_out_of_order_stops_recovery() -> None:
    first, second = stream([deposited(1)] * 2)
    for events in ([first, first], [second, first], [first, second, second]):
        with pytest.raises(CorruptLogError, match="is followed by"):
            recover(KIND, None, events)


def test_a_tail_that_does_not_join_its_snapshot_stops_recovery() -> None:
    events = stream([deposited(1)] * 4)
    for tail in (events[3:], events[1:]):
        with pytest.raises(CorruptLogError) as stopped:
            recover(KIND, snapshot_at(events, 2), tail)
        assert stopped.value.fields["expected"] == 3


@pytest.mark.parametrize(
    ("tag", "schema_version"), [("account.renamed", 1), ("account.deposited", 2), ("account.deposited", 99), ("account.deposited", 0)]
)
def test_an_unknown_tag_or_schema_version_stops_this_actor_with_its_place(tag: str, schema_version: int) -> None:
    """style.md 5: stop this actor, keep the log; never skip."""
    event = NewEvent(type=tag, schema_version=schema_version, payload=b'{"cents":1}')
    with pytest.raises(UnknownEventTypeError, match=tag) as stopped:
        recover(KIND, None, stream([deposited(1), event]))
    place = {name: stopped.value.fields[name] for name in ("stream", "version", "position")}
    assert place == {"stream": STREAM, "version": 2, "position": "0:2"}


def test_an_unknown_tag_that_is_not_state_is_passed_over() -> None:
    """A newer program may write control events that this one has not heard of; they never change state."""
    found = recover(KIND, None, stream([deposited(1), NewEvent(type="turn.newer", kind=Kind.CONTROL, payload=b"{}")]))
    assert (found.state, found.version) == (Account(cents=1), 2)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"null", b"[]", b"{}", b'{"cents":"1"}', b'{"cents":1,"extra":1}', b'{"cents":1}x', b'{"cents":1,"t\xff":1}', b"\xff"],
)
def test_a_payload_that_does_not_fit_its_type_stops_recovery_with_its_place(payload: bytes) -> None:
    """design.md 5: a row that does not fit is refused with its position."""
    with pytest.raises(CorruptLogError) as stopped:
        recover(KIND, None, stream([deposited(1), NewEvent(type="account.deposited", payload=payload)]))
    assert {name: stopped.value.fields[name] for name in ("stream", "version", "position")} == {
        "stream": STREAM, "version": 2, "position": "0:2",
    }  # fmt: skip


def test_a_text_that_is_not_utf_8_stops_recovery_with_its_place() -> None:
    torn = NewEvent(type="account.withdrawn", payload=b'{"cents":1,"to":"\xff"}')
    with pytest.raises(CorruptLogError) as stopped:
        recover(KIND, None, stream([torn]))
    assert stopped.value.fields["position"] == "0:1"


@pytest.mark.parametrize("state", [b"", b'{"cents":"x"}', b"null"])
def test_a_snapshot_that_cannot_be_read_raises_an_error_of_ours(state: bytes) -> None:
    """style.md 5: no foreign exception crosses a package edge."""
    damaged = Snapshot(stream=STREAM, version=Version(1), state=state, shape=KIND.shape)
    with pytest.raises(CorruptLogError):
        recover(KIND, damaged, [])
