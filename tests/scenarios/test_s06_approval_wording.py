"""Scenario 6: what somebody says in his own words, in English or German, is respected; what is not clear is asked back."""

from pathlib import Path

import pytest

from runtime.client import Client
from tests.support.runs import MINE, Run, plan, step

SAID = (
    ("I don't approve", "unclear"), ("Looks wrong, use Postgres", "modified"), ("I know", "unclear"), ("I know a better layout", "unclear"),
    ("Nein", "rejected"), ("Ja, passt", "approved"), ("Looks good, go ahead", "approved"), ("ja?", "unclear"), ("Looks wrong", "unclear"),
    ("Ich bin nicht einverstanden", "unclear"), ("Passt nicht", "unclear"), ("No thanks", "rejected"),
    ("Ja, aber nimm lieber Postgres", "modified"), ("Ich weiß", "unclear"), ("Sieht gut aus, mach das so", "approved"),
)  # fmt: skip
ENGLISH = {"I don't approve", "I know", "I know a better layout", "Looks wrong"}
"""What is asked back in English; the rest in German."""
PHASES = {"approved": {"executing", "ended"}, "rejected": {"ended"}, "unclear": {"awaiting_approval"}, "modified": {"planning"}}


@pytest.mark.parametrize(("number", "text", "verdict"), [(number, *said) for number, said in enumerate(SAID)])
async def test_s06_the_wording_is_respected(cue: Client, tmp_path: Path, number: int, text: str, verdict: str) -> None:
    ledger = tmp_path / "ledger"
    run = Run(cue, f"s06-{number}")
    by = {"planner": "planner"} if verdict == "modified" else {"plan": plan(step("a", ledger=str(ledger)))}
    await run.asked(**by)
    told = await run.ask("say", text=text, **MINE)
    assert told["verdict"] == verdict
    assert told["phase"] in PHASES[verdict]
    assert bool(told["question"]) == (verdict == "unclear")
    if verdict == "unclear":
        assert ("no clear yes" in told["question"], "kein klares Ja" in told["question"]) == (text in ENGLISH, text not in ENGLISH)
    if verdict == "approved":
        assert (await run.ended())["outcome"] == "done"
        assert ledger.read_text() == "a 1\n"
        return
    assert not ledger.exists(), "work has begun against somebody's will"
    if verdict == "unclear":
        assert (await run.ask("status"))["question"] == told["question"]
        assert (await run.ask("say", text="Nein", **MINE))["verdict"] == "rejected", "the proposal stays open"
    if verdict != "modified":
        assert (await run.ended())["outcome"] == "cancelled"
