"""ops/run and ops/test before and after the environment is there. Making one for real is what ops/test itself does."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops import bootstrap, launch
from ops.exits import CommandError, Exit

ROOT = Path(__file__).resolve().parents[3]

# Plays `cuebook up` (writes up.json, then waits for SIGTERM) and `cuebook review`, and notes what it was asked.
FAKE_CUEBOOK = """
import os, signal, sys, threading
from pathlib import Path
import msgspec
from ops.child import process_started
from ops.private_files import write_private
from ops.up_state import UpState
verb, arguments = sys.argv[1], sys.argv[2:]
data = Path(arguments[arguments.index("--data") + 1])
write_private(data / f"{verb}.said", " ".join(arguments))
if verb == "up":
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    state = UpState(pid=os.getpid(), started=process_started(os.getpid()), started_at="", nats_url=None, ready=True,
                    processes=())
    write_private(data / "up.json", msgspec.json.encode(state).decode())
    stopped.wait()
elif "--once" not in arguments:
    os.kill(os.getppid(), signal.SIGTERM)
"""


def test_options_are_taken_out_of_the_arguments() -> None:
    arguments = ["-x", "--python", "python3.12", "tests"]
    assert bootstrap.take_option(arguments, "--python") == "python3.12"
    assert arguments == ["-x", "tests"]
    arguments = ["--python=p"]
    assert bootstrap.take_option(arguments, "--python") == "p"
    assert bootstrap.take_option(arguments, "--python") is None
    with pytest.raises(bootstrap.BootstrapError):
        bootstrap.take_option(["--python"], "--python")


def test_an_environment_with_the_right_marker_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start installs nothing: neither venv nor pip may run."""
    inner = tmp_path / "bin" / "python"
    inner.parent.mkdir()
    inner.symlink_to(sys.executable)
    identity = bootstrap.interpreter_identity(sys.executable)
    (tmp_path / bootstrap.MARKER).write_text("\n".join(bootstrap.wanted_marker(identity)))
    monkeypatch.setattr(bootstrap, "run_pip", lambda *_args, **_named: pytest.fail("pip ran"))
    assert bootstrap.ensure_environment(tmp_path, sys.executable) == inner


def test_a_changed_lock_is_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    lock = tmp_path / "lock"
    lock.write_text("a==1\n")
    monkeypatch.setattr(bootstrap, "LOCK", lock)
    monkeypatch.setattr(bootstrap, "make_or_keep", lambda env, *_: (env / "bin").mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(bootstrap, "run_pip", lambda _env, arguments, **_named: ran.append(arguments))
    env = tmp_path / "env"
    for text in ("a==1\n", "a==2\n"):
        lock.write_text(text)
        bootstrap.ensure_environment(env, sys.executable)
    assert [arguments[0] for arguments in ran] == ["--require-hashes", "--no-deps"] * 2


def test_an_interpreter_that_does_not_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(bootstrap.BootstrapError, match=r"Python 3\.11"):
        bootstrap.interpreter_identity(str(tmp_path / "python9"))


@pytest.mark.parametrize("script", ["run", "test"])
def test_the_scripts_refuse_a_python_that_does_not_fit(script: str) -> None:
    done = subprocess.run(
        [ROOT / "ops" / script],
        env={**os.environ, "PYTHON": "/nonexistent/python3"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "/nonexistent/python3" in done.stderr


def test_the_scripts_are_plain_sh() -> None:
    for script in ("run", "test", "lock", "find_python.sh"):
        subprocess.run([shutil.which("sh") or "sh", "-n", ROOT / "ops" / script], check=True, timeout=30)


def fake_program(tmp_path: Path) -> list[str]:
    path = tmp_path / "fake.py"
    path.write_text(FAKE_CUEBOOK)
    return [sys.executable, str(path)]


def launch_process(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    code = "import sys; from ops import launch; sys.exit(launch.main(sys.argv[2:], sys.argv[1].split('|')))"
    return subprocess.run(
        [sys.executable, "-c", code, "|".join(fake_program(tmp_path)), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_once_becomes_the_review(tmp_path: Path, tmp_data: Path) -> None:
    done = launch_process(tmp_path, "src", "--once", "--out", "o", "--data", str(tmp_data))
    assert done.returncode == 0, done.stderr
    assert (tmp_data / "review.said").read_text() == f"src --screen --out o --data {tmp_data} --once"
    assert not (tmp_data / "up.said").exists()


def test_without_once_the_review_runs_beside_a_deployment_that_ends_with_it(tmp_path: Path, tmp_data: Path) -> None:
    done = launch_process(tmp_path, "--data", str(tmp_data))
    assert done.returncode == 0, done.stderr
    assert (tmp_data / "up.said").read_text() == f"--workers 2 --app ops.team_app:app --data {tmp_data}"
    assert (tmp_data / "review.said").read_text() == f"{ROOT} --screen --data {tmp_data}"


def test_a_deployment_that_does_not_start_gives_its_own_code(tmp_data: Path) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(CommandError) as refused:
            launch.with_deployment([sys.executable, "-c", "raise SystemExit(7)"], ["false"], tmp_data)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert refused.value.code is Exit.CONFLICT
