"""`fork`, `rerun`, `branches` (S33): the parent never changes, only what comes after the cut runs, nothing leaves a fork unless it may."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, Event, State, command, query
from events.keeping.verify import verify
from ops.commands.access import open_log
from ops.settings import Settings, name_app
from runtime import App
from runtime.branches.fork_plan import plan_conversation
from runtime.local import local_runtime
from tests.support.verbs import Verb

APP = f"{__name__}:app"
EXECUTED: list[str] = []
"""Every step that ran in this process, in order."""
ANSWER = "plain"


class Desk(State):
    total: int = 0
    notes: list[str] = []


class Booked(Event[Desk], tag="desk_fork.booked"):
    note: str
    amount: int = 1

    def apply(self, state: Desk) -> None:
        state.total += self.amount
        state.notes.append(self.note)


class DeskActor(Actor[Desk], name="desk"):
    @command
    async def book(self, note: str) -> int:
        self.emit(Booked(note=note))
        return self.state.total

    @command
    async def plan(self, rounds: int) -> list[str]:
        """Asks two workers in turn, then tells the ledger."""
        said = []
        for number in range(rounds):
            word = await self.step("model", model, f"{number}")
            said.append(await self.ref("worker", f"w{number % 2}").work(item=word))
        self.emit(Booked(note=",".join(said)))
        self.ref("ledger", "l").tell.note(text=said[-1])
        return said

    @query
    def total(self) -> int:
        return self.state.total

    @command
    async def by_id(self, rounds: int) -> str:
        """Names others, and its own effects, by its id."""
        done = ""
        for number in range(rounds):
            done = await self.ref("worker", self.id).work(item=f"{self.id}-{number}")
        self.emit(Booked(note=done))
        return done


class Worker(Actor[Desk], name="worker"):
    @command
    async def work(self, item: str) -> str:
        done = await self.step("work", work, item)
        self.emit(Booked(note=done))
        return done

    @command
    async def reach(self, other: str) -> int:
        return int(await self.ref("desk", other).total())


class Ledger(Actor[Desk], name="ledger"):
    @command
    async def note(self, text: str) -> None:
        self.emit(Booked(note=text))

    @query
    def total(self) -> int:
        return self.state.total


async def model(number: str) -> str:
    EXECUTED.append(f"model {number}")
    return f"{ANSWER}-{number}"


async def work(item: str) -> str:
    EXECUTED.append(f"work {item}")
    return f"done {item}"


app = App(actors=[DeskActor, Worker, Ledger])


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """The folder of a deployment that is down: desk/1 with three bookings, and a conversation of four actors."""
    data = tmp_path / "data"

    async def make() -> None:
        async with local_runtime(app, data / "log", shards=3) as cue:
            for note in ("a", "b", "c"):
                await cue.ask("desk/1", "book", note=note)
            await cue.ask("desk/p", "book", note="before")
            await cue.ask("desk/p", "plan", rounds=4, command_id="talk")
            while await cue.ask("ledger/l", "total") == 0:
                pass

    asyncio.run(make())
    EXECUTED.clear()
    name_app(data, APP)
    return data


def state(cuebook: Verb, stream: str, *more: str) -> Any:
    code, rows, said = cuebook("state", stream, *more)
    assert code == 0, said
    return rows[0]["state"]


def recorded(cuebook: Verb, *terms: str) -> list[Any]:
    code, rows, _ = cuebook("log", "-n", "0", *terms)
    assert code == 0
    return list(rows)


def test_s33_a_fork_begins_with_the_state_at_its_version_and_goes_its_own_way(cuebook: Verb, deployment: Path) -> None:
    before = recorded(cuebook, "actor:desk/1")
    code, rows, said = cuebook("fork", "desk/1", "--at", "2", "--as", "what-if")
    assert code == 0, said
    assert rows == [{"stream": "desk/what-if", "parent": "desk/1", "version": 2, "live": False}]
    assert state(cuebook, "desk/what-if")["notes"] == ["a", "b"]
    code, rows, said = cuebook("rerun", "desk/what-if", "book", '{"note": "x"}', "--at", "3", "--as", "again")
    assert code == 0, said
    assert state(cuebook, "desk/again")["notes"] == ["a", "b", "x"]
    assert recorded(cuebook, "actor:desk/1") == before
    assert verify(deployment / "log") == []


def test_s33_versions_up_to_the_cut_are_those_of_the_parent(cuebook: Verb) -> None:
    cuebook("fork", "desk/1", "--at", "2", "--as", "what-if")
    assert state(cuebook, "desk/what-if", "--at", "1")["notes"] == ["a"]
    (event,) = recorded(cuebook, "actor:desk/what-if")
    assert (event["version"], event["type"], event["parent"], event["branch"]) == (3, "stream.forked", "desk/1@2", "what-if")


def test_s33_an_edit_changes_the_state_that_it_begins_with(cuebook: Verb) -> None:
    patch = '[{"op": "replace", "path": "/total", "value": 900}]'
    assert cuebook("fork", "desk/1", "--at", "2", "--as", "rich", "--edit", patch)[0] == 0
    assert state(cuebook, "desk/rich") == {"total": 900, "notes": ["a", "b"]}
    assert state(cuebook, "desk/1") == {"total": 3, "notes": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("desk/1", "--at", "2", "--as", "1"), 2, "exists already"),
        (("desk/1", "--at", "9", "--as", "x"), 3, "version 9"),
        (("desk/p", "--at", "3", "--as", "x"), 2, "nearest version between turns"),
        (("desk/1", "--at", "2", "--as", "x.y"), 2, "no id"),
        (("desk/1", "--at", "2", "--as", "worker/x"), 2, "type of its parent"),
        (("desk/1", "--at", "2", "--as", "x", "--edit", '[{"op": "remove", "path": "/none"}]'), 2, "edit does not fit"),
        (("desk/1", "--at", "2", "--as", "x", "--edit", '{"total": 5}'), 2, "no JSON Patch"),
    ],
)
def test_what_cannot_be_forked_is_refused_and_leaves_nothing(cuebook: Verb, arguments: Any, code: int, said: str) -> None:
    before = recorded(cuebook)
    ended, _, told = cuebook("fork", *arguments)
    assert (ended, said in told) == (code, True), told
    assert recorded(cuebook) == before


def test_branches_lists_forks_and_forks_of_forks(cuebook: Verb) -> None:
    cuebook("fork", "desk/1", "--at", "2", "--as", "one")
    cuebook("fork", "desk/one", "--at", "3", "--as", "deeper", "--edit", '[{"op": "replace", "path": "/total", "value": 1}]')
    cuebook("fork", "desk/1", "--at", "1", "--as", "two")
    _, rows, _ = cuebook("branches", "desk/1")
    found = [(row["depth"], row["stream"], row["version"], row["edited"]) for row in rows]
    assert found == [(1, "desk/one", 2, False), (2, "desk/deeper", 3, True), (1, "desk/two", 1, False)]


# -- a conversation -----------------------------------------------------------------------------------------------------------------------


def effect(cuebook: Verb, number: int) -> Any:
    """The result of the n-th model call of the conversation."""
    return recorded(cuebook, "corr:talk", "actor:desk/p", "type:step.completed")[number]


def test_only_what_comes_after_the_cut_is_executed(cuebook: Verb, deployment: Path) -> None:
    before = recorded(cuebook)
    at = effect(cuebook, 2)["event_id"]
    code, rows, said = cuebook("fork", "--correlation", "talk", "--at", at, "--as", "f1")
    assert code == 0, said
    # Three model calls and two works lie before the cut, one call and two works behind it.
    assert EXECUTED == ["work plain-2", "model 3", "work plain-3"]
    assert {row["stream"]: row["executed"] for row in rows} == {"desk/p-f1": 1, "worker/w0-f1": 1, "worker/w1-f1": 1, "ledger/l-f1": 0}
    assert recorded(cuebook)[: len(before)] == before
    assert state(cuebook, "desk/p-f1") == state(cuebook, "desk/p")
    assert state(cuebook, "worker/w1-f1") == state(cuebook, "worker/w1")
    assert verify(deployment / "log") == []
    assert cuebook("replay", "--verify")[0] == 0


def test_an_edited_result_changes_what_follows_and_compare_names_it_first(cuebook: Verb) -> None:
    at = effect(cuebook, 2)["event_id"]
    edit = '[{"op": "replace", "path": "/result", "value": "better"}]'
    code, _, said = cuebook("fork", "--correlation", "talk", "--at", at, "--as", "f1", "--edit", edit)
    assert code == 0, said
    assert EXECUTED == ["work better", "model 3", "work plain-3"]
    assert state(cuebook, "desk/p-f1")["notes"][-1] == "done plain-0,done plain-1,done better,done plain-3"
    _, rows, said = cuebook("compare", "talk", "f1")
    assert rows[-1]["first"] == "desk/p"
    first = next(row for row in rows[:-1] if row["left"] == "desk/p")
    assert first["divergence"]["patch"] == [{"op": "replace", "path": "/result", "value": "better"}]


def test_an_edited_input_runs_the_whole_turn_with_it(cuebook: Verb) -> None:
    (started,) = recorded(cuebook, "corr:talk", "actor:desk/p", "type:turn.started")
    edit = '[{"op": "replace", "path": "/arguments/rounds", "value": 1}]'
    code, _, said = cuebook("fork", "--correlation", "talk", "--at", started["event_id"], "--as", "f1", "--edit", edit)
    assert code == 0, said
    assert EXECUTED == ["model 0", "work plain-0"]
    assert state(cuebook, "desk/p-f1")["notes"] == ["before", "done plain-0"]


def test_new_code_runs_from_the_cut_on(cuebook: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ANSWER", "newer")
    at = effect(cuebook, 2)["event_id"]
    assert cuebook("fork", "--correlation", "talk", "--at", at, "--as", "f1", "--app", APP)[0] == 0
    assert state(cuebook, "desk/p-f1")["notes"][-1] == "done plain-0,done plain-1,done plain-2,done newer-3"


def test_what_a_fork_sends_reaches_its_siblings_and_no_parent(cuebook: Verb) -> None:
    at = effect(cuebook, 3)["event_id"]
    assert cuebook("fork", "--correlation", "talk", "--at", at, "--as", "f1")[0] == 0
    assert state(cuebook, "ledger/l-f1")["notes"] == ["done plain-3"]
    sent = [event["payload"]["receiver"] for event in recorded(cuebook, "actor:desk/p-f1", "type:message.sent")]
    assert sent == ["ledger/l-f1"]


def test_what_lies_outside_the_fork_is_held_unless_it_is_live(cuebook: Verb) -> None:
    code, _, said = cuebook("fork", "worker/w0", "--at", str(recorded(cuebook, "actor:worker/w0")[-1]["version"]), "--as", "shy")
    assert code == 0, said
    code, rows, _ = cuebook("rerun", "worker/shy", "reach", '{"other": "1"}', "--at", str(_last(cuebook, "worker/shy")), "--as", "shier")
    assert code == 1
    assert "outside the fork" in rows[0]["reply"]["message"]
    code, rows, said = cuebook(
        "rerun", "worker/shy", "reach", '{"other": "1"}', "--at", str(_last(cuebook, "worker/shy")), "--as", "bold", "--live"
    )
    assert (code, rows[0]["reply"]) == (0, 3), said


def test_a_tell_of_a_lone_fork_is_recorded_and_held(cuebook: Verb) -> None:
    (started,) = recorded(cuebook, "corr:talk", "actor:desk/p", "type:turn.started")
    before = state(cuebook, "ledger/l")
    code, rows, _ = cuebook("rerun", "desk/p", "--at", str(started["version"]), "--as", "lone")
    assert code == 1  # its asks lie outside
    assert "outside the fork" in rows[0]["reply"]["message"]
    assert state(cuebook, "ledger/l") == before


def test_s33_a_forked_actor_knows_itself_by_the_id_of_its_parent(cuebook: Verb, deployment: Path) -> None:
    async def talk() -> None:
        async with local_runtime(app, deployment / "log") as cue:
            await cue.ask("desk/self", "by_id", rounds=3, command_id="named")

    asyncio.run(talk())
    EXECUTED.clear()
    at = recorded(cuebook, "corr:named", "actor:desk/self", "type:ask.completed")[1]["event_id"]
    code, _, said = cuebook("fork", "--correlation", "named", "--at", at, "--as", "f1")
    assert code == 0, said
    assert EXECUTED == ["work self-2"]
    assert state(cuebook, "desk/self-f1") == state(cuebook, "desk/self")


def test_a_cut_in_the_middle_of_two_turns_goes_on_with_both_and_repeats_neither(cuebook: Verb) -> None:
    """The desk waits for the worker, whose step has ended: the fork of the worker is asked under the id that its open turn has."""
    done = recorded(cuebook, "corr:talk", "actor:worker/w0", "type:step.completed")[0]["event_id"]
    code, _, said = cuebook("fork", "--correlation", "talk", "--at", done, "--as", "f1")
    assert code == 0, said
    assert EXECUTED == ["model 1", "work plain-1", "model 2", "work plain-2", "model 3", "work plain-3"]
    assert state(cuebook, "worker/w0-f1") == state(cuebook, "worker/w0")
    assert state(cuebook, "desk/p-f1") == state(cuebook, "desk/p")


def test_an_open_turn_goes_on_before_the_one_that_asked_it(cuebook: Verb, deployment: Path) -> None:
    """Else the ask may come first, and the worker would do its step once more."""
    done = recorded(cuebook, "corr:talk", "actor:worker/w0", "type:step.completed")[0]["event_id"]

    async def planned() -> list[str]:
        async with open_log(Settings(data=deployment)) as reader:
            plan = await plan_conversation(reader, app.registry, "talk", done, "f1")
        return [rerun.stream for rerun in plan.reruns]

    assert asyncio.run(planned()) == ["worker/w0-f1", "desk/p-f1"]


def _last(cuebook: Verb, stream: str) -> int:
    return int(recorded(cuebook, f"actor:{stream}")[-1]["version"])


def test_rerun_takes_the_recorded_command_and_runs_its_steps_again(cuebook: Verb) -> None:
    (started, *_) = recorded(cuebook, "corr:talk", "actor:worker/w0", "type:turn.started")
    code, rows, said = cuebook("rerun", "worker/w0", "--at", str(started["version"] + 1), "--as", "again")
    assert code == 0, said
    assert rows[0]["reply"] == "done plain-0"
    assert EXECUTED == ["work plain-0"]
    assert state(cuebook, "worker/again")["notes"] == ["done plain-0"]


def test_rerun_of_a_short_turn_of_a_client_says_that_its_arguments_are_not_in_the_log(cuebook: Verb) -> None:
    code, _, said = cuebook("rerun", "desk/1", "--at", "2", "--as", "again")
    assert code == 2
    assert "give METHOD and ARGUMENTS" in said


def test_a_cut_inside_what_one_commit_wrote_takes_all_of_it(cuebook: Verb) -> None:
    (booked,) = recorded(cuebook, "corr:talk", "actor:desk/p", "type:desk_fork.booked")
    code, _, said = cuebook("fork", "--correlation", "talk", "--at", booked["event_id"], "--as", "f1")
    assert code == 0, said
    assert EXECUTED == []
    assert state(cuebook, "desk/p-f1") == state(cuebook, "desk/p")
    assert state(cuebook, "ledger/l-f1")["notes"] == ["done plain-3"]  # the tell was on its way


def test_s33_erasing_a_parent_names_its_forks_and_theirs_also_one_at_version_0(cuebook: Verb) -> None:
    """One that was erased itself holds nothing any more."""
    cuebook("rerun", "desk/1", "book", '{"note": "z"}', "--at", "1", "--as", "zero")
    cuebook("fork", "desk/1", "--at", "2", "--as", "one")
    cuebook("fork", "desk/one", "--at", "3", "--as", "deeper")
    assert cuebook("erase", "desk/one", "--yes")[1][0]["forks"] == ["desk/deeper"]
    code, rows, said = cuebook("erase", "desk/1", "--yes")
    assert (code, rows[0]["forks"]) == (0, ["desk/zero", "desk/deeper"])
    assert "desk/zero, desk/deeper branched off desk/1" in said
    _, rows, _ = cuebook("branches", "desk/1")
    assert [(row["stream"], row["status"], row["edited"]) for row in rows] == [
        ("desk/zero", "live", False), ("desk/one", "erased", None), ("desk/deeper", "live", False),
    ]  # fmt: skip
