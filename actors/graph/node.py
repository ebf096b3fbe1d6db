"""What a node of a graph may ask of the actor that it runs in: journaled steps, asks, views and model calls of its own (S15, S19, S37).

A node that finished does not run again after a crash, one that was under way does; so whatever a node asks for is recorded under the
node's own task (`actors.scope`): the re-run of one finds its own results and no other's, and what it did before an `interrupt(...)` is not
done again behind it.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from langgraph.config import get_config

from actors.actor import Actor
from actors.errors import BadPayload
from actors.graph.turn_saver import TurnSaver
from actors.models.records import Piece
from actors.ref import ActorRef, ViewRef
from actors.scope import Scope, within
from events.errors import ConfigurationError

if TYPE_CHECKING:
    from actors.turn import Turn

_ID_CHARACTERS: Final = 12
"""Of a task's id, in keys that people read: 48 bits among at most some thousand tasks of one turn."""
SPOKEN: Final = "cuebook_call"
"""In the metadata of a message whose text has gone to ``cue.chunk`` while it was being said."""
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")
_TASK: Final = re.compile(rf":([0-9a-f]{{{_ID_CHARACTERS}}})(?=[| ]|$)")


def get_actor() -> Actor[Any]:
    """The actor that this node runs in: ``await get_actor().step("book", book, trip)``, ``.model("fast").chat(...)``, ``.ref(...)``,
    ``.view(...)``, ``.chunk(...)``, ``.new_id()``, as in a handler. What a node changes it returns to its graph, and what it waits for is
    an ``interrupt(...)``, so there is no emit, tell, schedule or wait_for.

    Each effect is recorded: a node that a crash cut off runs again and takes from the record what had finished. Two uses of one name at
    the same time need ``key=``, as everywhere.

    Raises:
        ConfigurationError: not in an ``async def`` node or tool of a graph that runs inside an actor.
    """
    run = _RUN.get()
    if run is None:
        raise ConfigurationError("get_actor() is for nodes of a graph that runs inside an actor: see actors.graph.GraphActor")
    try:
        asyncio.get_running_loop()
        namespace: str = get_config()["configurable"]["checkpoint_ns"]
    except (RuntimeError, KeyError) as error:
        raise ConfigurationError("get_actor() is for `async def` nodes and tools: a plain function runs in a thread") from error
    return run.actor_of(namespace, _CALL.get())


def inside_actor() -> bool:
    """Whether this is code of a graph that runs inside an actor."""
    return _RUN.get() is not None


class Run:
    """One run of a graph in one turn, as its nodes see it."""

    def __init__(self, actor: Actor[Any], saver: TurnSaver) -> None:
        self._actor = actor
        self._saver = saver
        self._scopes: dict[str, Scope] = {}
        self.results: dict[str, Any] = {}
        """What calls of tools gave, by their scopes: a node that is tried again, because another of its tools failed, makes them once."""

    @property
    def actor(self) -> Actor[Any]:
        """The actor as such, outside of all nodes."""
        return self._actor

    def actor_of(self, namespace: str, call: str | None = None) -> Actor[Any]:
        """`Run`'s actor for the task that LangGraph calls `namespace`, or for one call of a tool in it (`calling`)."""
        scope = self.scope_of(namespace, call)
        # Duck-typed: an actor asks its turn for nothing that `_NodeTurn` does not answer.
        return type(self._actor)(cast("Turn", _NodeTurn(self._actor._turn, scope, self._saver.written)))

    def scope_of(self, namespace: str, call: str | None = None) -> Scope:
        """Whose effects those of `actor_of` are."""
        name = scope_name(namespace) if call is None else f"{scope_name(namespace)}|{call}"
        return self._scopes.setdefault(name, Scope(name))


_RUN: "ContextVar[Run | None]" = ContextVar("cuebook_graph_run", default=None)


_CALL: "ContextVar[str | None]" = ContextVar("cuebook_tool_call", default=None)
"""The call of a tool that is under way, with those around it, as it stands in keys."""


def current_run() -> Run | None:
    """The run that this code is part of."""
    return _RUN.get()


@contextmanager
def calling(name: str, call_id: str) -> Iterator[str]:
    """What is asked of the actor in this block is asked by that call of a tool. Yields how it stands in keys: ``name:0123456789ab``, a
    digest of its id, as for a task of a graph."""
    clean = _STRANGE.sub("_", name)
    own = f"{clean}:{hashlib.sha256(call_id.encode()).hexdigest()[:_ID_CHARACTERS]}"
    outer = _CALL.get()
    token = _CALL.set(own if outer is None else f"{outer}|{own}")
    try:
        yield _CALL.get() or own
    finally:
        _CALL.reset(token)


@contextmanager
def running(run: Run) -> Iterator[None]:
    """Nodes that are started in this block belong to `run`."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


def scope_name(namespace: str) -> str:
    """``outer:0123456789ab|inner:ba9876543210`` of what LangGraph calls a task, which has the same ids on a re-run."""
    parts = []
    for part in namespace.split("|"):
        name, _, task = part.partition(":")
        parts.append(f"{name}:{short_id(task)}" if task else name)
    return "|".join(parts)


def short_id(task: str) -> str:
    """The part of a task's id that stands in keys."""
    return task.replace("-", "")[:_ID_CHARACTERS]


def tasks_of(key: str | None) -> set[str]:
    """The short ids of the tasks that an effect recorded under `key` belongs to, outer ones too."""
    return set() if key is None else set(_TASK.findall(key))


class _NodeTurn:
    """A turn as one node sees it: every effect in the node's scope, and only once the checkpoint that the node started from is durable -
    else a re-run, which would start from another one, could not tell whose effect it was."""

    def __init__(self, turn: "Turn", scope: Scope, written: Callable[[], Any]) -> None:
        self._turn = turn
        self._scope = scope
        self._written = written
        self.kind, self.key, self.command, self.models, self.home = turn.kind, turn.key, turn.command, turn.models, turn.home

    @property
    def state(self) -> Any:
        return self._turn.state

    async def step(self, *given: Any) -> Any:
        await self._written()
        with within(self._scope):
            return await self._turn.step(*given)

    def ref(self, actor: type[Actor[Any]] | str, id: str, timeout_s: float | None) -> ActorRef:
        found = self._turn.ref(actor, id, timeout_s)

        async def ask(method: str, arguments: dict[str, Any]) -> Any:
            await self._written()
            with within(self._scope):
                return await getattr(found, method)(**arguments)

        return ActorRef(found.type, found.id, ask, self._refuse("tell"))

    def view(self, projection: str, fresh: bool) -> ViewRef:
        found = self._turn.view(projection, fresh)

        async def ask(operation: str, arguments: Mapping[str, Any]) -> Any:
            await self._written()
            with within(self._scope):
                return await getattr(found, operation)(**arguments)

        return ViewRef(ask)

    def now(self) -> Any:
        return self._turn.now()

    def random(self) -> float:
        with within(self._scope):
            return self._turn.random()

    def new_id(self) -> str:
        with within(self._scope):
            return self._turn.new_id()

    def chunk(self, data: Any) -> None:
        *outer, node = (part.partition(":")[0] for part in self._scope.name.split("|"))
        if isinstance(data, Piece):
            said = {"call": data.call, "attempt": data.attempt, "offset": data.offset, "token": data.text}
        else:
            said = {"said": data}
        self._turn.chunk({"graph": outer, "node": node, **said})

    async def wait_for(self, *_: Any) -> NoReturn:
        self._refuse("wait_for")()

    def __getattr__(self, name: str) -> Any:
        if name in ("emit", "tell", "schedule", "unschedule"):
            return self._refuse(name)
        raise AttributeError(name)

    def _refuse(self, what: str) -> Callable[..., NoReturn]:
        # What only leaves with the turn's commit would be lost with a crash: a finished node is not asked again.
        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise BadPayload(f"{what}: a node changes its graph's state by what it returns, and waits with interrupt()")

        return refuse
