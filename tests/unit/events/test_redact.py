"""What must not leave the house is taken out of any text and any JSON body, and what is left still has its types."""

import json

import pytest

from events.keeping.redact import REDACTED, Redactor


@pytest.mark.parametrize(
    "text",
    [
        "sk-abcdefghijklmnop1234",
        "ghp_abcdefghijklmnopqrst12",
        "xoxb-1234567890-abc",
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_key_is_taken_out_of_any_text(text: str) -> None:
    redactor = Redactor()
    assert redactor.text(f"failed with {text} today") == f"failed with {REDACTED} today"
    assert redactor.count == 1


def test_the_password_of_an_url_and_a_bearer_token_go_and_what_is_around_them_stays() -> None:
    redactor = Redactor()
    assert redactor.text("redis://user:hunter22@host/1") == f"redis://{REDACTED}@host/1"
    assert redactor.text("Authorization: Bearer abcdefgh12345678") == f"Authorization: Bearer {REDACTED}"


@pytest.mark.parametrize("text", ["a task-force of 12", "the bearer of news", "http://host:80/x@y", "tokens", ""])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    redactor = Redactor()
    assert redactor.text(text) == text
    assert redactor.count == 0


def test_a_named_value_goes_wherever_it_stands_and_keeps_its_type() -> None:
    body = {"name": "Jane Doe", "note": "call Jane Doe, 4711042", "number": 4711042, "deep": [{"Jane Doe": 1}], "other": 4711}
    redactor = Redactor(["Jane Doe", "4711042", "abc"])
    assert json.loads(redactor.body(json.dumps(body).encode())) == {
        "name": REDACTED,
        "note": f"call {REDACTED}, {REDACTED}",
        "number": 0,
        "deep": [{REDACTED: 1}],
        "other": 4711,
    }
    assert redactor.count == 5


@pytest.mark.parametrize("name", ["password", "api_key", "apiKey", "X-Auth", "db_password", "session-token", "Cookie", "client_secret"])
def test_members_that_are_named_like_a_secret_lose_their_text(name: str) -> None:
    assert json.loads(Redactor().body(json.dumps({name: "short", "n": {name: ["a", "b"]}}).encode())) == {
        name: REDACTED,
        "n": {name: [REDACTED, REDACTED]},
    }


def test_counts_of_tokens_are_no_secret_and_a_body_without_any_keeps_its_bytes() -> None:
    body = b'{"tokens": 12, "max_token": 5,\n "author": "x"}'
    assert Redactor(["abc"]).body(body) is body


def test_the_longest_value_wins_where_one_is_part_of_another() -> None:
    assert Redactor(["jane", "jane@example.org"]).text("jane@example.org, jane") == f"{REDACTED}, {REDACTED}"
