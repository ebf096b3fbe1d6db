"""What runs on a data folder, as its `up.json` says. Apart from the process tree that writes it: a verb that only looks loads little."""

from pathlib import Path

import msgspec

from ops import child


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """One live role process, as up.json lists it."""

    role: str
    pid: int
    started: str | None
    restarts: int


class UpState(msgspec.Struct, frozen=True, kw_only=True):
    """What DATA/up.json (mode 0600) says of the running tree, for `status`, `stop` and clients of this machine."""

    pid: int
    started: str | None
    """Tells this process from a later one with the same pid: `child.process_started`."""
    started_at: str
    nats_url: str | None
    """With credentials: a client given this URL can connect."""
    ready: bool
    processes: tuple[ChildState, ...]


def read_up(data: Path) -> UpState | None:
    """Return the tree that runs on `data` now; None if none does, also if a killed one left its up.json behind."""
    try:
        state = msgspec.json.decode((data / "up.json").read_bytes(), type=UpState)
    except (OSError, msgspec.DecodeError):
        return None
    return state if child.process_started(state.pid) == state.started is not None else None
