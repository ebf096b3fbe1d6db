"""Scenario 5, with several people: each decision is taken once, by whoever may, in time - over NATS, from several connections at once,
through the death of every worker. Who may not, and who comes second or late, is told so, and stands in the log."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from actors.errors import Rejected
from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook
from tests.support.runs import APP, MINE, Run, kill_all, plan, step

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240), pytest.mark.usefixtures("_nats_program")]
ANNA, BEN, CLEO = ({"session": f"the key of {name}"} for name in ("anna", "ben", "cleo"))
PEOPLE = f"""
[people.anna]
key = "env:ANNA_KEY"
roles = ["lead"]

[people.ben]
key = "sha256:{hashlib.sha256(BEN["session"].encode()).hexdigest()}"
roles = ["lead"]

[people.cleo]
key = "file:{{folder}}/cleo.key"
"""
AT_ONCE = 20


async def decided(run: Run, who: dict[str, Any], verdict: str) -> str | dict[str, Any]:
    """The verdict that was taken, or the fields of the refusal."""
    try:
        return str((await run.ask("decide", version=1, verdict=verdict, **who))["verdict"])
    except Rejected as refused:
        return refused.fields


async def denied(run: Run, who: dict[str, Any]) -> dict[str, Any]:
    """How `who` is refused."""
    found = await decided(run, who, "approved")
    assert not isinstance(found, str)
    return found


async def both(run: int, cue: Client, other: Client) -> tuple[str, dict[str, Any]]:
    """Two people decide about a run at once, each on a connection of his own: the verdict that counts, and what the other is told."""
    name = f"r{run}"
    first, second = await asyncio.gather(decided(Run(cue, name), ANNA, "approved"), decided(Run(other, name), BEN, "rejected"))
    won, lost = (first, second) if isinstance(first, str) else (second, first)
    assert isinstance(won, str), (first, second)
    assert not isinstance(lost, str), (first, second)
    return won, lost


async def test_of_two_who_decide_at_once_one_wins_and_who_may_not_or_is_late_is_refused_across_kills(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "cuebook.toml").write_text(PEOPLE.format(folder=tmp_path))
    (tmp_path / "cleo.key").write_text(CLEO["session"] + "\n")
    with Deployment(data, app=APP, environment={"ANNA_KEY": ANNA["session"]}) as deployment:
        deployment.wait_balanced()
        operator = {"session": (data / "operator.key").read_text().strip()}
        assert (data / "operator.key").stat().st_mode & 0o777 == 0o600
        async with connect(deployment.nats_url) as cue, connect(deployment.nats_url) as other:
            for run in range(AT_ONCE):
                await Run(cue, f"r{run}").asked(plan=plan(step("a")), deciders=["role:lead"])
            outcomes = await asyncio.gather(*(both(run, cue, other) for run in range(AT_ONCE)))
            for won, lost in outcomes:
                winner, loser = ("anna", "ben") if won == "approved" else ("ben", "anna")
                told = {"reason": "decided_before", "standing": won, "by": loser, "decided_by": winner}
                assert {name: lost[name] for name in told} == told

            pending, late, mine = Run(cue, "pending"), Run(cue, "late"), Run(cue, "mine")
            await pending.asked(plan=plan(step("a", ask="Which colour?"), step("b", "a", gate=str(tmp_path / "never"))), deciders=["cleo"])
            await late.asked(plan=plan(step("a")), deciders=["role:lead"], approval_s=1.0)
            await mine.asked(plan=plan(step("a")))
            kill_all(deployment)

            for who, name in ((MINE, "starter"), (ANNA, "anna"), (operator, "operator"), ({"session": "nobody's"}, "")):
                found = await denied(pending, who)
                assert (found["reason"], found["by"], found["deciders"]) == ("not_a_decider", name, ["cleo"])
            for who in (ANNA, operator):
                found = await denied(mine, who)
                assert (found["reason"], found["deciders"]) == ("not_a_decider", ["starter"])
            assert await decided(mine, MINE, "approved") == "approved"
            assert await decided(pending, CLEO, "approved") == "approved"
            await pending.until(lambda status: status["questions"])
            kill_all(deployment)

            with pytest.raises(Rejected, match="ben may not decide"):
                await pending.ask("answer", text="blue", **BEN)
            await pending.ask("answer", text="red", **CLEO)
            assert (await late.ended())["reason"] == "nobody decided in time"
            found = await denied(late, ANNA)
            assert (found["reason"], found["by"]) == ("too_late", "anna")
            assert (await pending.ask("stop", **operator))["outcome"] == "cancelled"

            # At the terminal one is the operator, or whose key one names.
            cli = Run(cue, "cli")
            await cli.asked(plan=plan(step("a")), deciders=["cleo"])
            for key, code in (((), 7), (("--key", f"file:{tmp_path}/cleo.key"), 0)):
                done = await asyncio.to_thread(run_cuebook, "task", "approve", "cli", *key, "--data", str(data))
                assert done.returncode == code, done.stderr
            assert [made["by"] for made in await cli.ask("proposals")] == ["cleo"]
    events = json_lines("log", "actor:task", "-n", "0", "--json", "--data", str(data))
    for run, (won, _) in enumerate(outcomes):
        of_run = [event for event in events if event["stream"] == f"task/r{run}"]
        verdicts = [(event["payload"]["verdict"], event["payload"]["by"]) for event in of_run if event["type"] == "task.decided"]
        assert verdicts == [(won, "anna" if won == "approved" else "ben")]
        assert [event["payload"]["reason"] for event in of_run if event["type"] == "turn.refused"] == ["decided_before"]
    refused = [(event["stream"], event["payload"]["reason"], event["payload"]["by"]) for event in events if event["type"] == "turn.refused"]
    assert refused[-9:] == [
        *(("task/pending", "not_a_decider", name) for name in ("starter", "anna", "operator", "")),
        *(("task/mine", "not_a_decider", name) for name in ("anna", "operator")),
        ("task/pending", "not_a_decider", "ben"), ("task/late", "too_late", "anna"), ("task/cli", "not_a_decider", "operator"),
    ]  # fmt: skip
    keys = [who["session"].encode() for who in (ANNA, BEN, CLEO, MINE, operator)]
    assert not any(key in path.read_bytes() for path in (data / "log").iterdir() for key in keys), "the log holds no key"
    replayed = await asyncio.to_thread(run_cuebook, "replay", "--verify", "--app", APP, "--data", str(data))
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def json_lines(*arguments: str) -> list[dict[str, Any]]:
    done = run_cuebook(*arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
