"""What must be true of one run of ops/examples/offline.py, whatever model its nodes ask: what a client that knows NATS only has heard is
the reply, piece by piece, and what it took stands in the log."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.support.deployment import run_cuebook

APP = "ops.examples.offline:app"
SUBJECT = "cue.chunk.duet.d.run.c-1"
"""Of the run of ``duet/d`` under the command id c-1."""


def recorded(data: Path, stream: str, tag: str) -> list[dict[str, Any]]:
    """The events of that stream and type, from the files."""
    done = run_cuebook("log", f"actor:{stream}", f"type:{tag}", "-n", "0", "--json", "--data", str(data))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_heard(chunks: list[tuple[str, dict[str, Any]]], reply: dict[str, Any]) -> dict[str, int]:
    """Token by token, node by node, to the very text that stands in the graph's values. Returns: how many pieces each node said."""
    *tokens, end = [body for _, body in chunks]
    assert {subject for subject, _ in chunks} == {SUBJECT}
    assert [body["offset"] for body in (*tokens, end)] == list(range(len(tokens) + 1))
    assert (end["data"], end["end"], {body["end"] for body in tokens}) == (None, True, {False})
    said: dict[tuple[str, str], str] = defaultdict(str)
    pieces: dict[str, int] = defaultdict(int)
    for piece in (body["data"] for body in tokens):
        assert piece.keys() == {"graph", "node", "call", "attempt", "offset", "token"}
        assert (piece["graph"], piece["attempt"]) == ([], 1)
        use = (piece["node"], piece["call"])
        assert piece["offset"] == len(said[use])
        said[use] += piece["token"]
        pieces[piece["node"]] += 1
    assert [node for node, _ in said] == ["begin", "reply"], "one call of each node, one after the other"
    assert list(said.values()) == [reply["first"], reply["second"]]
    return pieces


def check_recorded(data: Path, reply: dict[str, Any]) -> list[dict[str, int]]:
    """The answers of the model stand in the log, with what they took, and a replay ends where the run did. Returns: the usage of each."""
    used = [event["payload"]["usage"] for event in recorded(data, "provider/tiny", "provider.call_answered")]
    answers = [event["payload"]["result"] for event in recorded(data, "duet/d", "step.completed") if event["payload"]["name"] == "model"]
    assert used == [answer["usage"] for answer in answers]
    assert [answer["text"] for answer in answers] == [reply["first"], reply["second"]]
    replayed = run_cuebook("replay", "--verify", "--app", APP, "--data", str(data))
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    return used
