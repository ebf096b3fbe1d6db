"""Bad input: each kind with its code, a message that says what is wrong, and nothing written (design.md 3, S10, S12, S13, S24)."""

import json
import time
from typing import Any, NamedTuple

import pytest
from nats.aio.client import Client

from tests.support.wire import answer_of, ask, positions, stream_events

MIB = 1024 * 1024
LONG = "x" * 65


class Bad(NamedTuple):
    """One refused ask. field: what the body must name; says: what the message must contain."""

    tail: str
    body: bytes
    code: int
    error: str
    field: str | None = None
    says: str = ""
    headers: dict[str, str] | None = None


def nested(levels: int) -> bytes:
    return b'{"text": "deep", "data": ' + b"[" * levels + b"]" * levels + b"}"


def sized(size: int) -> bytes:
    """Arguments of exactly `size` bytes."""
    start, end = b'{"text": "', b'"}'
    return start + b"x" * (size - len(start) - len(end)) + end


def payload(tail: str, body: bytes, field: str | None, says: str) -> Bad:
    return Bad(tail, body, 400, "bad_payload", field, says)


DEPOSIT, NOTE = "account.bad.deposit", "probe.bad.note"
SOON = str(int(time.time() * 1_000) + 3_600_000)

CASES = {
    # the body is no JSON object
    "empty": payload(DEPOSIT, b"", "cents", "missing required field"),
    "malformed": payload(DEPOSIT, b'{"cents": ', None, "not JSON"),
    "text": payload(DEPOSIT, b"500 cents", None, "not JSON"),
    "trailing": payload(DEPOSIT, b'{"cents": 5} {"cents": 6}', None, "not JSON"),
    "single-quotes": payload(DEPOSIT, b"{'cents': 5}", None, "not JSON"),
    "not-utf8": payload(DEPOSIT, b'{"cents": 5, "\xff": 1}', None, "not UTF-8"),
    "latin1": payload(NOTE, '{"text": "Ärger"}'.encode("latin-1"), None, "not UTF-8"),
    "utf16": payload(DEPOSIT, '{"cents": 5}'.encode("utf-16"), None, "not UTF-8"),
    "byte-order-mark": payload(DEPOSIT, b'\xef\xbb\xbf{"cents": 5}', None, "not JSON"),
    "nul": payload(DEPOSIT, b'{"cents": 5}\x00', None, "not JSON"),
    "array": payload(DEPOSIT, b"[5]", None, "object"),
    "number": payload(DEPOSIT, b"5", None, "object"),
    "null": payload(DEPOSIT, b"null", None, "object"),
    # fields
    "missing": payload(DEPOSIT, b"{}", "cents", "missing required field"),
    "unknown-field": payload(DEPOSIT, b'{"cents": 5, "currency": "EUR"}', "currency", "unknown field"),
    "wrong-case": payload(DEPOSIT, b'{"Cents": 5}', "Cents", "field"),
    "wrong-type-text": payload(DEPOSIT, b'{"cents": "5"}', "cents", "int"),
    "wrong-type-float": payload(DEPOSIT, b'{"cents": 5.5}', "cents", "int"),
    "wrong-type-bool": payload(DEPOSIT, b'{"cents": true}', "cents", "int"),
    "wrong-type-null": payload(DEPOSIT, b'{"cents": null}', "cents", "int"),
    "wrong-type-object": payload(DEPOSIT, b'{"cents": {"cents": 5}}', "cents", "int"),
    "wrong-type-inside": payload("probe.bad.talk", b'{"words": ["a", 2]}', "words[1]", "str"),
    "query-unknown-field": payload("account.bad.balance", b'{"when": "now"}', "when", "unknown field"),
    # values that not every reader understands (S13)
    "nan": payload(NOTE, b'{"text": "x", "data": NaN}', None, "NaN"),
    "infinity": payload(NOTE, b'{"text": "x", "data": [-Infinity]}', None, "Infinity"),
    "infinite-number": payload(NOTE, b'{"text": "x", "data": 1e400}', None, "range"),
    "lone-surrogate": payload(NOTE, b'{"text": "\\ud800"}', None, "surrogate"),
    "lone-surrogate-deep": payload(NOTE, b'{"text": "x", "data": {"a": ["\\udfff"]}}', None, "surrogate"),
    "lone-surrogate-key": payload(NOTE, b'{"text": "x", "data": {"\\udc00": 1}}', None, "surrogate"),
    "raw-surrogate": payload(NOTE, b'{"text": "\xed\xa0\x80"}', None, "not UTF-8"),
    "duplicate-key": payload(DEPOSIT, b'{"cents": 5, "cents": 6}', "cents", "twice"),
    "duplicate-key-equal": payload(DEPOSIT, b'{"cents": 5, "cents": 5}', "cents", "twice"),
    "duplicate-key-escaped": payload(DEPOSIT, b'{"cents": 5, "\\u0063ents": 6}', "cents", "twice"),
    "duplicate-key-deep": payload(NOTE, b'{"text": "x", "data": [{"a": 1, "a": 2}]}', "a", "twice"),
    "huge-integer": payload(DEPOSIT, b'{"cents": 9223372036854775808}', None, "64 bits"),
    "huge-integer-negative": payload(DEPOSIT, b'{"cents": -9223372036854775809}', None, "64 bits"),
    "huge-integer-untyped": payload(NOTE, b'{"text": "x", "data": 18446744073709551616}', None, "64 bits"),
    "very-huge-integer": payload(DEPOSIT, b'{"cents": 1' + b"0" * 5_000 + b"}", None, "64 bits"),
    "deep": payload(NOTE, nested(64), None, "nested deeper than 64"),
    "very-deep": payload(NOTE, nested(100_000), None, "nested deeper than 64"),
    "very-deep-open": payload(NOTE, b"[" * 500_000, None, "nested deeper than 64"),
    "very-deep-objects": payload(NOTE, b'{"a":' * 200_000, None, "nested deeper than 64"),
    "control-character": payload(NOTE, b'{"text": "a\nb"}', None, "not JSON"),
    # names
    "unknown-type": Bad("acount.bad.deposit", b'{"cents": 5}', 404, "unknown", None, "'acount'"),
    "unknown-method": Bad("account.bad.deposits", b'{"cents": 5}', 404, "unknown", None, "'deposits'"),
    "event-as-method": Bad("account.bad.emit", b"{}", 404, "unknown", None, "'emit'"),
    "dunder": Bad("account.bad.__init__", b"{}", 404, "unknown", None, "'__init__'"),
    "reserved-method": Bad("account.bad._no_such", b"{}", 404, "unknown", None, "'_no_such'"),
    "type-too-long": payload(f"{LONG}.bad.deposit", b'{"cents": 5}', "subject", "type"),
    "id-too-long": payload(f"account.{LONG}.deposit", b'{"cents": 5}', "subject", "id"),
    "method-too-long": payload(f"account.bad.{LONG}", b'{"cents": 5}', "subject", "method"),
    "command-id-too-long": payload(f"{DEPOSIT}.{LONG}", b'{"cents": 5}', "subject", "command id"),
    "id-with-slash": payload("account.a/b.deposit", b'{"cents": 5}', "subject", "a/b"),
    "id-with-colon": payload("account.a:b.deposit", b'{"cents": 5}', "subject", "a:b"),
    "id-with-percent": payload("account.%2e.deposit", b'{"cents": 5}', "subject", "%2e"),
    "id-not-ascii": payload("account.zoë.deposit", b'{"cents": 5}', "subject", "zo"),
    "command-id-bad": payload(f"{DEPOSIT}.a=b", b'{"cents": 5}', "subject", "a=b"),
    "too-many-tokens": payload(f"{DEPOSIT}.id.more", b'{"cents": 5}', "subject", "subject"),
    "no-method": payload("account.bad", b'{"cents": 5}', "subject", "subject"),
    "no-id": payload("account", b'{"cents": 5}', "subject", "subject"),
    # headers
    "deadline-passed": Bad(DEPOSIT, b'{"cents": 5}', 504, "deadline_passed", None, "deadline", {"Cue-Deadline": "1"}),
    "deadline-text": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "Cue-Deadline", "milliseconds", {"Cue-Deadline": "soon"}),
    "deadline-negative": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "Cue-Deadline", "milliseconds", {"Cue-Deadline": "-5"}),
    "deadline-huge": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "Cue-Deadline", "milliseconds", {"Cue-Deadline": "9" * 30}),
    "message-id-bad": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "Nats-Msg-Id", "letters", {"Nats-Msg-Id": "a.b"}),
    "message-id-long": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "Nats-Msg-Id", "letters", {"Nats-Msg-Id": LONG}),
    "correlation-bad": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "Cue-Correlation-Id", "letters", {"Cue-Correlation-Id": "a b"}),
    "causation-bad": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "Cue-Causation-Id", "letters", {"Cue-Causation-Id": "a*"}),
    "headers-too-large": Bad(DEPOSIT, b'{"cents": 5}', 400, "bad_payload", "headers", "16,384", {"traceparent": "0" * 17_000}),
    # sizes
    "oversize": Bad(NOTE, sized(MIB + 1), 413, "too_large", None, "1,048,576"),
    "far-oversize": Bad(NOTE, sized(2 * MIB - 4_096), 413, "too_large", None, "1,048,576"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_bad_input_is_refused_with_its_code_and_leaves_nothing(probe_client: Client, name: str) -> None:
    bad = CASES[name]
    before = await positions(probe_client)
    found = await ask(probe_client, bad.tail, bad.body, headers=bad.headers)
    assert (found.code, found.body.get("error")) == (bad.code, bad.error), found
    assert found.body["code"] == bad.code
    assert (found.body["outcome"], found.body["retryable"]) == ("not_done", False)
    assert found.body.get("field") == bad.field, found.body
    assert bad.says.lower() in found.body["message"].lower(), found.body
    assert len(found.body["message"]) < 400
    assert "Traceback" not in found.body["message"]
    assert found.headers["Nats-Service-Error"].startswith(bad.error)
    assert await positions(probe_client) == before
    # The worker lives, and the actor takes the next command.
    assert (await ask(probe_client, "account.bad.balance")).body == 0


GOOD: dict[str, tuple[str, bytes, Any]] = {
    "int64-max": ("probe.edge-1.note", b'{"text": "x", "data": 9223372036854775807, "count": 0}', 0),
    "int64-min": ("probe.edge-2.note", b'{"text": "x", "data": -9223372036854775808, "count": 0}', 0),
    "64-levels": ("probe.edge-3.note", nested(63), 1),
    "surrogate-pair": ("probe.edge-4.note", b'{"text": "\\ud83d\\ude00"}', 1),
    "escaped-nul": ("probe.edge-5.note", b'{"text": "a\\u0000b"}', 1),
    "largest-names": (f"probe.{'y' * 64}.note.{'z' * 64}", b'{"text": "x"}', 1),
    "brackets-in-text": ("probe.edge-6.note", json.dumps({"text": "[" * 500}).encode(), 1),
    "whitespace": ("probe.edge-7.note", b' \r\n\t{ "text" : "x" } \n', 1),
    "deadline-ahead": ("probe.edge-8.note", b'{"text": "x"}', 1),
}


@pytest.mark.parametrize("name", GOOD)
async def test_what_is_just_inside_the_bounds_is_taken(probe_client: Client, name: str) -> None:
    tail, body, reply = GOOD[name]
    found = await ask(probe_client, tail, body, headers={"Cue-Deadline": SOON} if name == "deadline-ahead" else None)
    assert (found.code, found.body) == (None, reply)
    (event,) = await stream_events(probe_client, "/".join(tail.split(".")[:2]))
    given = json.loads(body)
    assert event["payload"] == {"text": given["text"], "count": given.get("count", 1), "data": given.get("data")}


async def test_arguments_whose_event_is_too_large_leave_nothing(probe_client: Client) -> None:
    """The arguments fit, the event around them does not: 413 before the append (S12)."""
    before = await positions(probe_client)
    found = await ask(probe_client, "probe.bad.note", sized(MIB))
    assert (found.code, found.body["error"], found.body["outcome"]) == (413, "too_large", "not_done")
    assert await positions(probe_client) == before


async def test_large_arguments_are_taken_whole(probe_client: Client) -> None:
    body = sized(MIB - 1_024)
    assert (await ask(probe_client, "probe.large.note", body)).body == 1
    assert (await ask(probe_client, "probe.large.seen")).body["last"] == json.loads(body)["text"]


async def test_a_reused_id_is_refused_and_names_the_id(probe_client: Client) -> None:
    assert (await ask(probe_client, "account.reuse.deposit.one", {"cents": 5})).body == 5
    before = await positions(probe_client)
    others: list[tuple[str, dict[str, Any]]] = [
        ("account.reuse.deposit.one", {"cents": 6}),
        ("account.reuse.withdraw.one", {"cents": 5}),
        ("account.reuse.transfer.one", {"cents": 5, "to": "x"}),
    ]
    for tail, body in others:
        found = await ask(probe_client, tail, body)
        assert (found.code, found.body["error"], found.body["outcome"]) == (409, "id_reused", "not_done"), (tail, found)
        assert found.body["command_id"] == "one"
    header = await ask(probe_client, "account.reuse.deposit", {"cents": 7}, headers={"Nats-Msg-Id": "one"})
    assert (header.code, header.body["error"]) == (409, "id_reused")
    # Another spelling of the same arguments is the same command; the same id to another actor is another command.
    assert (await ask(probe_client, "account.reuse.deposit.one", b'{ "cents" :5}')).body == 5
    assert await positions(probe_client) == before
    assert (await ask(probe_client, "account.reuse-other.deposit.one", {"cents": 6})).body == 6


async def test_s24_under_its_id_a_refused_command_stays_refused_and_without_one_it_leaves_no_trace(probe_client: Client) -> None:
    assert (await ask(probe_client, "account.again.withdraw.w-1", {"cents": 5})).code == 409
    assert (await ask(probe_client, "account.again.withdraw", {"cents": 5})).code == 409
    await ask(probe_client, "account.again.deposit", {"cents": 5})
    assert (await ask(probe_client, "account.again.withdraw.w-1", {"cents": 5})).code == 409
    assert (await ask(probe_client, "account.again.withdraw", {"cents": 5})).body == 0


async def test_a_refusal_after_an_emit_leaves_nothing(probe_client: Client) -> None:
    before = await positions(probe_client)
    found = await ask(probe_client, "probe.half.refuse", {"text": "x"})
    assert (found.code, found.body["error"], found.body["text"]) == (409, "rejected", "x")
    assert await positions(probe_client) == before
    assert (await ask(probe_client, "probe.half.seen")).body == {"count": 0, "last": ""}


LOG_CASES: dict[str, tuple[str, bytes, int, str | None]] = {
    "unknown-operation": ("reed", b"{}", 404, None),
    "malformed": ("read", b"{", 400, None),
    "not-utf8": ("read", b"\xff", 400, None),
    "array": ("read", b"[]", 400, None),
    "unknown-field": ("read", b'{"streem": "account/1"}', 400, "streem"),
    "missing": ("state", b"{}", 400, "stream"),
    "wrong-type": ("read", b'{"shard": "one"}', 400, "shard"),
    "negative": ("read", b'{"shard": -1}', 400, "shard"),
    "no-such-shard": ("read", b'{"shard": 4}', 400, "shard"),
    "bad-stream": ("read", b'{"stream": "account"}', 400, "stream"),
    "limit-too-high": ("read", b'{"shard": 0, "limit": 1000000}', 400, "limit"),
    "no-such-stream": ("state", b'{"stream": "account/nobody-at-all"}', 404, None),
    "no-such-stream-head": ("head", b'{"stream": "account/nobody-at-all"}', 404, None),
    "bad-filter": ("read", b'{"filter": "colour:red"}', 400, "filter"),
}


@pytest.mark.parametrize("name", LOG_CASES)
async def test_bad_questions_to_the_log_are_refused(probe_client: Client, name: str) -> None:
    operation, body, code, field = LOG_CASES[name]
    found = answer_of(await probe_client.request(f"cue.log.{operation}", body, timeout=10))
    assert found.code == code, found
    assert found.body["code"] == code
    assert found.body.get("field") == field, found.body
    assert found.body["message"]
