"""The one thread that tells other processes that this one works: it beats every lease held, while the event loop turns (S1).

A thread and not a task, so that a long await, a busy loop of a few seconds or a slow commit never cost a shard; tied to the loop, so that
a process whose loop is stuck for `LOOP_BLOCKED_S` does. What holds the interpreter's lock (a C call without releasing it) stops this thread
too, and then the bound is `STALL_AFTER_S`.
"""

import threading

import msgspec
import structlog

from events.clock import Clock, SystemClock
from events.errors import InvariantError
from events.limits import LOOP_BLOCKED_S, STALL_AFTER_S
from runtime.ownership.lease import Lease

BEAT_EVERY_S = 1.0
if BEAT_EVERY_S * 3 > STALL_AFTER_S:
    raise ValueError("runtime/ownership/heartbeat.py: two lost heartbeats must not look like a stall")

log = structlog.get_logger(__name__)


class HeartbeatStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """rounds: passes over all leases. held_back: passes without a beat because the loop was blocked. errors: beats not written."""

    leases: int
    rounds: int
    held_back: int
    errors: int


class Heartbeat:
    """Beats leases once a second from `start` to `stop`. All methods may be called from any thread."""

    def __init__(self, *, clock: Clock | None = None, every_s: float = BEAT_EVERY_S) -> None:
        self._clock = clock or SystemClock()
        self._every_s = every_s
        self._guard = threading.Lock()
        self._leases: set[Lease] = set()
        self._turned = self._clock.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._rounds = self._held_back = self._errors = 0
        self._failing = False

    def start(self) -> None:
        """Start the thread; the time until the first `loop_turned` counts from here."""
        if self._thread is not None:
            raise InvariantError("the heartbeat runs already")
        self._stopped.clear()
        self.loop_turned()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; the leases stay held and grow old. Idempotent."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def loop_turned(self) -> None:
        """The event loop runs; called from it at least every few seconds."""
        self._turned = self._clock.monotonic()

    def add(self, lease: Lease) -> None:
        """Beat `lease` from the next pass on."""
        with self._guard:
            self._leases.add(lease)

    def remove(self, lease: Lease) -> None:
        """No longer beat `lease`. A beat under way ends before `Lease.release` closes the file."""
        with self._guard:
            self._leases.discard(lease)

    def beat(self) -> bool:
        """One pass; what the thread does each second.

        Returns:
            False if the loop has not turned for `LOOP_BLOCKED_S`, so nothing was written.
        """
        with self._guard:
            leases = list(self._leases)
        self._rounds += 1
        if self._clock.monotonic() - self._turned > LOOP_BLOCKED_S:
            self._held_back += 1
            return False
        failed: OSError | None = None
        for lease in leases:
            try:
                lease.beat()
            except OSError as error:
                failed = error
                self._errors += 1
        # Once per trouble, not once per second.
        if failed is not None and not self._failing:
            log.warning("heartbeat_not_written", reason=str(failed))
        self._failing = failed is not None
        return True

    def statistics(self) -> HeartbeatStatistics:
        """Counters since the start of the process."""
        return HeartbeatStatistics(leases=len(self._leases), rounds=self._rounds, held_back=self._held_back, errors=self._errors)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.beat()
            except Exception:
                # This thread is all that stands between a healthy worker and the loss of its shards.
                log.exception("heartbeat_failed")
