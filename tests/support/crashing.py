"""Makes this process die by SIGKILL at a crash point, as ``CRASH_AT`` and ``CRASH_MARK`` in its environment say.

``CRASH_AT`` is ``point`` or ``point:n``, the n-th time it is reached (default 1). The file ``CRASH_MARK`` is made just before: it proves
that the point was reached, and keeps a process that is started again from dying of it again.
"""

import os
import signal
import threading
from pathlib import Path

from events.crash_points import CrashPoint, install


def environment(point: CrashPoint, mark: Path, n: int = 1) -> dict[str, str]:
    """What a process needs to die at `point`."""
    return {"CRASH_AT": f"{point.value}:{n}", "CRASH_MARK": str(mark)}


def arm() -> None:
    """Install the hook if the environment asks for it."""
    asked = os.environ.get("CRASH_AT")
    if not asked:
        return
    name, _, times = asked.partition(":")
    point, left, mark = CrashPoint(name), int(times or 1), Path(os.environ["CRASH_MARK"])
    # Points are reached on the loop's thread and on those of the shard files.
    lock = threading.Lock()

    def hook(at: CrashPoint) -> None:
        nonlocal left
        if at is not point:
            return
        with lock:
            left -= 1
            if left > 0 or mark.exists():
                return
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # the signal may be delivered on another thread a moment later: nothing more happens on this one

    install(hook)
