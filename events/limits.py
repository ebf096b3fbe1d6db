"""Every bound of the system in one place, with the relations between them checked at import (S12, S13, design.md 11)."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# One message or record (S12). Embedded servers allow 2 MiB so that 1 MiB of arguments and its headers always fit.
ARGUMENTS_BYTES_MAX: Final = 1 * MIB
REPLY_BYTES_MAX: Final = 1 * MIB
EVENT_BYTES_MAX: Final = 1 * MIB
HEADERS_BYTES_MAX: Final = 16 * KIB
PUBLISH_RESERVE_BYTES: Final = 1 * KIB
SERVER_PAYLOAD_BYTES_MAX: Final = 2 * MIB

# One turn and one commit (S12).
TURN_BYTES_MAX: Final = 4 * MIB
TURN_EVENTS_MAX: Final = 1_000
COMMIT_BYTES_MAX: Final = 16 * MIB
COMMIT_TURNS_MAX: Final = 1_000
OUTCOMES_AT_ONCE: Final = 16
"""So many turns end before the loop looks after something else: each makes about 40 us of work, its caller's next command included."""
MESSAGES_AT_ONCE: Final = 32
"""So many messages are taken, or turns decided by one actor, before the loop looks after something else."""

# JSON at the edge (S13).
JSON_DEPTH_MAX: Final = 64
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
SUMMARY_BYTES_MAX: Final = 200

# Actors.
MAILBOX_MAX: Final = 1_024
BYPASS_MAX: Final = 64
STORED_LOADED_MAX: Final = 256
STORED_LOADED_LOW: Final = 64
STORED_PER_SHARD_MAX: Final = 10_000
# Per shard: about 1.2 KB each beside their states, so that 100,000 actors of four shards stay live (`cuebook bench actors-many`).
LIVE_ACTORS_MAX: Final = 30_000
LIVE_ACTORS_BUSY_MAX: Final = 100_000
LIVE_STATE_BYTES_MAX: Final = 64 * MIB
PIPELINE_MAX: Final = 256
"""Short turns of one actor decided on the spot and not committed yet; beyond them commands wait in the mailbox, which is bounded."""
WAITS_PER_ACTOR_MAX: Final = 100
CALL_CHAIN_MAX: Final = 32
OUTBOX_PER_PAIR_MAX: Final = 10_000
OUTBOX_PER_SHARD_MAX: Final = 100_000
TIMER_ID_CHARACTERS: Final = 40
SNAPSHOT_EVENTS: Final = 500
SNAPSHOT_BYTES: Final = 256 * KIB
STATE_HASH_EVERY: Final = 100

# Time.
ASK_DEADLINE_S: Final = 30.0
STALL_AFTER_S: Final = 5.0
WRITE_LOCK_S: Final = 1.0
STOPPED_WRITE_LOCK_S: Final = 0.05
"""Who is stopped by a signal lets go of no lock: waiting for it helps nobody. (One that gets the lock at once did not hold it.)"""
LOOP_BLOCKED_S: Final = 15.0
PAUSE_NOTICED_S: Final = 2.0
PASSIVATE_AFTER_S: Final = 300.0
DRAIN_S: Final = 30.0
RETRY_FIRST_S: Final = 0.1
RETRY_FACTOR: Final = 4.0
RETRY_MAX_S: Final = 30.0
RETRY_ATTEMPTS_MAX: Final = 5
LETTERS_PER_CALL_MAX: Final = 100
RESTARTS_MAX: Final = 5
RESTART_WINDOW_S: Final = 60.0
RESTART_FIRST_S: Final = 0.1
FULL_RETRY_S: Final = 1.0
QUARANTINE_LOOK_S: Final = 2.0
TELL_KEPT_S: Final = 3 * 24 * 3600
INBOX_KEPT_S: Final = 7 * 24 * 3600

# The cache (S37). A value that is larger is computed again.
CACHE_TTL_MAX_S: Final = 86_400.0
CACHE_VALUE_BYTES_MAX: Final = 256 * KIB
CACHE_RECENT_MAX: Final = 4_096
CACHE_RECENT_BYTES_MAX: Final = 64 * MIB
CACHE_SERVER_BYTES_MAX: Final = 256 * MIB

# The log.
SHARDS_MIN: Final = 4
PAGE_EVENTS_MAX: Final = 1_000
# Looked through in one read by a filter, found or not: 0.1 s here.
SELECT_ROWS_MAX: Final = 250_000
STREAM_PAGE_VERSIONS: Final = 256
HEADS_FLUSH_EVENTS: Final = 10_000
# 0.1 s at a takeover.
INDEX_ROWS_CHECKED: Final = 20_000
LOAD_STREAMS_MAX: Final = 64
LOAD_EVENTS_MAX: Final = 2_000
READERS_PER_SHARD: Final = 2

_RELATIONS = (
    (ARGUMENTS_BYTES_MAX + HEADERS_BYTES_MAX + PUBLISH_RESERVE_BYTES <= SERVER_PAYLOAD_BYTES_MAX, "arguments fit the server"),
    (EVENT_BYTES_MAX <= TURN_BYTES_MAX <= COMMIT_BYTES_MAX, "an event fits a turn, a turn fits a commit"),
    (MAILBOX_MAX >= COMMIT_TURNS_MAX, "one commit can be filled from one mailbox"),
    (STORED_LOADED_LOW < STORED_LOADED_MAX <= STORED_PER_SHARD_MAX, "a mailbox is filled again before it is empty"),
    (LIVE_ACTORS_MAX <= LIVE_ACTORS_BUSY_MAX, "idle actors go before busy ones are refused"),
    (STALL_AFTER_S < LOOP_BLOCKED_S, "a stall is seen before a blocked loop gives up its shards"),
)
for _holds, _what in _RELATIONS:
    if not _holds:
        raise ValueError(f"events/limits.py: {_what}")
