"""The part of the log port by which readers know what is final (S30)."""

from typing import Protocol


class ShardFloor(Protocol):
    """What `store.ShardStore` offers beside appending and closing streams."""

    def raise_floor(self, time: int) -> int:
        """Promise that no event is recorded at or below a logical time from now on, and that what stands below it can be read.

        Costs no write, so it holds while this writer is open; who hands the shard on hands on the promise too. Nothing is raised while a
        transaction runs: it has looked at the clock already.

        Args:
            time: the logical time to promise, µs.

        Returns:
            What is promised: at least what was before, `time` or more if it could be raised.
        """
        ...
