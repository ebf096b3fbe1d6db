"""What ops/run does once the environment is there: review a folder, with a deployment around it.

With --once it becomes `cuebook review PATH --once`. Without, it starts `cuebook up`, reviews through it, and keeps it
until Ctrl-C. Ctrl-C reaches `up` from the terminal itself; here it only must not end the waiting.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ops import child
from ops.exits import CommandError, Exit, print_error
from ops.output import progress
from ops.settings import load_settings
from ops.up_state import read_up

ROOT = Path(__file__).resolve().parent.parent
CUEBOOK = (sys.executable, "-P", "-m", "ops")
READY_TIMEOUT_S = 60.0
TEAM_APP = "ops.team_app:app"


def main(argv: Sequence[str], program: Sequence[str] = CUEBOOK) -> int:
    """Run the review, in one process or with a deployment around it; return the exit code."""
    parser = argparse.ArgumentParser(prog="ops/run", description=str(__doc__).partition("\n")[0])
    parser.add_argument("path", nargs="?", type=Path, default=ROOT, help="what to review (default: this repository)")
    parser.add_argument("--once", action="store_true", help="end when the report is written")
    parser.add_argument("--out", type=Path, help="folder of the report")
    parser.add_argument("--data", type=Path, help="the deployment's folder")
    options = parser.parse_args(argv)
    data = ["--data", str(options.data)] if options.data else []
    review = [*program, "review", str(options.path), "--screen", *(["--out", str(options.out)] if options.out else []), *data]
    if options.once:
        sys.stdout.flush()
        os.execv(review[0], [*review, "--once"])
    try:
        return with_deployment(
            [*program, "up", "--workers", "2", "--app", TEAM_APP, *data], review, load_settings({"data": options.data}).settings.data
        )
    except CommandError as error:
        print_error(error)
        return int(error.code)


def with_deployment(up: Sequence[str], review: Sequence[str], data: Path) -> int:
    """Start `up`, run the review, keep `up` until it is told to stop; return the review's exit code.

    `up` gets SIGTERM when this process dies, so that it drains instead of staying behind.
    """
    deployment = child.spawn(up, death_signal=signal.SIGTERM, own_session=False)
    # Handlers, not SIG_IGN: that would be inherited by the review.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: deployment.terminate())
    wait_ready(deployment, data)
    code = subprocess.run(review, check=False, stdin=subprocess.DEVNULL).returncode
    if deployment.poll() is None:
        progress(f"the deployment runs on {data}; Ctrl-C ends it")
    deployment.wait()
    return int(Exit.INTERRUPTED) if code < 0 else code


def wait_ready(deployment: "subprocess.Popen[bytes]", data: Path) -> None:
    """Wait until up.json says that the workers take commands.

    Raises:
        CommandError: `up` ended first (with its code), or was not ready in time (TIMEOUT).
    """
    give_up = time.monotonic() + READY_TIMEOUT_S
    while True:
        if (code := deployment.poll()) is not None:
            codes = [known for known in Exit if known == code]
            raise CommandError("the deployment did not start", code=codes[0] if codes else Exit.FAILURE)
        state = read_up(data)
        if state is not None and state.pid == deployment.pid and state.ready:
            return
        if time.monotonic() > give_up:
            child.stop_blocking(deployment, 10.0)
            raise CommandError(f"the deployment is not ready after {READY_TIMEOUT_S:.0f} s", code=Exit.TIMEOUT)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
