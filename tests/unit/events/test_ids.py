"""Names that may stand in subjects and paths, and the shard hash that nats-server computes too (S8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.ids import is_tag, is_token, parse_stream_id, shard_of, stream_id

tokens = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@pytest.mark.parametrize("token", ["a", "A-1_b", "0", "-", "_", "x" * 64])
def test_a_token_is_letters_digits_and_two_signs(token: str) -> None:
    assert is_token(token)


@pytest.mark.parametrize("text", ["", "x" * 65, "a.b", "a*", ">", "a b", "a/b", "ä", "a\n", "\n", "a\x00", "١"])
def test_what_could_be_an_injection_is_no_token(text: str) -> None:
    assert not is_token(text)
    with pytest.raises(ValueError, match="not a name"):
        stream_id("account", text)


@given(tokens, tokens)
def test_a_stream_id_comes_apart_as_it_was_put_together(type_name: str, key: str) -> None:
    assert parse_stream_id(stream_id(type_name, key)) == (type_name, key)


@pytest.mark.parametrize("text", ["", "account", "account/", "/42", "a/b/c", "account/4 2"])
def test_anything_else_is_no_stream_id(text: str) -> None:
    with pytest.raises(ValueError, match="TYPE/ID"):
        parse_stream_id(text)


@pytest.mark.parametrize("tag", ["account.deposited", "a.b", "agent.tool_called.twice", "a1.b_2"])
def test_a_tag_is_dotted_lower_case_words(tag: str) -> None:
    assert is_tag(tag)


@pytest.mark.parametrize(
    "text", ["", "account", "Account.deposited", "a.", ".a", "a..b", "a.1", "a b.c", "a-b.c", "a." + "b" * 127, "a.b\n"]
)
def test_anything_else_is_no_tag(text: str) -> None:
    assert not is_tag(text)


@pytest.mark.parametrize(
    ("text", "digest"),
    # The FNV authors' vectors for FNV-1a 32 (isthe.com/chongo/src/fnv/test_fnv.c).
    [("a", 0xE40C292C), ("b", 0xE70C2DE5), ("fo", 0x6222E842), ("foobar", 0xBF9CF968), ("chongo was here!\n", 0xD49930D5)],
)
def test_the_shard_hash_is_fnv_1a_32(text: str, digest: int) -> None:
    for shards in (1, 2, 4, 7, 1_000_003, 2**32):
        assert shard_of(text[:1], text[1:], shards) == digest % shards


def test_the_shards_share_streams_evenly() -> None:
    counts = [0, 0, 0, 0]
    for number in range(10_000):
        counts[shard_of("account", str(number), 4)] += 1
    assert max(counts) < 1.15 * min(counts)
