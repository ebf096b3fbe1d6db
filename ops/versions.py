"""What runs here, and in which version: for `version`, `status`, `doctor` and the first line of every process."""

import importlib.metadata
import platform
import subprocess

from ops.event_loop import loop_name
from ops.exits import StartError
from ops.nats_server import find_program


def versions() -> dict[str, object]:
    """Return what decides how this installation behaves, for `version`, `status` and the start line; None = absent."""
    return {
        "cuebook": distribution_version("cuebook"),
        "python": platform.python_version(),
        "loop": loop_name(),
        "uvloop": distribution_version("uvloop"),
        "codec": f"msgspec {distribution_version('msgspec')}",
        "sqlite": sqlite_version(),
        "nats-py": distribution_version("nats-py"),
        "nats-server": nats_server_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def distribution_version(name: str) -> str | None:
    """Return the version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def sqlite_version() -> str:
    """Return the version and origin of the SQLite that the log uses."""
    from events.sqlite.sqlite_library import LIBRARY_NAME, LIBRARY_VERSION

    return f"{'.'.join(map(str, LIBRARY_VERSION))} ({LIBRARY_NAME})"


def nats_server_version() -> str | None:
    """Return what the embedded server's program says of itself; None if there is none or it does not start."""
    try:
        done = subprocess.run([find_program(), "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (StartError, OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().rpartition(" ")[2].removeprefix("v") or None
