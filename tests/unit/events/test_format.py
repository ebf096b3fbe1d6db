"""FORMAT.md says what the code does: envelope, tables, worked example, anchor layout."""

import hashlib
import json
import re
import struct
import zlib
from pathlib import Path

import events
from events.appending import record
from events.envelope import ENVELOPE_FIELDS, GENESIS_HASH, Kind, NewEvent, chain_hash, rolling_hash, row_check
from events.limits import HEADS_FLUSH_EVENTS, INBOX_KEPT_S, STREAM_PAGE_VERSIONS
from events.sqlite.anchor import Anchor, encode_slot
from events.sqlite.rows import EVENT_COLUMNS, event_check
from events.sqlite.schema import MIGRATIONS
from events.sqlite.sqlite_library import library as sqlite
from events.store import Append

FORMAT = (Path(events.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return FORMAT.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def test_the_envelope_table_lists_the_fields_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("2. The envelope"), re.MULTILINE)
    assert tuple(rows) == ENVELOPE_FIELDS


def test_the_events_table_holds_the_envelope_and_nothing_unexplained() -> None:
    """Complete from the first commit: it cannot be added later."""
    extra = {"stream_id", "prev_position", "row_check", "payload_digest"}
    assert set(EVENT_COLUMNS) == set(ENVELOPE_FIELDS) - {"shard", "stream"} | extra
    assert all(f"`{column}`" in section("3. Tables") for column in extra)


def test_every_table_and_column_of_the_schema_is_explained() -> None:
    connection = sqlite.connect(":memory:")
    for _, statements in MIGRATIONS:
        for statement in statements:
            connection.execute(statement)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()]
    words = set(re.findall(r"[a-z_]+", FORMAT))
    for table in tables:
        assert table in words, table
        for column in connection.execute(f"PRAGMA table_info({table})").fetchall():
            # `one` only keeps a table to one row.
            assert column[1] in words or column[1] == "one", (table, column[1])
    connection.close()


def test_the_numbers_in_the_text_are_the_limits() -> None:
    assert f"{HEADS_FLUSH_EVENTS:,} events" in FORMAT
    assert f"multiple of {STREAM_PAGE_VERSIONS}" in FORMAT
    assert f"{INBOX_KEPT_S // 86_400} days" in FORMAT


def test_every_event_type_of_ours_has_a_kind() -> None:
    rows = re.findall(r"^\| (\w+) \| `([a-z.]+)` \|", section("7. Event types"), re.MULTILINE)
    assert len(rows) == len({type_ for _, type_ in rows}) >= 21
    assert {kind for kind, _ in rows} == {Kind.CONTROL, Kind.STEP, Kind.TIMER, Kind.MESSAGE}


def test_the_worked_example_recomputes_with_nothing_but_json_and_sha256() -> None:
    """S27, as a reader in another language would do it."""
    example = section("4. Hashes").split("### A worked example")[1]
    given = dict(re.findall(r"^    (\w+) += (.+)$", example, re.MULTILINE))
    digest = hashlib.sha256(bytes(range(16)) + b'{"cents":500}').hexdigest()
    assert digest == given["digest"]
    fields = json.loads(given["array"])
    assert fields[-1] == digest
    hashed = hashlib.sha256(bytes(32) + given["array"].encode()).digest()
    assert hashed.hex() == given["hash"]
    assert hashlib.sha256(bytes(32) + hashed).hexdigest() == given["rolling"]
    check = re.search(r"`row_check` = (\d+), the CRC-32 of `(.+)`", example)
    assert check is not None
    assert zlib.crc32(check[2].encode()) == int(check[1])


def test_the_code_computes_the_worked_example() -> None:
    example = section("4. Hashes").split("### A worked example")[1]
    given = dict(re.findall(r"^    (\w+) += (.+)$", example, re.MULTILINE))
    event, _, hashed = record(
        Append(stream="account/42", expected_version=0, command_id="c1", causation_id="c1", correlation_id="c1"),  # type: ignore[arg-type]
        NewEvent(type="account.deposited", payload=b'{"cents":500}'),
        shard=0,
        position=1,
        version=1,
        time=1_700_000_000_000_000,
        now_us=1_700_000_000_000_000,
        epoch=1,
        entropy=bytes(range(16)) + bytes.fromhex("00deadbeef01")[1:],
        previous_hash=GENESIS_HASH,
    )
    assert event.event_id == "060a24181e4000deadbeef01"
    assert event.hash == hashed.hex() == given["hash"]
    assert rolling_hash(GENESIS_HASH, hashed).hex() == given["rolling"]
    assert str(event_check(1, 0, 1, *[None] * 8)) in example


def test_hashed_json_escapes_only_what_the_text_says() -> None:
    """Any JSON writer that keeps to section 4 gets the same bytes."""
    text = "".join(map(chr, range(0x20))) + '"\\/\x7f\u2028é😀'
    escaped = json.dumps([text], ensure_ascii=False, separators=(",", ":"))
    assert row_check(text) == zlib.crc32(escaped.encode())


def test_the_hash_changes_with_each_of_its_fields() -> None:
    fields = {
        "stream": "a/1", "version": 1, "event_id": "i", "type": "a.b", "schema_version": 1, "kind": "state", "recorded_at_us": 1, "time": 1,
        "command_id": None, "causation_id": None, "correlation_id": None, "sender": None, "branch": "main", "payload_digest": bytes(32),
    }  # fmt: skip
    hashes = {chain_hash(GENESIS_HASH, **fields)}  # type: ignore[arg-type]
    for name, value in fields.items():
        other = {"payload_digest": b"\x01" * 32}.get(name, 2 if isinstance(value, int) else "other")
        hashes.add(chain_hash(GENESIS_HASH, **{**fields, name: other}))  # type: ignore[arg-type]
    hashes.add(chain_hash(b"\x01" * 32, **fields))  # type: ignore[arg-type]
    assert len(hashes) == len(fields) + 2


def test_an_anchor_slot_is_laid_out_as_the_table_says() -> None:
    anchor = Anchor(
        epoch=1, sequence=2, position=3, eventless=4, token=b"t" * 16, incarnation="0a" * 16, rolling_hash=b"r" * 32, event_hash=b"e" * 32,
        device=5, inode=6,
    )  # fmt: skip
    slot = encode_slot(anchor)
    rows = [(int(offset), int(size)) for offset, size in re.findall(r"^\| (\d+) \| (\d+) \|", section("6. Anchor"), re.MULTILINE)]
    parts = [slot[offset : offset + size] for offset, size in rows]
    assert b"".join(parts) == slot
    numbers = [struct.unpack(">Q", parts[index])[0] for index in (1, 2, 3, 4, 9, 10)]
    assert (parts[0], numbers) == (b"CUEANCH1", [1, 2, 3, 4, 5, 6])
    assert parts[5:9] == [b"t" * 16, b"\x0a" * 16, b"r" * 32, b"e" * 32]
    assert parts[11] == hashlib.sha256(slot[:152]).digest()[:16]
