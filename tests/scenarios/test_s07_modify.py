"""Scenario 7: a proposal that is changed twice and then approved: three versions, each with what was said to it, and no loop."""

from runtime.client import Client
from tests.support.runs import MINE, Run, standing


async def test_s07_three_versions_each_with_its_feedback(cue: Client) -> None:
    run = Run(cue, "s07")
    first, second = "Use Postgres instead of SQLite", "Bitte ohne Docker, nimm systemd statt dessen"
    await run.asked(planner="planner")
    assert (await run.ask("say", text=first, **MINE))["verdict"] == "modified"
    await run.until(lambda status: status["version"] == 2)
    assert (await run.ask("decide", version=2, verdict="modified", feedback=second, **MINE))["verdict"] == "modified"
    await run.until(lambda status: status["version"] == 3)
    await run.ask("say", text="Ja, passt", **MINE)
    status = await run.ended()
    assert (status["outcome"], standing(status)) == ("done", ["completed", "completed"])
    versions = await run.ask("proposals")
    assert [(each["version"], each["standing"]) for each in versions] == [(1, "modified"), (2, "modified"), (3, "approved")]
    assert [each["feedback"] for each in versions] == [first, second, ""]
    assert [each["answers"] for each in versions] == ["", first, second]
    assert versions[2]["plan"]["summary"] == f"an app | {first} | {second}"
    jobs = await cue.ref("planner", "s07").ask("jobs")
    assert [job["feedback"] for job in jobs] == ["", first, second], "asked once for each version, and not again"
