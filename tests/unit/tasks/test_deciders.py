"""Who may decide about a run: whoever started it, or who was named; refusals stay in the log."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.errors import BadPayload, Rejected
from actors.json_schema import check
from actors.people.known import NOBODY, People, Person, digest_of
from ops.people import with_people
from runtime.local import LocalRuntime, local_runtime
from tests.support.crew import app
from tests.support.logs import events_of
from tests.unit.tasks.test_runs import asked, begun, ended, plan, step, until

PEOPLE = People(
    {
        digest_of("anna's"): Person(name="anna", roles=("lead", "finance")),
        digest_of("ben's"): Person(name="ben", roles=("lead",)),
        digest_of("cleo's"): Person(name="cleo"),
        digest_of("the operator's"): Person(name="operator"),
    }
)
YES: dict[str, Any] = {"version": 1, "verdict": "approved"}


@pytest.fixture
async def cue(tmp_path: Path) -> AsyncIterator[LocalRuntime]:
    async with local_runtime(with_people(app, PEOPLE), tmp_path / "log") as runtime:
        yield runtime


async def denied(cue: LocalRuntime, run: str, method: str, session: str, **arguments: Any) -> dict[str, Any]:
    """How that is refused: the fields that travel."""
    with pytest.raises(Rejected) as refused:
        await cue.ask(f"task/{run}", method, session=session, **arguments)
    return {"message": refused.value.message, **refused.value.fields}


async def test_whoever_is_named_decides_and_nobody_else(cue: LocalRuntime) -> None:
    await asked(cue, "r", plan=plan(step("a")), deciders=["cleo", "role:finance"])
    assert (await cue.ask("task/r", "status"))["deciders"] == ["cleo", "role:finance"]
    for session, name in (("mine", "starter"), ("ben's", "ben"), ("the operator's", "operator"), ("a stranger's", "")):
        for method, more in (("decide", YES), ("say", {"text": "ja"}), ("answer", {"text": "rot"}), ("resume", {"instructions": "slowly"})):
            found = await denied(cue, "r", method, session, **more)
            assert found == {
                "message": f"{name or 'whoever has this key'} may not decide about this run; who may: cleo, role:finance",
                "reason": "not_a_decider", "by": name, "deciders": ["cleo", "role:finance"],
            }  # fmt: skip
    assert (await cue.ask("task/r", "decide", session="anna's", **YES))["verdict"] == "approved"
    assert await denied(cue, "r", "decide", "cleo's", version=1, verdict="rejected") == {
        "message": "version 1 was decided before: approved", "reason": "decided_before", "standing": "approved", "by": "cleo",
        "decided_by": "anna",
    }  # fmt: skip
    assert [(made["standing"], made["by"]) for made in await cue.ask("task/r", "proposals")] == [("approved", "anna")]
    assert (await until(cue, "r", ended))["outcome"] == "done"


async def test_a_refusal_of_who_may_not_and_of_who_is_late_stays_in_the_log_once_for_each_command(tmp_path: Path) -> None:
    async with local_runtime(with_people(app, PEOPLE), tmp_path) as cue:
        await asked(cue, "r", plan=plan(step("a")), deciders=["anna"], approval_s=0.3)
        for _ in range(2):
            await denied(cue, "r", "decide", "ben's", command_id="b-1", **YES)
        await until(cue, "r", ended)
        assert (await denied(cue, "r", "decide", "anna's", **YES))["reason"] == "too_late"
    refusals = [event for event in await events_of(tmp_path, "task/r") if event.type == "turn.refused"]
    said = [msgspec.json.decode(event.payload) for event in refusals]
    assert [(event.command_id == "b-1", each["by"], each["reason"]) for event, each in zip(refusals, said, strict=True)] == [
        (True, "ben", "not_a_decider"), (False, "anna", "too_late"),
    ]  # fmt: skip
    told = b"".join(bytes(event.payload) for event in await events_of(tmp_path, "task/r"))
    assert not any(key in told for key in (b"anna's", b"ben's", b"mine"))
    async with local_runtime(with_people(app, PEOPLE), tmp_path) as cue:
        assert (await denied(cue, "r", "decide", "ben's", command_id="b-1", **YES))["reason"] == "not_a_decider", "a repeat, remembered"
        assert (await cue.ask("task/r", "status"))["outcome"] == "cancelled", "folded from a log with refusals in it"


async def test_who_started_a_run_and_the_operator_can_let_it_rest_and_end_it_but_not_decide(cue: LocalRuntime, tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    await begun(cue, "r", plan=plan(step("a", gate=never)), deciders=["anna"])
    assert (await cue.ask("task/r", "pause", session="the operator's"))["paused"]
    assert (await denied(cue, "r", "resume", "the operator's", instructions="delete everything"))["reason"] == "not_a_decider"
    assert not (await cue.ask("task/r", "resume", session="mine"))["paused"]
    assert (await denied(cue, "r", "stop", "ben's"))["by"] == "ben"
    assert (await denied(cue, "r", "stop", "a stranger's"))["by"] == ""
    assert (await cue.ask("task/r", "stop", session="the operator's"))["outcome"] == "cancelled"


async def test_an_agents_question_is_answered_by_whoever_decides(cue: LocalRuntime) -> None:
    await begun(cue, "r", plan=plan(step("a", ask="Which colour?")), deciders=["role:lead"])
    await until(cue, "r", lambda status: status["questions"])
    assert (await denied(cue, "r", "answer", "cleo's", text="red"))["reason"] == "not_a_decider"
    await cue.ask("task/r", "answer", session="ben's", text="red")
    assert (await denied(cue, "r", "answer", "anna's", text="blue", number=1))["message"] == "question 1 was answered before"
    assert [asked["by"] for asked in await cue.ask("task/r", "questions")] == ["ben"]


async def test_a_run_that_nobody_could_decide_does_not_begin(cue: LocalRuntime, tmp_path: Path) -> None:
    for deciders, why in ((["anna", "dora"], "nobody here is dora"), (["role:intern"], "nobody here is role:intern"), ([], "length >= 1")):
        with pytest.raises(BadPayload, match=why):
            await cue.ask("task/r", "start", session="mine", goal="x", plan=plan(step("a")), deciders=deciders)
    async with local_runtime(with_people(app, NOBODY), tmp_path / "other") as lonely:
        with pytest.raises(BadPayload, match="nobody here is operator; there are: starter"):
            await lonely.ask("task/r", "start", session="mine", goal="x", plan=plan(step("a")), deciders=["operator"])


async def test_whoever_starts_a_run_may_be_one_of_several(cue: LocalRuntime) -> None:
    await asked(cue, "r", plan=plan(step("a")), deciders=["anna", "starter"])
    assert (await cue.ask("task/r", "decide", session="mine", **YES))["verdict"] == "approved"
    assert [made["by"] for made in await cue.ask("task/r", "proposals")] == ["starter"]


async def test_whoever_is_known_remains_who_he_is_with_another_key_and_his_former_key_is_nobodys(tmp_path: Path) -> None:
    async with local_runtime(with_people(app, PEOPLE), tmp_path) as cue:
        await asked(cue, "r", plan=plan(step("a")), session="anna's")
    since = People({digest_of("anna's new"): Person(name="anna")})
    async with local_runtime(with_people(app, since), tmp_path) as cue:
        assert (await denied(cue, "r", "decide", "anna's", **YES))["reason"] == "foreign_session"
        assert (await cue.ask("task/r", "decide", session="anna's new", **YES))["verdict"] == "approved"
        assert [made["by"] for made in await cue.ask("task/r", "proposals")] == ["anna"]


async def test_what_waits_says_who_asks_what_until_when_and_who_may_answer(cue: LocalRuntime) -> None:
    status = await asked(cue, "r", plan=plan(step("a", ask="Which colour?")), deciders=["anna"])
    (waiting,) = await cue.ask("task/r", "waiting")
    assert (waiting["kind"], waiting["number"], waiting["asks"], waiting["deciders"]) == ("approval", 1, "task/r", ["anna"])
    assert waiting["question"].startswith("a plan\n1. codesmith: ")
    assert waiting["expires_at_us"] == status["expires_at_us"]
    schema = msgspec.json.encode(waiting["schema"])
    check(schema, {"verdict": "modified", "feedback": "smaller"}, "an answer")
    with pytest.raises(BadPayload):
        check(schema, {"verdict": "unclear"}, "an answer")
    await cue.ask("task/r", "decide", session="anna's", **YES)
    await until(cue, "r", lambda status: status["questions"])
    (waiting,) = await cue.ask("task/r", "waiting")
    assert (waiting["kind"], waiting["number"], waiting["asks"]) == ("clarification", 1, "codesmith/r-a")
    assert (waiting["question"], waiting["schema"]) == ("Which colour?", {"type": "string", "minLength": 1})
    await cue.ask("task/r", "answer", session="anna's", text="red")
    assert await cue.ask("task/r", "waiting") == []
