"""Scenario 15: the golden samples lead to the action and the agent that they should; a repeat is a memo hit with the same result; words
that are taught empty the memo and hold after a kill; and the router plans runs by them."""

import json
from collections import Counter
from pathlib import Path

import nats
import pytest

from actors.errors import BadPayload, Rejected
from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook
from tests.support.runs import APP, MINE, Run, kill_all
from tests.unit.classifier.test_classify import GOLDEN

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180), pytest.mark.usefixtures("_nats_program")]
SHED = "zimmere eine Hütte für das Fahrrad"


async def memo(url: str, workers: int) -> Counter[str]:
    """Hits, misses and entries of the memo of classifications, over all workers, as any NATS client sees them."""
    client = await nats.connect(url)
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    await client.publish("$SRV.STATS.cuebook", b"", reply=inbox)
    found: Counter[str] = Counter()
    for _ in range(workers):
        reply = json.loads((await replies.next_msg(10)).data)
        found.update({key: reply["memos"]["classifications"][key] for key in ("hits", "misses", "entries")})
    await client.close()
    return found


async def test_s15_the_table_holds_over_nats_and_across_kills(tmp_path: Path) -> None:
    with Deployment(tmp_path / "data", app=APP) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            router = cue.ref("router", "shop", timeout_s=30)
            first = [await router.ask("classify", text=text) for text, _, _ in GOLDEN]
            assert [(found["action"], found["agent"]) for found in first] == [(action, agent) for _, action, agent in GOLDEN]
            assert await memo(deployment.nats_url, 2) == Counter(misses=len(GOLDEN), entries=len(GOLDEN), hits=0)
            assert [await router.ask("classify", text=text) for text, _, _ in GOLDEN] == first
            assert await memo(deployment.nats_url, 2) == Counter(misses=len(GOLDEN), entries=len(GOLDEN), hits=len(GOLDEN))

            assert (await router.ask("classify", text=SHED))["agent"] is None
            await router.ask("teach", version="2", words={"implementation": ["zimmer*"]})
            assert (await memo(deployment.nats_url, 2))["entries"] == 0, "other words empty the memo"
            taught = await router.ask("classify", text=SHED)
            assert (taught["action"], taught["agent"], taught["words_version"]) == ("route_agent", "codesmith", "2")
            assert (await cue.ref("router", "other").ask("classify", text=SHED))["agent"] is None, "another workspace was taught nothing"
            with pytest.raises(BadPayload, match="there is no carpentry"):
                await router.ask("teach", version="3", words={"carpentry": ["zimmer*"]})

            said = [(await router.ask("route", text=SHED, session=session))["stopped"] for session in ("a", "a", "a", "b")]
            assert [bool(why) for why in said] == [False, False, True, False], "a third time within half a minute; not for somebody else"
            kill_all(deployment)
        async with connect(deployment.nats_url) as cue:
            router = cue.ref("router", "shop", timeout_s=30)
            assert await router.ask("classify", text=SHED) == taught
            assert await router.ask("statistics") == {"routed": {"route_agent codesmith": 3}, "stopped": 1}
    shown = run_cuebook("log", "actor:router/shop", "-n", "0", "--json", "--data", str(tmp_path / "data"))
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [event["type"] for event in events] == ["router.taught", *["router.routed"] * 4]
    assert SHED not in json.dumps([event["payload"] for event in events], ensure_ascii=False)


async def test_s15_a_run_without_a_plan_goes_to_whom_its_words_mean(cue: Client) -> None:
    """The router plans it: one step, put to a person like any plan; what means nobody is asked back; an agent that is not here is said."""
    run = Run(cue, "s15-app")
    await run.ask("start", goal="erstelle eine Todo App mit Login", **MINE)
    await run.until(lambda status: status["phase"] == "awaiting_approval")
    (proposal,) = await run.ask("proposals")
    assert [(step["agent"], step["task"]) for step in proposal["plan"]["steps"]] == [("codesmith", "erstelle eine Todo App mit Login")]
    await run.ask("say", text="Use Postgres instead of SQLite", **MINE)
    await run.until(lambda status: status["version"] == 2)
    tasks = (await run.ask("proposals"))[1]["plan"]["steps"][0]["task"]
    assert tasks == "erstelle eine Todo App mit Login\nUse Postgres instead of SQLite"

    unclear = Run(cue, "s15-unclear")
    await unclear.ask("start", goal="Fehler", **MINE)
    status = await unclear.until(lambda status: status["questions"])
    assert status["questions"][0]["question"].startswith("Welcher Fehler tritt wo auf?")
    english = Run(cue, "s15-unclear-en")
    await english.ask("start", goal="fix the error", **MINE)
    status = await english.until(lambda status: status["questions"])
    assert status["questions"][0]["question"] == "Which error, and where? Please give the message and the place."
    for name, goal, asked in (("de", "wer bist du?", "Das ist keine Aufgabe"), ("en", "who are you?", "That is no work for any")):
        nobody = Run(cue, f"s15-nobody-{name}")
        await nobody.ask("start", goal=goal, **MINE)
        status = await nobody.until(lambda status: status["questions"])
        assert status["questions"][0]["question"].startswith(asked)
    await unclear.ask("say", text="erstelle eine Todo App mit Login", **MINE)
    await unclear.until(lambda status: status["phase"] == "awaiting_approval")
    (proposal,) = await unclear.ask("proposals")
    assert proposal["plan"]["steps"][0]["agent"] == "codesmith"

    strange = Run(cue, "s15-strange")
    await strange.ask("start", goal="hey fix the login bug in auth.py", **MINE)
    status = await strange.ended()
    said = "this is work for fixer, whom this deployment does not have; who can be given work: codesmith, crew-architect, planner"
    assert status["reason"].endswith(said)
    with pytest.raises(Rejected, match="nobody here is called joiner"):
        await Run(cue, "s15-joiner").ask("start", goal="x", planner="joiner", **MINE)
