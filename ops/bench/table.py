"""The rows of the bench, and who prepares what they need. The bounds are explained in PERFORMANCE.md."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from ops.bench.case_names import ECHO_1, ECHO_100, SQLITE_1, SQLITE_100, SQLITE_REPLAY
from ops.bench.measure import Cases, Measure, Setting

_ONE, _HUNDRED = "bare SQLite, 1 event per commit", "bare SQLite, 100 events per commit"
_ECHO_ONE, _ECHO_HUNDRED = "nats-py echo, 1 in flight", "nats-py echo, 100 in flight"
_OLD_CACHE: Final = "the predecessor's way: a get of redis-py each, json"
_IN_THE_LOOP: Final = "the same view on sqlite3 in the loop, a commit each"
_OLD, _OLD_JOB = "predecessor-job", "the predecessor's way"

MEASURES: Final = (
    Measure(
        name="in-process-1", theme="commands", title="in process, 1 in flight", limit=SQLITE_1, limit_title=_ONE, target=0.45, good=0.65
    ),
    Measure(
        name="in-process-100", theme="commands", title="in process, 100 in flight, 1,000 actors", limit=SQLITE_100, limit_title=_HUNDRED,
        target=0.25, good=0.5,
    ),
    Measure(
        name="in-process-one", theme="commands", title="in process, 100 in flight, one actor", limit=SQLITE_100, limit_title=_HUNDRED,
        target=0.25, good=0.7,
    ),
    Measure(
        name="in-process-tail", theme="commands", title="in process, 100 in flight: p99 / p50", case="in-process-100", figure="tail",
        target=4, good=2.5,
    ),
    Measure(name="appends-100", theme="commands", title="group commit, 100 waiting", limit=SQLITE_100, limit_title=_HUNDRED),
    Measure(name="nats-1", theme="nats", title="ask over NATS, 1 in flight", limit=ECHO_1, limit_title=_ECHO_ONE, target=0.33, good=0.45),
    Measure(
        name="nats-100", theme="nats", title="ask over NATS, 100 in flight", limit=ECHO_100, limit_title=_ECHO_HUNDRED,
        target=0.33, good=0.5,
    ),
    Measure(
        name="nats-tail", theme="nats", title="ask over NATS, 100 in flight: p99 / p50", case="nats-100", figure="tail", target=4, good=2.5
    ),
    Measure(name="client-1", theme="nats", title="the same by our client, 1 in flight", limit=ECHO_1, limit_title=_ECHO_ONE),
    Measure(name="client-100", theme="nats", title="the same by our client, 100 in flight", limit=ECHO_100, limit_title=_ECHO_HUNDRED),
    Measure(name="worker-memory", theme="nats", title="resident memory of that worker", figure="bytes"),
    Measure(
        name="replay", theme="replay", title="full replay to state", limit=SQLITE_REPLAY, limit_title="bare fetch, decode, apply",
        target=0.4, good=0.8,
    ),
    Measure(
        name="cold-start", theme="cold", title="cold start of an actor with 1,000 events", limit="sqlite-stream",
        limit_title="bare read, decode, apply of these rows", target=0.5, good=0.8,
    ),
    Measure(
        name="cold-start-all", theme="cold", title="the same where it has no snapshot", limit="sqlite-stream",
        limit_title="bare read, decode, apply of these rows",
    ),
    Measure(
        name="actors-many", theme="actors", title="100 in flight over 100,000 actors", limit="actors-few", limit_title="over 1,000 actors",
        target=0.7, good=0.9,
    ),
    Measure(
        name="idle-bytes", theme="idle", title="bytes per idle live actor, without its state", figure="bytes", target=2_000, good=900
    ),
    Measure(
        name="workers-nats", theme="workers", title="2 workers over NATS, 200 in flight", limit="workers-nats-1",
        limit_title="1 worker, the same load", target=1.5, good=1.7,
    ),
    Measure(
        name="workers-embedded", theme="embedded", title="2 processes that embed the runtime, a log each, 100 in flight each",
        limit="workers-embedded-1", limit_title="1 process", target=1.5, good=1.7,
    ),
    Measure(
        name="growth", theme="growth", title="append, 100 per commit, at 1,000,000 events of 20,000 streams in random order",
        limit="growth-small", limit_title="at 10,000 events", target=0.4, good=0.6,
    ),
    Measure(
        name="loop-lag", theme="lag", title="event-loop lag p99, 100 commands in flight", figure="lag", limit="loop-bare",
        limit_title="bare loop", target=5, good=2,
    ),
    Measure(
        name="loop-lag-appends", theme="lag", title="event-loop lag p99, 100 appends waiting", figure="lag", limit="loop-bare",
        limit_title="bare loop", target=5, good=2,
    ),
    Measure(
        name="peer-autogen", theme="peers", title="durable ask, 100 in flight", case="peer-ask", limit="autogen",
        limit_title="autogen-core ask in memory, 100 in flight", target=2, good=5,
    ),
    Measure(
        name="peer-eventsourcing", theme="peers", title="durable command, 100 in flight", case="peer-ask", limit="eventsourcing",
        limit_title="eventsourcing on SQLite, aggregates in memory", target=6, good=15,
    ),
    Measure(
        name="graph-1", theme="graphs", title="LangGraph runs of 10 nodes, one at a time", limit="graph-sqlite-1",
        limit_title="LangGraph's AsyncSqliteSaver", target=1.5,
    ),
    Measure(
        name="graph-20", theme="graphs", title="LangGraph runs of 10 nodes, 20 at once", limit="graph-sqlite-20",
        limit_title="LangGraph's AsyncSqliteSaver", target=3,
    ),
    Measure(
        name="predecessor", theme="predecessor", title="the predecessor's job by the runtime", case="predecessor-cuebook", limit=_OLD,
        limit_title=_OLD_JOB, target=1.7,
    ),
    Measure(name="predecessor-uvloop", theme="predecessor", title="its way, on uvloop", limit=_OLD, limit_title=_OLD_JOB),
    Measure(name="predecessor-msgspec", theme="predecessor", title="its way, with msgspec", limit=_OLD, limit_title=_OLD_JOB),
    Measure(
        name="predecessor-now", theme="predecessor", title="its way, uvloop and msgspec: its state then", limit=_OLD, limit_title=_OLD_JOB
    ),
    Measure(
        name="predecessor-aiosqlite", theme="predecessor", title="its way, with aiosqlite, a commit each", limit=_OLD, limit_title=_OLD_JOB
    ),
    Measure(
        name="predecessor-planned", theme="predecessor", title="its way, with uvloop, msgspec and aiosqlite: its plan", limit=_OLD,
        limit_title=_OLD_JOB,
    ),
    Measure(
        name="predecessor-group-commit", theme="predecessor", title="its way, with WAL and group commit", limit=_OLD, limit_title=_OLD_JOB
    ),
    Measure(name="predecessor-all", theme="predecessor", title="its way, with all of these", limit=_OLD, limit_title=_OLD_JOB),
    Measure(
        name="predecessor-lag", theme="predecessor", title="event-loop lag p99, its way with aiosqlite", case="predecessor-aiosqlite",
        figure="lag", limit=_OLD, limit_title=_OLD_JOB,
    ),
    Measure(
        name="json-encode", theme="json", title="JSON encode of a 1 KB event", limit="json-encode-stdlib", limit_title="json.dumps",
        target=2, good=8,
    ),
    Measure(
        name="json-decode", theme="json", title="JSON decode of a 1 KB event", limit="json-decode-stdlib", limit_title="json.loads",
        target=2, good=4,
    ),
    Measure(
        name="cache-recent", theme="cache", title="cached result that the process has itself, 100 in flight", limit="cache-old",
        limit_title=_OLD_CACHE, target=5, good=15,
    ),
    Measure(
        name="cache-server", theme="cache", title="cached result from Valkey, sealed and pipelined, 100 in flight", limit="cache-old",
        limit_title=_OLD_CACHE, target=1.0, good=2,
    ),
    Measure(
        name="memo-review", theme="memo", title="of what a review asks classifier, capabilities, registry: spared by memos", figure="share",
        target=0.5, good=0.9,
    ),
    Measure(
        name="claims-tasks", theme="claims", title="10,000 concurrent tasks, uvloop", limit="claims-tasks-asyncio", limit_title="asyncio"
    ),
    Measure(
        name="claims-tcp", theme="claims", title="TCP echo, 100 connections, uvloop", limit="claims-tcp-asyncio", limit_title="asyncio"
    ),
    Measure(
        name="claims-json", theme="claims", title="JSON there and back, dict of 100 keys, msgspec", limit="claims-json-stdlib",
        limit_title="stdlib json",
    ),
    Measure(
        name="claims-cache", theme="claims", title="1 KB value to a socket and back, msgspec", limit="claims-cache-stdlib",
        limit_title="stdlib json",
    ),
    Measure(
        name="claims-queries", theme="claims", title="100 concurrent memory queries, aiosqlite", limit="claims-queries-sync",
        limit_title="sqlite3 in the loop, a connection each",
    ),
    Measure(
        name="claims-queries-lag", theme="claims", title="event-loop lag p99 of these, aiosqlite", case="claims-queries", figure="lag",
        limit="claims-queries-sync", limit_title="sqlite3 in the loop, a connection each",
    ),
    Measure(
        name="meaning-hash-1", theme="meaning", title="300 names and docstrings: its own first, words hashed", case="hash-1",
        figure="share", target=0.44, good=0.7,
    ),
    Measure(
        name="meaning-hash-5", theme="meaning", title="300 names and docstrings: its own among the first five, words hashed", case="hash-5",
        figure="share", target=0.73, good=0.87,
    ),
    Measure(
        name="meaning-minilm-1", theme="meaning", title="300 names and docstrings: its own first, MiniLM", case="minilm-1",
        figure="share", target=0.5, good=0.75,
    ),
    Measure(
        name="meaning-minilm-5", theme="meaning", title="300 names and docstrings: its own among the first five, MiniLM", case="minilm-5",
        figure="share", target=0.79, good=0.88,
    ),
    Measure(
        name="meaning-fused-1", theme="meaning", title="300 names and docstrings: its own first, both fused", case="fused-1",
        figure="share", target=0.5, good=0.76,
    ),
    Measure(
        name="meaning-fused-5", theme="meaning", title="300 names and docstrings: its own among the first five, both fused", case="fused-5",
        figure="share", target=0.82, good=0.9,
    ),
    Measure(
        name="memory-recall-10k", theme="memory", title="recall among 10,000 memories, p50", case="memory-few", figure="p50",
    ),
    Measure(
        name="memory-recall-10k-p99", theme="memory", title="recall among 10,000 memories, p99", case="memory-few", figure="p99",
    ),
    Measure(
        name="memory-recall-100k", theme="memory", title="recall among 100,000 memories, p50", case="memory-many", figure="p50",
        only_asked_for=True,
    ),
    Measure(
        name="memory-recall-100k-p99", theme="memory", title="recall among 100,000 memories, p99", case="memory-many", figure="p99",
        only_asked_for=True,
    ),
    Measure(
        name="memory-agents", theme="memory", title="ten agents among 10,000 memories, 100 recalls and writes in flight",
        limit="memory-sync", limit_title=_IN_THE_LOOP,
    ),
    Measure(
        name="memory-blocking", theme="memory", title="how long each of these holds the event loop up", case="memory-agents",
        figure="blocked", limit="memory-sync", limit_title=_IN_THE_LOOP, target=0.1, good=0.05,
    ),
    Measure(
        name="memory-lag", theme="memory", title="event-loop lag p99 of these", case="memory-agents", figure="lag", limit="memory-sync",
        limit_title=_IN_THE_LOOP, target=100, good=20,
    ),
    Measure(
        name="vectors-graphs", theme="vectors", title="search among 100,000 vectors of 384 numbers, hnswlib", limit="vectors-exact",
        limit_title="numpy, all compared", target=1.5, good=3,
    ),
    Measure(
        name="vectors-recall", theme="vectors", title="of the ten nearest, found by hnswlib", case="vectors-graphs-share", figure="share",
        target=0.95, good=0.99,
    ),
    Measure(
        name="vectors-exact-tenth", theme="vectors", title="search among 10,000 vectors, all compared", limit="vectors-exact",
        limit_title="numpy, all compared",
    ),
)  # fmt: skip


def selected(names: Sequence[str]) -> list[Measure]:
    """The measures called `names`; ``nats`` stands for every ``nats-...``; no names for all but those that are `only_asked_for`.

    Raises:
        ValueError: a name that fits none.
    """
    for name in names:
        if not any(_fits(measure, name) for measure in MEASURES):
            raise ValueError(name)
    if not names:
        return [measure for measure in MEASURES if not measure.only_asked_for]
    return [measure for measure in MEASURES if any(_fits(measure, name) for name in names)]


def _fits(measure: Measure, name: str) -> bool:
    return measure.name == name or measure.name.startswith(f"{name}-")


Preparation = Callable[[Setting], AbstractAsyncContextManager[Cases]]


def preparation(theme: str) -> Preparation:
    """What starts all that the measures of `theme` need, and stops it at the end. Imported when it is needed: NATS, peers and the like."""
    match theme:
        case "commands":
            from ops.bench.in_process import command_cases

            return command_cases
        case "nats":
            from ops.bench.over_nats import nats_cases

            return nats_cases
        case "replay":
            from ops.bench.replay import replay_cases

            return replay_cases
        case "cold":
            from ops.bench.cold import cold_cases

            return cold_cases
        case "actors":
            from ops.bench.actors import actor_cases

            return actor_cases
        case "idle":
            from ops.bench.idle import idle_cases

            return idle_cases
        case "workers":
            from ops.bench.workers_nats import worker_cases

            return worker_cases
        case "embedded":
            from ops.bench.embedded import embedded_cases

            return embedded_cases
        case "growth":
            from ops.bench.growth import growth_cases

            return growth_cases
        case "lag":
            from ops.bench.lag import lag_cases

            return lag_cases
        case "peers":
            from ops.bench.peers import peer_cases

            return peer_cases
        case "graphs":
            from ops.bench.graphs import graph_cases

            return graph_cases
        case "predecessor":
            from ops.bench.predecessor import predecessor_cases

            return predecessor_cases
        case "json":
            from ops.bench.json_codec import json_cases

            return json_cases
        case "cache":
            from ops.bench.cache import cache_cases

            return cache_cases
        case "memo":
            from ops.bench.memo import memo_cases

            return memo_cases
        case "claims":
            from ops.bench.claims import claim_cases

            return claim_cases
        case "meaning":
            from ops.bench.meaning import meaning_cases

            return meaning_cases
        case "memory":
            from ops.bench.memory import memory_cases

            return memory_cases
        case "vectors":
            from ops.bench.vectors import vector_cases

            return vector_cases
        case _:
            raise ValueError(theme)
