"""The bench: that every measure runs, counts what it did, and stands beside its limit. No test asserts a time."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.bench.measure import MEASURES, Case, Measure, Result, Sample, closed_loop, in_turn, result, run_rounds, sample, selected
from ops.bench.report import bench, bench_folder, machine_facts, print_results

ROOT = Path(__file__).parents[3]
BLINK = 0.02


def case(*rates: float, order: list[str] | None = None, name: str = "") -> Case:
    """A case with one rate per round."""
    left = list(rates)

    async def run(seconds: float) -> Sample:
        if order is not None:
            order.append(name)
        return Sample(count=1, per_s=left.pop(0), p50_us=1.0, p99_us=2.0)

    return run


async def measured(tmp_path: Path, names: Sequence[str], rounds: int = 2) -> list[Result]:
    said: list[str] = []
    found = await bench(selected(names), folder=tmp_path, rounds=rounds, seconds=BLINK, progress=said.append)
    assert sum("round" in line for line in said) == rounds + 1
    return found


def check(found: Result, rounds: int) -> None:
    assert found.rounds == rounds
    assert found.count >= rounds
    assert found.per_s > 0
    assert found.limit_per_s > 0
    assert found.ratio > 0
    if found.p50_us is not None:
        assert found.p99_us is not None
        assert 0 < found.p50_us <= found.p99_us


async def test_commands_in_this_process(tmp_path: Path) -> None:
    one, hundred, hot = await measured(tmp_path, ["in-process"])
    assert (one.measure, hundred.measure, hot.measure) == ("in-process-1", "in-process-100", "in-process-one")
    for each in (one, hundred, hot):
        check(each, 2)
        assert each.p50_us is not None
    # A hundred callers each do at least one.
    assert hundred.count >= 200
    assert hot.count >= 200


async def test_appends_and_replay(tmp_path: Path) -> None:
    replay, appends = await measured(tmp_path, ["replay", "appends-100"], rounds=1)
    check(replay, 1)
    check(appends, 1)
    assert replay.count % 1_000 == 0
    assert appends.count >= 100


@pytest.mark.usefixtures("_nats_program")
async def test_asks_over_nats_beside_an_echo(tmp_path: Path) -> None:
    found = await measured(tmp_path, ["nats", "client"], rounds=1)
    assert [each.measure for each in found] == ["nats-1", "nats-100", "client-1", "client-100"]
    for each in found:
        check(each, 1)
        assert each.limit_p50_us is not None
        assert each.count >= (100 if each.measure.endswith("100") else 1)


def test_names_are_whole_or_beginnings() -> None:
    assert selected([]) == list(MEASURES)
    assert [each.name for each in selected(["replay", "nats"])] == ["nats-1", "nats-100", "replay"]
    with pytest.raises(ValueError, match="in-proc"):
        selected(["in-proc"])


def test_every_limit_is_measured_under_one_title() -> None:
    assert len({each.name for each in MEASURES}) == len(MEASURES)
    assert len({each.limit for each in MEASURES}) == len({(each.limit, each.limit_title) for each in MEASURES})


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


async def test_in_turn_does_each_number_once() -> None:
    done: list[int] = []

    async def operation(number: int) -> None:
        done.append(number)

    await in_turn(operation, 5)
    assert sorted(done) == [0, 1, 2, 3, 4]


async def test_every_second_round_runs_backwards() -> None:
    order: list[str] = []
    cases = {name: case(1.0, 1.0, 1.0, order=order, name=name) for name in "abc"}
    rounds: list[int] = []
    await run_rounds(cases, rounds=3, seconds=0.0, on_round=rounds.append)
    assert "".join(order) == "abccbaabc"
    assert rounds == [1, 2, 3]


async def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    """A slow disk in one round meets figure and limit alike, and leaves the ratio alone."""
    measure = Measure(name="ours", title="", limit="bare", limit_title="")
    cases = {"ours": case(50.0, 5.0, 60.0), "bare": case(100.0, 10.0, 100.0)}
    found = result(measure, await run_rounds(cases, rounds=3, seconds=0.0, on_round=lambda _: None))
    assert (found.per_s, found.limit_per_s, found.ratio, found.count) == (50.0, 100.0, 0.5, 3)
    assert found.spread == pytest.approx(0.2)


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
    assert {"python", "loop", "sqlite", "fsync_us", "load", "nats-server"} <= set(facts)
    assert float(str(facts["fsync_us"])) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_a_table_and_a_pipe_every_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Result(
        measure="nats-100", title="", per_s=12_345.6, limit="echo", limit_per_s=30_000.0, ratio=0.411, target=0.33, p50_us=900.0,
        p99_us=3_600.0, limit_p50_us=None, limit_p99_us=None, spread=0.25, count=10, rounds=5,
    )  # fmt: skip
    print_results([row], json=True)
    assert json.loads(capsys.readouterr().out)["ratio"] == 0.411
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    print_results([row], json=False)
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("nats-100", "12,346", "30,000", "0.41", "900 us", "3.6 ms", "4.0", "25%"))


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


@pytest.mark.parametrize("arguments", [("frob",), ("--rounds", "0"), ("--seconds", "0")])
def test_the_verb_refuses_what_it_cannot_measure(tmp_data: Path, arguments: tuple[str, ...]) -> None:
    done = cuebook("bench", *arguments, "--data", str(tmp_data))
    assert done.returncode == 2
    assert done.stdout == ""
    assert not tmp_data.exists()
