"""A query whose answer does not exist yet: its caller waits for it instead of asking again and again."""

from collections.abc import Callable
from typing import Any


class NotYet(Exception):
    """Raised by a query: it is answered as soon as a commit of this actor makes `ready` true of its state.

    Nothing is recorded. What waits is known to the owner alone: a new owner hears of it because whoever asks repeats by id until its
    deadline (S9), and at its deadline it is told that time is up. So a caller must be able to ask again, as with every query.
    """

    def __init__(self, ready: Callable[[Any], bool]) -> None:
        """
        Args:
            ready: of the state, cheap, without effects: called at each commit of the actor for everyone who waits. Where it says yes the
                query is run again, and may say once more that there is no answer yet.
        """
        super().__init__()
        self.ready = ready
