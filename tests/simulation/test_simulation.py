"""Two hundred seeds of the simulation, and the proof that its checkers see what they are for.

The long run: ``python -m tests.simulation --seeds 10000 --jobs 2``. A failing seed: ``python -m tests.simulation --seed N -v``.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from events.envelope import RecordedEvent
from tests.simulation import __main__ as long_run
from tests.simulation.checkers import CHECKERS, violations
from tests.simulation.mutations import MUTATIONS, SEEDS, Mutation
from tests.simulation.world import simulate
from tests.support.sim_history import History, Operation, Told

ROOT = Path(__file__).resolve().parents[2]
BATCH = 20


def failing(seeds: Sequence[int]) -> list[str]:
    """What is wrong with each of `seeds`, with the way to see it."""
    found = []
    for seed in seeds:
        wrong = violations(simulate(seed)[0])
        if wrong:
            found.append(f"{wrong[0]}\n    replay: python -m tests.simulation --seed {seed} -v")
    return found


@pytest.mark.parametrize("first", range(0, 200, BATCH))
def test_no_seed_violates_an_invariant(first: int) -> None:
    assert failing(range(first, first + BATCH)) == []


REGRESSIONS = (
    29, 36, 57, 64, 71, 109, 160, 235, 265, 296, 496, 728, 764, 771, 889, 906, 1060, 1065, 1263, 1279, 1294, 1336, 1454, 1553, 1603, 1854,
    2240, 2250, 2527, 2627, 2775, 2854, 3653, 3748, 3842, 4351, 5128, 5656, 6150, 6249, 7218, 7692, 7698, 8200, 8214, 8756,
)  # fmt: skip
"""Seeds that once found a fault. What they draw changes with the code, so a fault has a test of its own too where that can be."""


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_once_found_a_fault_finds_none(seed: int) -> None:
    assert failing([seed]) == []


def test_a_seed_is_the_same_run_in_every_process() -> None:
    """Also with another hash seed: nothing may depend on the order of a set."""
    runs = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "7", "-v"],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=30, env={"PYTHONHASHSEED": str(number)},
        ).stdout
        for number in (1, 2)
    ]  # fmt: skip
    assert runs[0] == runs[1]
    assert len(runs[0]) > 5_000


def test_the_long_run_goes_on_after_a_violation_says_how_far_it_is_and_lists_all_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {3: ["I-4: one", "I-7: two"], 5: ["run: three"]}
    monkeypatch.setattr(long_run, "results", lambda seeds, _: ((seed, found.get(seed, []), {"kill": 2}, 10) for seed in seeds))
    monkeypatch.setattr(long_run, "_EVERY_S", 0.0)
    monkeypatch.setattr(sys, "argv", ["simulation", "--first", "2", "--seeds", "6"])
    assert long_run.main() == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith("6 of 6 seeds, ")
    assert err.splitlines()[-1].endswith("0:00 left, 2 with a violation")
    assert [line for line in out.splitlines() if line.startswith("seed ")] == ["seed 3: I-4: one (and 1 more)", "seed 5: run: three"]
    assert out.splitlines()[-1] == "callbacks 60, kill 12"


def test_the_runs_reach_what_they_are_for() -> None:
    """Kills, zombies, steals, repeats and re-runs happen, or the other tests prove nothing."""
    histories = [simulate(seed)[0] for seed in range(40)]
    faults = ("kill", "pause", "steal", "hand over", "end", "cut")
    counts = {name: sum(history.counts.get(name, 0) for history in histories) for name in (*faults, "parked", "dead letter")}
    assert min(counts[name] for name in faults) > 20, counts
    assert counts["parked"] > 1 < counts["dead letter"], counts
    assert sum(tell.kept for history in histories for tell in history.tells) > 100
    everything = [event for history in histories for events in history.events.values() for event in events]
    cycles = [event for event in everything if event.type == "ask.failed" and b'"call_cycle"' in bytes(event.payload)]
    assert len(cycles) > 3, "no two turns waited for each other (S23)"
    assert any(operation.answers and operation.answers[0].outcome == "unknown" for history in histories for operation in history.operations)
    assert any(len(history.executed) > len({each.key for each in history.executed}) for history in histories)
    assert any(event.type == "turn.failed" for history in histories for events in history.events.values() for event in events)
    assert all(history.live for history in histories)


# -- the checkers see a history that was tampered with ------------------------------------------------------------------------------------


def history() -> History:
    """A quiet run with something of everything: no seed of it may violate anything."""
    return next(each for each in (simulate(seed)[0] for seed in range(100)) if _is_rich(each))


def _is_rich(each: History) -> bool:
    types = {event.type for events in each.events.values() for event in events}
    wanted = {"simaccount.received", "simaccount.deposited", "step.completed", "turn.completed", "simlabour.reminded"}
    return not violations(each) and wanted <= types and any(len(events) > 1 for events in each.streams().values())


@pytest.fixture(scope="module")
def good() -> History:
    return history()


def copy(original: History) -> History:
    changed = msgspec.structs.replace(original)
    changed.events = {shard: list(events) for shard, events in original.events.items()}
    for name in ("told", "taken", "written", "executed", "operations", "inbox"):
        setattr(changed, name, list(getattr(original, name)))
    return changed


def each_event(of: History, kind: str = "") -> list[tuple[int, int, RecordedEvent]]:
    return [(shard, index, event) for shard, events in of.events.items() for index, event in enumerate(events) if kind in event.type]


def test_the_untouched_history_is_without_fault(good: History) -> None:
    assert violations(good) == []


def test_every_event_that_is_removed_is_missed(good: History) -> None:
    for shard, index, event in each_event(good):
        changed = copy(good)
        del changed.events[shard][index]
        assert violations(changed), f"nobody misses {event.stream} version {event.version}"


def test_every_event_that_is_doubled_is_noticed(good: History) -> None:
    for shard, index, event in each_event(good):
        changed = copy(good)
        changed.events[shard].insert(index, event)
        assert violations(changed), f"nobody notices a second {event.stream} version {event.version}"


def test_every_two_events_that_are_swapped_are_noticed(good: History) -> None:
    for shard, events in good.events.items():
        for index in range(len(events) - 1):
            changed = copy(good)
            changed.events[shard][index : index + 2] = [events[index + 1], events[index]]
            assert violations(changed), f"nobody notices that {shard}:{index + 1} and the next one changed places"


def renumbered(events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
    """As a store would have numbered them: so that the deeper checkers have to find it."""
    versions: dict[str, int] = {}
    found = []
    for position, event in enumerate(events, 1):
        versions[event.stream] = versions.get(event.stream, 0) + 1
        found.append(msgspec.structs.replace(event, position=position, version=versions[event.stream]))
    return found


@pytest.mark.parametrize("kind", ["simaccount.received", "simaccount.deposited", "turn.completed", "simlabour.reminded", "step.completed"])
def test_a_lost_event_is_noticed_though_versions_and_hashes_fit(good: History, kind: str) -> None:
    """As after a store that forgot a commit: numbers are whole, only the meaning is not."""
    others = [checker for checker in CHECKERS if not checker.__name__.startswith(("i_2_", "s_27_"))]
    shard, index, _ = each_event(good, kind)[-1]
    changed = copy(good)
    del changed.events[shard][index]
    changed.events[shard] = renumbered(changed.events[shard])
    assert [finding for checker in others for finding in checker(changed)]


def _told_twice(changed: History) -> None:
    told = next(each for each in changed.told if each.body is not None and not each.query)
    changed.told.append(msgspec.structs.replace(told, body=b'"another"'))


def _told_of_nothing(changed: History) -> None:
    operation = Operation(command_id="never", stream="account/a0", method="deposit", arguments={"cents": 1})
    changed.operations.append(operation)
    changed.told.append(
        Told(
            at_s=0.0, worker="w1", epoch=1, stream="account/a0", method="deposit", command_id="never", body=b"1", number=None,
            outcome="done", version=1, query=False,
        )
    )  # fmt: skip


def _older_epoch(changed: History) -> None:
    events = next(events for events in changed.events.values() if len(events) > 1)
    events[-1] = msgspec.structs.replace(events[-1], owner_epoch=0)


def _written_by_a_zombie(changed: History) -> None:
    written = next(each for each in changed.written if each.positions)
    changed.written.append(msgspec.structs.replace(written, epoch=written.epoch + 1))


def _two_owners(changed: History) -> None:
    changed.taken.append(msgspec.structs.replace(changed.taken[0], worker="another"))


def _another_state(changed: History) -> None:
    stream, live = next(iter(changed.live.items()))
    changed.live = {**changed.live, stream: msgspec.structs.replace(live, state_hash="00")}


def _step_again(changed: History) -> None:
    changed.executed.append(msgspec.structs.replace(changed.executed[0], recorded=True, owner=True))


def _no_answer(changed: History) -> None:
    changed.operations.append(Operation(command_id="waits", stream="account/a0", method="deposit", arguments={"cents": 1}))


@pytest.mark.parametrize(
    ("tamper", "names"),
    [
        (_told_twice, "I-7"), (_told_of_nothing, "I-5"), (_older_epoch, "I-4"), (_written_by_a_zombie, "I-4"), (_two_owners, "I-4"),
        (_another_state, "I-8"), (_step_again, "I-14"), (_no_answer, "run"),
    ],
)  # fmt: skip
def test_each_checker_names_its_invariant(good: History, tamper: Callable[[History], None], names: str) -> None:
    changed = copy(good)
    tamper(changed)
    assert any(finding.startswith(names) for finding in violations(changed))


# -- a mechanism that is taken out is found -----------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.take_out.__name__)
def test_a_mechanism_that_is_taken_out_is_found_within_fifty_seeds(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    """By the checker that stands for it, and by that one only because of this: `test_no_seed_violates_an_invariant`."""
    mutation.take_out(monkeypatch)
    histories = (simulate(seed, faults=mutation.faults)[0] for seed in range(SEEDS))
    found = (finding for history in histories for finding in violations(history))
    assert any(finding.startswith(mutation.invariant) for finding in found), mutation.take_out.__doc__
