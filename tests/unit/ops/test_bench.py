"""The bench: that every measure runs, counts what it did, and stands beside its limit. No test asserts a time."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import networkx
import pytest

from ops.bench.children import measuring
from ops.bench.docstrings import PairsFile, kept_pairs, pairs_of
from ops.bench.lag import watched_lag
from ops.bench.measure import (
    Case,
    Measure,
    Result,
    Sample,
    Scale,
    closed_loop,
    in_turn,
    result,
    run_rounds,
    sample,
    unmeasured,
)
from ops.bench.predecessor import CONNECTIONS, by_json, by_msgspec, request_line
from ops.bench.predecessor_sqlite import BlockingStore, GroupStore, create
from ops.bench.report import below_half, bench, bench_folder, machine_facts, markdown, print_results
from ops.bench.table import MEASURES, preparation, selected
from ops.commands.bench import bench as bench_verb
from ops.commands.common import Common
from ops.exits import CommandError, Exit

ROOT = Path(__file__).parents[3]
BLINK = 0.02
TINY = Scale(
    actors=1_200, idle=300, log_events=2_000, log_streams=100, cold_actors=2, cold_events=30,
    replay_events_per_s=1_000, vectors=600,
)  # fmt: skip


def case(*rates: float, order: list[str] | None = None, name: str = "") -> Case:
    """A case with one rate per round."""
    left = list(rates)

    async def run(seconds: float) -> Sample:
        if order is not None:
            order.append(name)
        return Sample(count=1, per_s=left.pop(0), p50_us=1.0, p99_us=2.0)

    return run


async def measured(tmp_path: Path, names: Sequence[str], rounds: int = 1) -> dict[str, Result]:
    said: list[str] = []
    chosen = selected(names)
    found = await bench(chosen, folder=tmp_path, rounds=rounds, seconds=BLINK, progress=said.append, scale=TINY)
    assert sum("round" in line for line in said) == rounds * len({measure.theme for measure in chosen})
    assert list(tmp_path.iterdir()) == [], "what a theme prepares goes with it"
    return {each.measure: each for each in found}


def check(found: Result, rounds: int = 1) -> None:
    assert found.rounds == rounds
    assert found.count >= rounds
    assert found.figure is not None
    assert found.figure > 0
    if found.unit == "x":
        assert found.per_s is not None
        assert found.per_s > 0
        assert found.limit_per_s is not None
        assert found.limit_per_s > 0
    if found.p50_us is not None:
        assert found.p99_us is not None
        assert 0 < found.p50_us <= found.p99_us
    assert (found.mark is None) == (found.target is None)


async def test_commands_in_this_process(tmp_path: Path) -> None:
    found = await measured(tmp_path, ["in-process", "appends-100"], rounds=2)
    assert list(found) == ["in-process-1", "in-process-100", "in-process-one", "in-process-tail", "appends-100"]
    for each in found.values():
        check(each, 2)
        assert each.p50_us is not None
    # A hundred callers each do at least one.
    assert min(found[name].count for name in ("in-process-100", "in-process-one", "appends-100")) >= 200
    tail = found["in-process-tail"]
    assert (tail.unit, tail.limit_per_s, tail.count) == ("p99/p50", None, found["in-process-100"].count)
    assert tail.figure is not None
    assert tail.figure >= 1


async def test_replay_and_cold_start_fold_every_event(tmp_path: Path) -> None:
    found = await measured(tmp_path, ["replay", "cold-start", "cold-start-all"])
    for each in found.values():
        check(each)
    assert found["replay"].count % 1_000 == 0
    assert found["cold-start"].count % TINY.cold_actors == 0


@pytest.mark.parametrize("name", ["actors-many", "growth", "json", "claims"])
async def test_rows_with_a_preparation_of_their_own(tmp_path: Path, name: str) -> None:
    found = await measured(tmp_path, [name])
    assert found
    for each in found.values():
        check(each)


async def test_bytes_of_an_idle_actor_are_counted_and_not_guessed(tmp_path: Path) -> None:
    """A live actor has at least a cell with a dozen slots, and a deque; without them the count would be of nothing."""
    found = (await measured(tmp_path, ["idle-bytes"]))["idle-bytes"]
    check(found)
    assert found.count == TINY.idle
    assert found.figure is not None
    assert 300 < found.figure < 20_000


async def test_the_lag_of_a_loop_stands_beside_that_of_a_bare_one(tmp_path: Path) -> None:
    for each in (await measured(tmp_path, ["loop-lag"])).values():
        check(each)
        assert each.unit == "ms"
        assert each.lag_us is not None
        assert each.limit_lag_us is not None


async def test_a_loop_that_is_held_up_shows_it() -> None:
    with watched_lag() as lag:
        time.sleep(0.06)
        await asyncio.sleep(0.01)
    assert max(lag.late_s) >= 0.055
    # Whatever was due meanwhile waited too, the later the shorter.
    assert sum(late_s > 0.01 for late_s in lag.late_s) >= 20


async def test_the_predecessors_way_and_each_change_alone(tmp_path: Path) -> None:
    found = await measured(tmp_path, ["predecessor"])
    assert [each.removeprefix("predecessor-") for each in found] == [
        "predecessor", "uvloop", "msgspec", "now", "aiosqlite", "planned", "group-commit", "all", "lag",
    ]  # fmt: skip
    for each in found.values():
        check(each)
        assert each.count >= CONNECTIONS


async def test_every_way_of_the_predecessors_job_answers_and_keeps(tmp_path: Path) -> None:
    """Otherwise a row could be fast because it does nothing."""
    create(tmp_path / "blocking.sqlite")
    create(tmp_path / "group.sqlite")
    blocking, group = BlockingStore(tmp_path / "blocking.sqlite"), GroupStore(tmp_path / "group.sqlite")
    await group.open()
    writing = asyncio.get_running_loop().create_task(group.write())
    try:
        for answer in (by_json(blocking), by_msgspec(blocking), by_json(group), by_msgspec(group)):
            replies = [json.loads(await answer(request_line(number).strip())) for number in (1, 101, 2)]
            assert [reply["agent"] for reply in replies] == ["agent-1", "agent-1", "agent-2"]
        for store in (blocking, group):
            assert await store.recall("agent-1") == 4
    finally:
        writing.cancel()
        await group.close()


@pytest.mark.usefixtures("_nats_program")
async def test_asks_over_nats_beside_an_echo(tmp_path: Path) -> None:
    found = await measured(tmp_path, ["nats", "client", "worker-memory"])
    assert list(found) == ["nats-1", "nats-100", "nats-tail", "client-1", "client-100", "worker-memory"]
    memory = found.pop("worker-memory")
    assert memory.unavailable is not None or (memory.figure is not None and memory.figure > 10_000_000)
    for name, each in found.items():
        check(each)
        assert each.count >= (1 if name.endswith("-1") else 100)
    assert found["nats-1"].limit_p50_us is not None


@pytest.mark.slow
@pytest.mark.usefixtures("_nats_program")
async def test_two_workers_beside_one(tmp_path: Path) -> None:
    """Two generators with 100 in flight each."""
    found = (await measured(tmp_path, ["workers-nats"]))["workers-nats"]
    check(found)
    assert found.count >= 200


async def test_two_embedded_runtimes_beside_one(tmp_path: Path) -> None:
    found = (await measured(tmp_path, ["workers-embedded"]))["workers-embedded"]
    check(found)
    assert found.count >= 200


async def test_a_child_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as raised:
        async with measuring("ops.bench.no_such_module", [{}], tmp_path):
            pass
    assert "no_such_module" in raised.value.why


async def test_the_peers_run_where_they_are_installed(tmp_path: Path) -> None:
    pytest.importorskip("autogen_core", reason="ops/bench.lock is not installed")
    pytest.importorskip("eventsourcing", reason="ops/bench.lock is not installed")
    found = await measured(tmp_path, ["peer"])
    assert list(found) == ["peer-autogen", "peer-eventsourcing"]
    for each in found.values():
        check(each)


@pytest.mark.parametrize(("missing", "left"), [("autogen_core", "peer-eventsourcing"), ("eventsourcing", "peer-autogen")])
async def test_a_row_without_its_library_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, left: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "ops.bench.peer_autogen", raising=False)
    monkeypatch.delitem(sys.modules, "ops.bench.peer_eventsourcing", raising=False)
    found = await measured(tmp_path, ["peer"])
    (lacking,) = (each for each in found.values() if each.measure != left)
    assert lacking.unavailable is not None
    assert "ops/bench.lock" in lacking.unavailable
    assert (lacking.figure, lacking.mark, lacking.rounds) == (None, None, 0)
    assert below_half([lacking], MEASURES) == []


@pytest.mark.slow
async def test_what_embedders_find_is_settled_and_how_fast_they_are_is_measured(tmp_path: Path) -> None:
    found = await measured(tmp_path, ["meaning"])
    assert {name for name in found if name.startswith("meaning-hash")} == {"meaning-hash-1", "meaning-hash-5"}
    for name, each in found.items():
        if each.unavailable:
            assert "cuebook[embed]" in each.unavailable
            continue
        check(each)
        assert each.mark in {"good", "meets"}, f"{name}: {each.figure}, which does not depend on the machine"
    assert (found["meaning-hash-1"].figure or 0) < (found["meaning-hash-5"].figure or 0) < 1


def test_the_pairs_of_the_bench_are_those_of_the_version_that_they_name() -> None:
    kept = msgspec.json.decode((ROOT / "ops" / "bench" / "docstrings.json").read_bytes(), type=PairsFile)
    assert len(kept_pairs()) == len(kept.pairs) == 300
    if kept.source != f"networkx {networkx.__version__}":
        pytest.skip(f"they are from {kept.source}, here is {networkx.__version__}")
    assert pairs_of(Path(networkx.__file__).parent, 300) == kept_pairs()


async def test_vectors_are_searched_by_graphs_beside_comparing_all(tmp_path: Path) -> None:
    found = await measured(tmp_path, ["vectors"])
    for each in found.values():
        check(each)
    assert (found["vectors-recall"].figure or 0) > 0.9


async def test_every_row_has_a_preparation_that_knows_its_theme() -> None:
    for measure in MEASURES:
        assert callable(preparation(measure.theme))
    with pytest.raises(ValueError, match="frob"):
        preparation("frob")


def test_names_are_whole_or_beginnings() -> None:
    assert selected([]) == [each for each in MEASURES if not each.only_asked_for]
    assert [each.name for each in selected(["replay", "nats"])] == ["nats-1", "nats-100", "nats-tail", "replay"]
    with pytest.raises(ValueError, match="in-proc"):
        selected(["in-proc"])


def test_rows_of_one_theme_stand_together() -> None:
    """Else a theme would be prepared twice."""
    themes = [measure.theme for measure in MEASURES]
    assert len(set(themes)) == sum(1 for before, after in zip(["", *themes], themes, strict=False) if before != after)


def test_every_limit_is_measured_under_one_title() -> None:
    assert len({each.name for each in MEASURES}) == len(MEASURES)
    assert len({(each.theme, each.limit) for each in MEASURES}) == len({(each.theme, each.limit, each.limit_title) for each in MEASURES})


@pytest.mark.parametrize("measure", MEASURES, ids=lambda each: str(each.name))
def test_good_is_better_than_the_target(measure: Measure) -> None:
    if measure.target is not None and measure.good is not None:
        assert measure.reaches(measure.good, measure.target)
        assert not measure.reaches(measure.target, measure.good)


def test_a_sample_takes_observed_percentiles() -> None:
    of_hundred = sample(100, 2.0, [number / 1e6 for number in range(100, 0, -1)])
    assert of_hundred.per_s == 50.0
    assert of_hundred.p50_us == pytest.approx(50)
    assert of_hundred.p99_us == pytest.approx(99)
    assert sample(3, 1.0) == Sample(count=3, per_s=3.0)


async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    now, most = 0, 0

    async def operation(_: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    found = await closed_loop(operation, 7, BLINK)
    assert most == 7
    assert found.count >= 7
    assert now == 0


async def test_in_turn_does_each_number_once_and_so_many_at_a_time() -> None:
    done: list[int] = []
    now, most = 0, 0

    async def operation(number: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        done.append(number)

    await in_turn(operation, 5, at_once=2)
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert most == 2


async def test_every_second_round_runs_backwards() -> None:
    order: list[str] = []
    cases = {name: case(1.0, 1.0, 1.0, order=order, name=name) for name in "abc"}
    rounds: list[int] = []
    await run_rounds(cases, rounds=3, seconds=0.0, on_round=rounds.append)
    assert "".join(order) == "abccbaabc"
    assert rounds == [1, 2, 3]


OURS = Measure(name="ours", theme="", title="", limit="bare", limit_title="", target=0.6, good=0.8)
LAG = Measure(name="lag", theme="", title="", figure="lag", target=5, good=2)


async def test_the_figure_is_the_median_of_each_rounds_own() -> None:
    """A slow disk in one round meets figure and limit alike, and leaves the ratio alone."""
    cases = {"ours": case(50.0, 5.0, 60.0), "bare": case(100.0, 10.0, 100.0)}
    found = result(OURS, await run_rounds(cases, rounds=3, seconds=0.0, on_round=lambda _: None))
    assert (found.per_s, found.limit_per_s, found.figure, found.count) == (50.0, 100.0, 0.5, 3)
    assert found.spread == pytest.approx(0.2)


@pytest.mark.parametrize(("rate", "mark"), [(80.0, "good"), (79.0, "meets"), (60.0, "meets"), (59.0, "misses")])
def test_a_rate_is_marked_by_what_it_reaches_at_least(rate: float, mark: str) -> None:
    assert result(OURS, {"ours": [Sample(count=1, per_s=rate)], "bare": [Sample(count=1, per_s=100.0)]}).mark == mark


@pytest.mark.parametrize(("lag_us", "mark"), [(2_000.0, "good"), (2_001.0, "meets"), (5_000.0, "meets"), (5_001.0, "misses")])
def test_a_lag_is_marked_by_what_it_is_at_most(lag_us: float, mark: str) -> None:
    assert result(LAG, {"lag": [Sample(count=1, per_s=1.0, lag_us=lag_us)]}).mark == mark


def test_a_row_never_shows_what_its_case_has_not_measured() -> None:
    with pytest.raises(TypeError, match="lag"):
        result(LAG, {"lag": [Sample(count=1, per_s=1.0)]})


def row(measure: Measure, figure: float) -> Result:
    return Result(measure=measure.name, title="", figure=figure, unit="", target=measure.target, good=measure.good, mark=None)


def test_the_check_asks_for_half_of_a_rate_and_twice_of_a_lag() -> None:
    informs = Measure(name="informs", theme="", title="")
    known = (OURS, LAG, informs)
    assert below_half([row(OURS, 0.3), row(LAG, 10.0), row(informs, 0.0)], known) == []
    assert below_half([row(OURS, 0.29), row(LAG, 10.1)], known) == [OURS, LAG]
    assert below_half([unmeasured(OURS, "not installed")], known) == []


def test_the_folder_lies_below_data_and_goes_away(tmp_path: Path) -> None:
    new = tmp_path / "new"
    with bench_folder(new) as folder:
        assert folder.parent == new
        (folder / "x").write_text("x")
    assert not new.exists()
    old = tmp_path / "old"
    old.mkdir()
    (old / "keep").write_text("x")
    with pytest.raises(RuntimeError), bench_folder(old):
        raise RuntimeError
    assert [path.name for path in old.iterdir()] == ["keep"]


def test_the_facts_name_what_the_figures_depend_on(tmp_path: Path) -> None:
    facts = machine_facts(tmp_path)
    assert facts["cpus"] == os.cpu_count()
    assert {"cpu", "python", "loop", "sqlite", "fsync_us", "load", "nats-server", "msgspec", "aiosqlite"} <= set(facts)
    assert float(str(facts["fsync_us"])) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_a_table_and_a_pipe_every_field(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    measured_row = Result(
        measure="nats-100", title="", per_s=12_345.6, limit="echo", limit_per_s=30_000.0, figure=0.411, unit="x", target=0.33, good=0.5,
        mark="meets", p50_us=900.0, p99_us=3_600.0, spread=0.25, count=10, rounds=5,
    )  # fmt: skip
    lag = Result(
        measure="loop-lag", title="", figure=3.25, unit="ms", target=5, good=2, mark="meets", limit="bare loop", limit_lag_us=1_100.0
    )
    lacking = unmeasured(OURS, "it is not installed: pip install it")
    print_results([measured_row, lacking], json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["figure"], first["mark"], second["unavailable"]) == (0.411, "meets", lacking.unavailable)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    print_results([measured_row, lag, lacking], json=False)
    shown = capsys.readouterr().out
    expected = ("nats-100", "12,346", "30,000", "0.41 x", "0.5", "meets", "900 us", "3.6 ms", "25%", "3.25 ms", "1.1 ms", "pip install it")
    assert [text for text in expected if text not in shown] == []


def test_the_table_of_the_document_has_the_machine_and_every_row() -> None:
    shown = markdown({"cpus": 2, "load": 0.5}, [row(OURS, 0.5), unmeasured(LAG, "it is not installed")]).splitlines()
    assert shown[0] == "cpus 2; load 0.5"
    assert shown[4].startswith("| `ours` | 0.50")
    assert "not measured" in shown[5]
    assert len({line.count("|") for line in shown[2:]}) == 1


def cuebook(*arguments: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUEBOOK_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "ops", *arguments], capture_output=True, text=True, timeout=50, check=False, cwd=ROOT, env=inherited
    )


def test_the_verb_prints_the_machine_and_a_line_per_measure(tmp_data: Path) -> None:
    done = cuebook("bench", "in-process-1", "--seconds", "0.02", "--rounds", "1", "--data", str(tmp_data))
    assert done.returncode == 0, done.stderr
    machine, row = map(json.loads, done.stdout.splitlines())
    assert machine["machine"]["python"]
    assert (row["measure"], row["rounds"]) == ("in-process-1", 1)
    assert "round 1 of 1" in done.stderr
    assert not tmp_data.exists()


def test_rows_are_chosen_by_a_list_too(tmp_data: Path) -> None:
    done = cuebook("bench", "--rows", "json-encode, json-decode", "--quick", "--rounds", "1", "--data", str(tmp_data))
    assert done.returncode == 0, done.stderr
    machine, *rows = map(json.loads, done.stdout.splitlines())
    assert machine["machine"]["quick"] is True
    assert [row["measure"] for row in rows] == ["json-encode", "json-decode"]


def checked(monkeypatch: pytest.MonkeyPatch, data: Path, *figures: float) -> list[list[str]]:
    """Run `bench --check` on one row that yields `figures` one after another; what was measured each time."""
    left, runs = list(figures), []

    async def measure(measures: Sequence[Measure], **_: object) -> list[Result]:
        runs.append([each.name for each in measures])
        return [row(each, left.pop(0)) for each in measures]

    monkeypatch.setattr("ops.bench.report.bench", measure)
    monkeypatch.setattr("ops.log_setup.configure", lambda *_, **__: None)
    bench_verb("replay", "json-encode", check=True, common=Common(data=data))
    assert left == []
    return runs


def test_the_check_passes_at_once_or_when_the_failed_rows_are_repeated(monkeypatch: pytest.MonkeyPatch, tmp_data: Path) -> None:
    both = ["replay", "json-encode"]
    assert checked(monkeypatch, tmp_data, 0.2, 1.0) == [both]
    assert checked(monkeypatch, tmp_data, 0.19, 1.0, 0.2) == [both, ["replay"]]


def test_the_check_fails_when_a_row_is_below_half_twice(monkeypatch: pytest.MonkeyPatch, tmp_data: Path) -> None:
    with pytest.raises(CommandError, match="twice: replay") as raised:
        checked(monkeypatch, tmp_data, 0.19, 0.9, 0.19, 1.0)
    assert raised.value.code is Exit.FAILURE


@pytest.mark.parametrize("arguments", [("frob",), ("--rows", "frob"), ("--rounds", "0"), ("--seconds", "0"), ("--quick", "--check")])
def test_the_verb_refuses_what_it_cannot_measure(tmp_data: Path, arguments: tuple[str, ...]) -> None:
    done = cuebook("bench", *arguments, "--data", str(tmp_data))
    assert done.returncode == 2
    assert done.stdout == ""
    assert not tmp_data.exists()
