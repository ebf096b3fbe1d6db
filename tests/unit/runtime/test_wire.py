"""What travels, apart from any client library: subjects, headers, envelopes and CloudEvents (design.md 3, S8, S11, S12)."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import BadPayload
from actors.testing import recorded
from actors.turn import Command
from events.envelope import NewEvent, RecordedEvent
from events.ids import CommandId, StreamId, is_token
from events.limits import HEADERS_BYTES_MAX
from runtime.wire import (
    NO_HEADERS,
    Address,
    Answer,
    Envelope,
    Headers,
    Subjects,
    cloud_event,
    decode_answer,
    decode_envelopes,
    encode_answer,
    encode_envelopes,
    iso_time,
    parse_address,
    parse_headers,
)

CUE = Subjects("cue", 4)
AT_US = 1_700_000_000_000_001
TOKENS = st.text(st.sampled_from("abcXYZ019_-"), min_size=1, max_size=64)


def some_event(**changes: Any) -> RecordedEvent:
    new = NewEvent(type="account.deposited", schema_version=2, payload=b'{"cents": 5}')
    return msgspec.structs.replace(recorded(StreamId("account/42"), 7, new, "command-1", AT_US), **changes)


def some_command(**changes: Any) -> Command:
    command = Command(
        stream=StreamId("account/42"), method="deposit", args=b"{}", command_id=CommandId("c-1"), explicit=True, received_at_us=AT_US
    )
    return msgspec.structs.replace(command, **changes)


# -- subjects -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (CUE.ask("account/42", "deposit"), "cue.ask.account.42.deposit"),
        (CUE.ask("account/42", "deposit", "c-1"), "cue.ask.account.42.deposit.c-1"),
        (CUE.tell("account/42", "deposit"), "cue.tell.account.42.deposit"),
        (CUE.tell("account/42", "deposit", "c-1"), "cue.tell.account.42.deposit.c-1"),
        (CUE.event(some_event()), "cue.event.account.42.account.deposited"),
        (CUE.chunk(some_command()), "cue.chunk.account.42.deposit.c-1"),
        (CUE.view("memory", "recall"), "cue.view.memory.recall"),
        (CUE.log("read"), "cue.log.read"),
        (CUE.shard(3), "cue._shard.3"),
        (CUE.call(3), "cue._shard.3.call"),
        (CUE.commit(3), "cue._commit.3"),
        (CUE.commit("*"), "cue._commit.*"),
        (CUE.tell_shard(3), "cue._tell.3"),
        (CUE.control, "cue._control"),
        (CUE.stream_name, "cue_tell"),
        (Subjects("staging", 4).ask("account/42", "deposit"), "staging.ask.account.42.deposit"),
    ],
)  # fmt: skip
def test_every_subject_is_the_one_of_the_contract(subject: str, expected: str) -> None:
    """design.md 3: a client in any language builds these by hand."""
    assert subject == expected


@pytest.mark.parametrize("stream", ["account", "account/", "/42", "account/4 2", "account/4.2", "account/*", "account/>", "a/b/c", ""])
def test_a_stream_that_is_no_name_never_becomes_a_subject(stream: str) -> None:
    """A dot or wildcard in an id would address other actors."""
    with pytest.raises(ValueError, match="is not an actor's name"):
        CUE.ask(stream, "deposit")


def test_the_server_routes_asks_and_the_stream_tells_by_the_same_hash() -> None:
    """S8, S11: partition over type and id, as `shard_of` computes it."""
    assert CUE.server_mappings() == {"cue.ask.*.*.>": "cue._shard.{{partition(4,1,2)}}.ask.{{wildcard(1)}}.{{wildcard(2)}}.>"}
    assert CUE.tell_transform() == ("cue.tell.*.*.>", "cue._tell.{{partition(4,1,2)}}.{{wildcard(1)}}.{{wildcard(2)}}.>")


@given(TOKENS, TOKENS, TOKENS, st.none() | TOKENS)
def test_an_address_survives_its_subject(type_name: str, key: str, method: str, command_id: str | None) -> None:
    for subject in (CUE.ask(f"{type_name}/{key}", method, command_id), CUE.tell(f"{type_name}/{key}", method, command_id)):
        assert parse_address(subject.split(".")[2:]) == Address(type_name, key, method, command_id)


# -- addresses ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "address"),
    [
        (["account", "42", "deposit"], Address("account", "42", "deposit", None)),
        (["account", "42", "deposit", "c-1"], Address("account", "42", "deposit", "c-1")),
        (["account", "42", "_cancel"], Address("account", "42", "_cancel", None)),
        (["a" * 64, "-", "_", "Z" * 64], Address("a" * 64, "-", "_", "Z" * 64)),
    ],
)  # fmt: skip
def test_three_or_four_tokens_are_an_address(tokens: list[str], address: Address) -> None:
    assert parse_address(tokens) == address


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        ([], "the subject must be"), (["account"], "the subject must be"), (["account", "42"], "the subject must be"),
        (["account", "42", "deposit", "c-1", "x"], "the subject must be"),
        (["acc ount", "42", "deposit"], "the type 'acc ount'"), (["", "42", "deposit"], "the type ''"),
        (["account", "4*", "deposit"], "the id '4\\*'"), (["account", "4/2", "deposit"], "the id '4/2'"),
        (["account", "42", "dépot"], "the method 'dépot'"), (["account", "42", "m" * 65], "the method 'mmm"),
        (["account", "42", "deposit", ""], "the command id ''"), (["account", "42", "deposit", "c\n"], r"the command id 'c\\n'"),
        (["account", "42", "deposit", ">"], "the command id '>'"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_the_part_that_is_wrong(tokens: list[str], why: str) -> None:
    """design.md 3: 400 names the field."""
    with pytest.raises(BadPayload, match=why) as refusal:
        parse_address(tokens)
    assert refusal.value.fields == {"field": "subject"}


# -- headers ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "parsed"),
    [
        (None, NO_HEADERS),
        ({}, NO_HEADERS),
        ({"Content-Type": "application/json"}, NO_HEADERS),
        ({"Nats-Msg-Id": "c-1"}, Headers(command_id="c-1")),
        ({"Cue-Deadline": "1700000000000"}, Headers(deadline_ms=1_700_000_000_000)),
        ({"Cue-Deadline": "0"}, Headers(deadline_ms=0)),
        ({"Cue-Correlation-Id": "k", "Cue-Causation-Id": "z"}, Headers(correlation_id="k", causation_id="z")),
        ({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
         Headers(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        ({"traceparent": ""}, NO_HEADERS),
        ({"Cue-Meta": "1"}, Headers(meta=True)),
        ({"Cue-Meta": "0"}, NO_HEADERS),
        ({"Cue-Meta": "true"}, NO_HEADERS),
    ],
)  # fmt: skip
def test_headers_are_read(headers: dict[str, str] | None, parsed: Headers) -> None:
    assert parse_headers(headers) == parsed


def test_the_message_id_of_a_tell_belongs_to_jetstream() -> None:
    """S11: JetStream's own key across all actors, never ours - so it may also be what no id of ours could be."""
    assert parse_headers({"Nats-Msg-Id": "any thing", "Cue-Correlation-Id": "k"}, tell=True) == Headers(correlation_id="k")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Cue-Deadline", ""), ("Cue-Deadline", "soon"), ("Cue-Deadline", "-1"), ("Cue-Deadline", "1.5"), ("Cue-Deadline", "1e3"),
        ("Cue-Deadline", " 5"), ("Cue-Deadline", "+5"), ("Cue-Deadline", "1_000"), ("Cue-Deadline", "²"), ("Cue-Deadline", "9" * 19),
        ("Nats-Msg-Id", ""), ("Nats-Msg-Id", "a.b"), ("Nats-Msg-Id", "a b"), ("Nats-Msg-Id", "x" * 65), ("Nats-Msg-Id", "é"),
        ("Cue-Correlation-Id", ""), ("Cue-Correlation-Id", "*"), ("Cue-Causation-Id", ">"), ("Cue-Causation-Id", "a\n"),
    ],
)  # fmt: skip
def test_a_header_of_ours_that_cannot_be_read_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadPayload) as refusal:
        parse_headers({name: value})
    assert refusal.value.fields == {"field": name}


def test_headers_are_bounded() -> None:
    """design.md 11: 16 KiB, names and values together."""
    fits = {"X": "x" * (HEADERS_BYTES_MAX - 1)}
    assert parse_headers(fits) == NO_HEADERS
    with pytest.raises(BadPayload, match="more than 16,384 bytes"):
        parse_headers({"X": fits["X"] + "x"})


def test_an_unreadable_header_does_not_come_back_whole() -> None:
    with pytest.raises(BadPayload) as refusal:
        parse_headers({"Cue-Correlation-Id": "." * 10_000})
    assert len(refusal.value.message) < 250


# -- between workers ----------------------------------------------------------------------------------------------------------------------


ENVELOPES = st.builds(
    Envelope,
    kind=st.sampled_from(["ask", "send", "ack", "gap"]),
    stream=st.just("account/42"),
    method=st.text(max_size=5),
    args=st.binary(max_size=20),
    command_id=st.text(max_size=5),
    explicit=st.booleans(),
    reply=st.text(max_size=5),
    sender=st.none() | st.text(max_size=5),
    causation_id=st.none() | st.text(max_size=5),
    correlation_id=st.none() | st.text(max_size=5),
    traceparent=st.none() | st.text(max_size=5),
    deadline_ms=st.none() | st.integers(0, 2**62),
    chain=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    time=st.integers(0, 2**62),
    n=st.integers(0, 2**62),
    incarnation=st.text(max_size=5),
)


@given(st.lists(ENVELOPES, max_size=4))
def test_a_batch_of_envelopes_comes_back_as_it_went_out(envelopes: list[Envelope]) -> None:
    assert decode_envelopes(encode_envelopes(envelopes)) == envelopes


@given(st.builds(Answer, body=st.binary(max_size=20), failed=st.booleans(), version=st.integers(0, 2**62), position=st.integers(0, 2**62)))
def test_an_answer_comes_back_as_it_went_out(answer: Answer) -> None:
    assert decode_answer(encode_answer(answer)) == answer


def test_an_envelope_becomes_the_command_that_it_stands_for() -> None:
    envelope = Envelope(
        kind="ask", stream="account/42", method="deposit", args=b"{}", command_id="c-1", explicit=False, reply="_INBOX.1", sender="a/b",
        causation_id="z", correlation_id="k", traceparent="00-x", deadline_ms=5, chain=("a/b",), time=9,
    )  # fmt: skip
    assert envelope.command(AT_US) == some_command(
        explicit=False, sender="a/b", causation_id="z", correlation_id="k", traceparent="00-x", deadline_ms=5, chain=("a/b",), time=9
    )


@pytest.mark.parametrize("body", [b"", b"\xc1", b"{}", b"\x90" * 2, b"\x91\x91\x05", b"\x91\x90", b"\x93", b"\x91\x92\xa3ask"])
def test_what_is_no_batch_of_envelopes_raises_one_class_of_errors(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_envelopes(body)


def test_an_envelope_of_a_newer_worker_with_further_fields_can_be_read() -> None:
    """S7: workers of two versions talk to each other during an upgrade."""
    fields = msgspec.msgpack.decode(encode_envelopes([Envelope(kind="ask", stream="a/b")]))[0]
    assert decode_envelopes(msgspec.msgpack.encode([[*fields, "later"]])) == [Envelope(kind="ask", stream="a/b")]
    assert decode_envelopes(msgspec.msgpack.encode([["ask", "a/b"]])) == [Envelope(kind="ask", stream="a/b")]


# -- CloudEvents --------------------------------------------------------------------------------------------------------------------------


FULL = some_event(correlation_id="k", causation_id="z", traceparent="00-x", sender="teller/1", branch="fork-1")


def test_an_event_is_published_as_a_structured_cloud_event() -> None:
    """design.md 3: CloudEvents 1.0 in JSON; the data is the stored payload, byte for byte."""
    body = cloud_event(FULL, "cue", data=True)
    assert json.loads(body) == {
        "specversion": "1.0", "id": FULL.event_id, "source": "/cue/account/42", "type": "account.deposited",
        "time": "2023-11-14T22:13:20.000001Z", "subject": "account/42", "sequence": "7", "schemaversion": 2, "kind": "state", "shard": 0,
        "position": "7", "logicaltime": str(AT_US), "branch": "fork-1", "correlationid": "k", "causationid": "z", "commandid": "command-1",
        "traceparent": "00-x", "sender": "teller/1", "datacontenttype": "application/json", "data": {"cents": 5},
    }  # fmt: skip
    assert body.endswith(b'"data":{"cents": 5}}')


@pytest.mark.parametrize("event", [FULL, some_event(), some_event(command_id=None)], ids=["full", "plain", "bare"])
@pytest.mark.parametrize("data", [True, False])
def test_attribute_names_are_lower_case_letters_and_digits_and_none_is_null(event: RecordedEvent, data: bool) -> None:
    """CloudEvents 1.0, naming conventions: at most 20 characters; an absent attribute is left out."""
    body = json.loads(cloud_event(event, "cue", data=data))
    assert [name for name in body if re.fullmatch(r"[a-z0-9]{1,20}", name) is None] == []
    assert {"specversion", "id", "source", "type"} <= body.keys()
    assert None not in body.values()
    assert all(isinstance(value, str | int) for name, value in body.items() if name != "data")
    assert ("data" in body, "datacontenttype" in body) == (data, data)


def test_an_event_that_is_sealed_or_too_large_goes_out_without_data() -> None:
    """S12, S29."""
    assert b"cents" not in cloud_event(FULL, "cue", data=False)


def test_integer_attributes_fit_what_cloud_events_calls_an_integer() -> None:
    """CloudEvents 1.0, type system: -2,147,483,648 to 2,147,483,647; larger numbers travel as strings."""
    body = json.loads(cloud_event(FULL, "cue", data=False))
    assert [name for name, value in body.items() if isinstance(value, int) and not -(2**31) <= value < 2**31] == []


RFC_3339 = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z")
YEAR_2100_US = 4_102_444_800_000_000


@given(st.integers(0, YEAR_2100_US))
def test_a_time_is_rfc_3339_in_utc_to_the_microsecond(at_us: int) -> None:
    text = iso_time(at_us)
    assert RFC_3339.fullmatch(text)
    assert datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(microseconds=at_us)


@pytest.mark.parametrize(
    ("at_us", "text"),
    [(0, "1970-01-01T00:00:00.000000Z"), (AT_US, "2023-11-14T22:13:20.000001Z"), (1_709_164_800_000_000, "2024-02-29T00:00:00.000000Z")],
)
def test_a_whole_second_keeps_its_six_digits(at_us: int, text: str) -> None:
    """Times of one width sort as text."""
    assert iso_time(at_us) == text


def test_every_token_that_we_put_into_a_subject_is_one_token() -> None:
    for subject in (CUE.ask("account/42", "deposit", "c-1"), CUE.call(0), CUE.control, CUE.log("read")):
        assert all(is_token(token) for token in subject.split("."))
