"""`doctor` says what would gain most, after what is wrong."""

from pathlib import Path

import pytest

from events.clock import SystemClock, SystemEntropy
from events.log_directory import create_log
from ops import doctor
from ops.__main__ import main
from ops.finding import Finding
from ops.settings import Settings
from ops.up_state import ChildState, UpState


def running(workers: int) -> UpState:
    processes = tuple(ChildState(role=f"worker-{number}", pid=number + 1, started=None, restarts=0) for number in range(workers))
    return UpState(pid=1, started="x", started_at="", nats_url=None, ready=True, processes=processes)


@pytest.mark.parametrize(
    ("workers", "shards", "cores", "gains"),
    [(1, 4, 2, {"workers": 2.0}), (2, 4, 2, {}), (2, 4, 8, {"workers": 2.0, "shards": 2.0}), (4, 4, 4, {}), (1, 1, 2, {"shards": 2.0})],
)
def test_idle_cores_are_named_with_what_they_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, shards: int, cores: int, gains: dict[str, float]
) -> None:
    create_log(tmp_path / "log", shards, clock=SystemClock(), entropy=SystemEntropy())
    monkeypatch.setattr(doctor, "read_up", lambda data: running(workers))
    found = doctor._workers(Settings(data=tmp_path), cores)
    assert {one.check: one.gain for one in found} == gains


def test_the_largest_gain_stands_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def examine(_: object) -> object:
        for name, gain in (("small", 1.3), ("large", 4.0), ("none", None)):
            yield Finding(check=name, ok=True, found="", remedy=f"do {name}", gain=gain)

    monkeypatch.setattr(doctor, "examine", examine)
    assert main(["doctor", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "would gain most, up to 4.0 times: large: do large"
