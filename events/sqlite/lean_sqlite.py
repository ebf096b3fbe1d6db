"""What a fold needs of the rows of `events`, and what their hashes cover, put together by SQLite: a sixth of the price of whole rows.

SQLite's JSON is that of FORMAT.md for nearly every row. Where it is not, or where a row does not verify for another reason, who reads it
reads that row again on its own in the ordinary way, which says what is wrong with it or accepts it. The columns that no hash covers are not
read, since no state is made of them: their row checks are left to who shows them, and to `verify`.
"""

from typing import Final

PAYLOAD_AT: Final = 16
"""Where the payload begins behind its salt."""


ARRAY: Final = (
    "version", "event_id", "type", "schema_version", "kind", "recorded_at_us", "time", "command_id", "causation_id", "correlation_id",
    "sender", "branch",
)  # fmt: skip
"""The columns that the hash covers, in its order, between the stream's name and the payload's digest."""


def clear_body(prefix: str = "") -> str:
    """Whether salt and payload of a row say it all: neither sealed nor erased."""
    return f"{prefix}key_id IS NULL AND {prefix}payload_digest IS NULL AND length({prefix}salt) = {PAYLOAD_AT}"


def state_tag(prefix: str = "") -> str:
    """``tag:schema version`` of a state event, else null."""
    return f"CASE {prefix}kind WHEN 'state' THEN {prefix}type || ':' || {prefix}schema_version END"


def lean_columns(prefix: str = "", only_if: str = "1") -> str:
    """Four columns of `events`: hash; salt and payload in one, null where they say too little (sealed, erased, not `only_if`);
    ``tag:schema version`` of a state event, else null; and the array that the hash covers, but for the stream's name before it and the
    payload's digest at its end: ``[version,...,"branch",""]``."""
    p = prefix
    array = ", ".join(p + name for name in ARRAY)
    return (
        f"{p}hash, CASE WHEN {clear_body(p)} AND {only_if} THEN CAST({p}salt || {p}payload AS BLOB) END, {state_tag(p)}, "
        f"CAST(json_array({array}, '') AS BLOB)"
    )


def array_opening(stream: str) -> bytes:
    """How the array of every event of `stream` begins: what comes before the third column of `lean_columns`, less its bracket."""
    return b'["%b",' % stream.encode()
