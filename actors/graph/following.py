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
        self._waiting: dict[Place, tuple[Submitted[Any], Submitted[Any]]] = {}
        """Puts under way: the commit, and what their caller waits for."""
        self._let_go: set[Submitted[Any]] = set()

    def announce(self, ns: str, checkpoint_id: str) -> None:
        """Something was written on that checkpoint, which was not put yet."""
        with self._guard:
            self._announced[ns] = max(checkpoint_id, self._announced.get(ns, ""))
            for place in [place for place in self._waiting if place[0] == ns and place[1] < checkpoint_id]:
                self._release(*self._waiting.pop(place))

    def waited(self, place: Place, future: Submitted[Any]) -> Submitted[Any]:
        """What the put of `place` waits for, in place of its commit `future`."""
        with self._guard:
            announced = self._announced.get(place[0], "")
            if announced == place[1]:
                del self._announced[place[0]]
            waited: Submitted[Any] = Submitted()
            self._waiting[place] = (future, waited)
            future.add_done_callback(lambda done: self._committed(place, done, waited))
            if place[1] < announced:
                self._release(future, waited)
            return waited

    def was_let_go(self, future: Submitted[Any]) -> bool:
        """Whether the caller does not wait for that commit."""
        with self._guard:
            return future in self._let_go

    def _release(self, future: Submitted[Any], waited: Submitted[Any]) -> None:
        if not future.done():  # else its callback is about to end `waited`
            self._let_go.add(future)
            waited.set_result(FOLLOWED)

    def _committed(self, place: Place, future: Submitted[Any], waited: Submitted[Any]) -> None:
        with self._guard:
            if self._waiting.get(place) == (future, waited):
                del self._waiting[place]
            self._let_go.discard(future)
            if waited.done():
                return
            error = future.exception()
            if error is None:
                waited.set_result(future.result())
            else:
                waited.set_exception(error)
