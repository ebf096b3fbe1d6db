"""Time and randomness as ports, so that a simulation can own both. The only place that reads the wall clock or the entropy pool."""

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def wall_us(self) -> int:
        """Microseconds since 1970, UTC. May jump; never used to order events (I-19)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, with no meaning across machines."""
        ...


class Entropy(Protocol):
    """Where randomness comes from."""

    def token_bytes(self, count: int) -> bytes:
        """`count` random bytes."""
        ...


class SystemClock:
    """The operating system's clocks."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class SystemEntropy:
    """The operating system's entropy pool."""

    def token_bytes(self, count: int) -> bytes:
        return os.urandom(count)
