"""Puts that need not wait for their commit, because another put waits for it (S38).

With durability "async" LangGraph goes on with the next step while a checkpoint is being stored, but calls ``put`` for the next one only
after this one has returned: as many commits, one after another, as steps. That a next put is under way can be seen from outside: the tasks
of a step write on its checkpoint, whose own put then stands in that chain. So a put that is followed by writes on a *newer checkpoint that
was not put yet* returns at once; its commit comes first, since commits are in the order of submission, and its failure is told to whoever
writes the thread next. With durability "sync" there are no such writes, and every put waits.

LangGraph's ids grow with time. So a checkpoint that never comes, of a run that was killed, lets no later put go early.
"""

import threading
from typing import Any, Final

from events.submitted import Submitted

Place = tuple[str, str]
"""(namespace, checkpoint id)"""
FOLLOWED: Final = object()
"""The result of a put that was let go."""


class Following:
    """Of one thread. Safe to be used from any thread."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._announced: dict[str, str] = {}
        """Per namespace, the newest checkpoint that something was written on and that was not put yet."""
        self._waiting: dict[Submitted[Any], tuple[Place, Submitted[Any]]] = {}
        """What callers wait for, each with what was put and its commit."""
        self._let_go: set[Submitted[Any]] = set()

    def announce(self, ns: str, checkpoint_id: str) -> None:
        """Something was written on that checkpoint, which was not put yet."""
        with self._guard:
            self._announced[ns] = max(checkpoint_id, self._announced.get(ns, ""))
            # Those of a commit that is done are about to end with it.
            for waited, (place, commit) in list(self._waiting.items()):
                if place[0] == ns and place[1] < checkpoint_id and not commit.done():
                    del self._waiting[waited]
                    self._let_go.add(commit)
                    waited.set_result(FOLLOWED)

    def waited(self, place: Place, commit: Submitted[Any]) -> Submitted[Any] | None:
        """What the put of `place` waits for, in place of its commit; None: for nothing."""
        with self._guard:
            announced = self._announced.get(place[0], "")
            if announced == place[1]:
                del self._announced[place[0]]
            if commit.done():
                return commit
            if place[1] < announced:
                self._let_go.add(commit)
                return None
            waited: Submitted[Any] = Submitted()
            self._waiting[waited] = (place, commit)
            return waited

    def was_let_go(self, commit: Submitted[Any]) -> bool:
        """Whether a caller does not wait for that commit."""
        with self._guard:
            return commit in self._let_go

    def ended(self, commit: Submitted[Any]) -> None:
        """That commit has ended: so do those who wait for it."""
        with self._guard:
            self._let_go.discard(commit)
            for waited in [waited for waited, (_, waits_for) in self._waiting.items() if waits_for is commit]:
                del self._waiting[waited]
                error = commit.exception()
                if error is None:
                    waited.set_result(commit.result())
                else:
                    waited.set_exception(error)
