"""Actor, command and query: what an agent author writes, and what a handler may ask for while it runs."""

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, TypeVar, overload

from actors.errors import BadPayload
from actors.event import Event, S
from actors.recovery import Recovery, recovery_of
from actors.ref import ActorRef, ViewRef
from actors.step_cache import CacheWish
from events.ids import is_token, stream_id

if TYPE_CHECKING:
    from actors.models.service import ModelRef
    from actors.turn import Turn

T = TypeVar("T")
Namespace = Literal["response", "api", "analysis"]
"""Of the cache: `events.caching.NAMESPACES`."""
F = TypeVar("F", bound=Callable[..., Any])
_ROLE = "__cuebook_role__"


def command(function: F) -> F:
    """Mark a method as a command: it may emit events, and may refuse by raising `Rejected`."""
    setattr(function, _ROLE, "command")
    return function


def query(function: F) -> F:
    """Mark a plain method as a query: it changes nothing and answers from the state."""
    setattr(function, _ROLE, "query")
    return function


def handler_role(function: Any) -> Literal["command", "query"] | None:
    """What `command` or `query` marked, else None."""
    role: Literal["command", "query"] | None = getattr(function, _ROLE, None)
    return role


class Actor(Generic[S]):
    """One agent: an isolated unit with a state, a mailbox and a stream of events.

    Subclass as ``class AccountActor(Actor[Account], name="account")``; without `name` the class is abstract. An instance lives for one
    turn: what must last is emitted as events, so setting attributes is refused.

    ``sealed=True`` encrypts everything that an actor of this class, or of one derived from it, says and is told, each stream under a key
    of its own outside the data folder; ``cuebook erase`` destroys the key (S29). It needs ``cuebook[sealed]``.
    """

    __slots__ = ("_turn",)
    __actor_name__: ClassVar[str | None] = None
    __actor_sealed__: ClassVar[bool] = False
    _turn: "Turn"

    def __init_subclass__(cls, *, name: str | None = None, sealed: bool | None = None) -> None:
        super().__init_subclass__()
        if name is not None and not is_token(name):
            raise TypeError(f"{cls.__name__}: the name {name!r} is not 1 to 64 letters, digits, '_' or '-'")
        cls.__actor_name__ = name
        if sealed is not None:
            cls.__actor_sealed__ = sealed

    def __init__(self, turn: "Turn") -> None:
        object.__setattr__(self, "_turn", turn)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name}: an actor keeps nothing but its state; emit an event that changes it")

    @property
    def id(self) -> str:
        """The actor's own id, the second half of its stream's name."""
        return self._turn.key

    @property
    def actor_type(self) -> str:
        """The actor's type, the first half of its stream's name."""
        return self._turn.kind.name

    @property
    def home(self) -> int:
        """Where this actor lives: actors of one home always live in one process, whichever that is by now. The same on a re-run."""
        return self._turn.home

    @property
    def correlation_id(self) -> str:
        """What everything that one request set in motion has in common; also on a re-run."""
        return self._turn.command.correlation_id or self._turn.command.command_id

    @property
    def sender(self) -> str | None:
        """The actor whose turn asked for this one, as ``type/id``; None from outside. Recorded, so a re-run sees the same."""
        return self._turn.command.sender

    @property
    def state(self) -> S:
        """The state with everything emitted so far. Read it; change it only through events."""
        state: S = self._turn.state
        return state

    def emit(self, event: Event[S]) -> None:
        """Record a fact. It applies to `state` at once; all facts of a turn commit together or not at all (S16).

        Raises:
            EncodingError: the event does not come back from JSON as it went in, or holds what S13 refuses.
            TooLarge: beyond 1 MiB, 1,000 events or 4 MiB in this turn.
        """
        self._turn.emit(event)

    @overload
    async def step(
        self,
        name: str,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        key: str | None = None,
        once: bool = False,
        recovery: Recovery | None = None,
        verify: Callable[..., Any] | None = None,
        timeout_s: "float | timedelta | None" = None,
        cache_ttl: "float | timedelta | None" = None,
        namespace: "Namespace | None" = None,
        cache_key: Any = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def step(
        self,
        name: str,
        function: Callable[..., T],
        *args: Any,
        key: str | None = None,
        once: bool = False,
        recovery: Recovery | None = None,
        verify: Callable[..., Any] | None = None,
        timeout_s: "float | timedelta | None" = None,
        cache_ttl: "float | timedelta | None" = None,
        namespace: "Namespace | None" = None,
        cache_key: Any = None,
        **kwargs: Any,
    ) -> T: ...

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        once: bool = False,
        recovery: Recovery | None = None,
        verify: Callable[..., Any] | None = None,
        timeout_s: "float | timedelta | None" = None,
        cache_ttl: "float | timedelta | None" = None,
        namespace: "Namespace | None" = None,
        cache_key: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Run a side effect once and journal its result; after a crash a finished step returns what was recorded (S15).

        The first step of a turn waits until every earlier turn of this actor is committed. A plain `def` runs in a thread. The result
        passes through JSON and comes back as the annotated return type of `function`.

        Args:
            name: stable name of the step within this method; a re-run matches by (name, key, n-th use).
            function: called with `args` and `kwargs`, which are recorded and so must be JSON values.
            key: names one of several concurrent uses of `name`.
            once: at most once: if a crash leaves open whether it happened, the actor is held until a person says so with ``_answer``, and
                it is never guessed (S21). The same as ``recovery="ask"``.
            recovery: what becomes of an attempt that a crash cut off, see `actors.recovery.Recovery`; None = ``repeat``, under the same
                `actors.idempotency_key`.
            verify: of ``recovery="verify"``: called as `function` would be, with the same `idempotency_key`, in place of running it blindly
                again. It returns what `function` would have returned if the effect happened, None if it did not.
            timeout_s: the deadline of the effect, seconds or a timedelta from its intent, also across restarts. An attempt that runs then
                is cancelled, and with it the request or child process that it waits for (a plain `def` runs on in its thread, unheard);
                what becomes of it `recovery` says, see there. What a person or a retry of the command begins anew has as long again.
                None = no deadline: a started turn does not end at that of its command (S10).
            cache_ttl: take a result that this step had with the same content at most so many seconds ago, if the cache has it, and offer
                ours to later ones (S37). Only for what gives the same with the same content. Another actor, and so another workspace, never
                gets it. What was taken is recorded as the result, and marked.
            namespace: ``response`` (good for 30 minutes), ``api`` (1 hour) or ``analysis`` (2 hours); alone, it is cached for that time.
            cache_key: what the result depends on, any JSON value, in place of the arguments: a digest, or less than all of them. Needed
                where `function` is a method or a closure.

        Raises:
            StepFailed: `function` or `verify` raised; recorded, and raised again on a re-run. `type` is ``deadline`` where the step did not
                end in time, ``unknown`` where an attempt of ``recovery="never"`` was cut off, with the `reason` ``deadline`` if by that.
            BadPayload: a step cannot be cached or recovered like this.
        """
        wish: CacheWish | None = None
        if cache_ttl is not None or namespace is not None:
            wish = CacheWish(cache_ttl, namespace, cache_key)
        chosen = recovery_of(name, recovery, once, verify)
        if wish is not None and chosen != "repeat":
            raise BadPayload(f"step {name}: what happens at most once is not cached")
        if wish is None and cache_key is not None:
            raise BadPayload(f"step {name}: cache_key without cache_ttl")
        return await self._turn.step(name, function, args, kwargs, key, chosen, wish, verify, timeout_s)

    @overload
    async def wait_for(self, name: str, *, timeout_s: "float | timedelta | None" = None) -> Any: ...

    @overload
    async def wait_for(self, name: str, *, timeout_s: "float | timedelta | None" = None, type: "type[T]") -> T: ...

    async def wait_for(self, name: str, *, timeout_s: "float | timedelta | None" = None, type: Any = Any) -> Any:
        """Wait durably, for days if need be, until somebody answers with ``_answer`` (S20).

        What was emitted, sent and scheduled before commits together with the wait, and the mailbox is free until the answer. Then the
        method runs again from its start: finished steps and asks return what was recorded, and behind the wait `state` is the state as it
        is by then; a value read before it is old. Not while a step or an ask of the same turn is still under way.

        Args:
            name: what is waited for; a re-run matches by (name, n-th use).
            timeout_s: seconds or a timedelta, also across restarts; None waits for ever.
            type: what the answer must be; another one is refused with 400 and the wait stays open. JSON must be able to carry it.

        Raises:
            WaitExpired: nobody answered in time.
            Overloaded: 100 turns of this actor wait already.
        """
        return await self._turn.wait_for(name, timeout_s, type)

    def ref(self, actor: "type[Actor[Any]] | str", id: str, *, timeout_s: float | None = None) -> ActorRef:
        """Another actor: ``await ref.method(...)`` asks, ``ref.tell.method(...)`` sends with the commit and returns the command's id.

        Args:
            timeout_s: at most this long per ask; never longer than what is left of this turn's own deadline (S10).
        """
        return self._turn.ref(actor, id, timeout_s)

    def types_with(self, method: str) -> list[str]:
        """The actor types of this app that have such a method, in order of their names. What the code has is in no log: look before a
        send, and decide nothing by it that a re-run would have to decide alike."""
        return sorted(name for name, kind in self._turn.kind.beside.items() if method in kind.methods)

    def cancel(self, actor: "type[Actor[Any]] | str", id: str, command_id: str) -> None:
        """Take back a command that this actor has sent (S22): leaves with this turn's commit, and reaches the other actor after what was
        sent to it before, ahead of its mailbox. A turn that runs is ended at its next await, with its steps, model calls and programs;
        one that has ended stays as it is.

        Args:
            command_id: what ``ref.tell.method(...)`` returned.
        """
        type_name = actor if isinstance(actor, str) else actor.__actor_name__
        self._turn.tell(stream_id(str(type_name), id), "_cancel", {"command_id": command_id})

    def schedule(
        self, when: "float | timedelta | datetime", method: str, /, *, every: "float | timedelta | None" = None,
        timer_id: str | None = None, **arguments: Any,
    ) -> str:  # fmt: skip
        """Call a command of this actor later: a durable timer, set by this turn's commit, that fires once in effect (S26).

        Args:
            when: seconds or a timedelta from now, which clock steps do not change; or a date with a time zone.
            method: the command, called with `arguments`; checked now.
            every: recur with this period after `when`. Missed dates fire once.
            timer_id: a name to replace or `unschedule` it by, default a fresh one.

        Returns:
            The timer's id.
        """
        return self._turn.schedule(when, method, every, timer_id, arguments)

    def unschedule(self, timer_id: str) -> None:
        """Take a timer back with this turn's commit; nothing if there is none. One that is due already may still fire."""
        self._turn.unschedule(timer_id)

    def view(self, projection: str, *, fresh: bool = False) -> ViewRef:
        """A projection: ``await self.view("memory").recall(query=...)`` is a recorded step over ``cue.view`` (S37).

        An operation with a parameter ``workspace`` is asked about the workspace whose id this actor carries, and about no other.

        Args:
            fresh: the answer waits until the view holds everything that this actor has recorded so far, and what the actors that this turn
                asked had recorded in their own streams when they answered; else a view may lag a little. What those have told others
                meanwhile is not waited for. So it is too when the turn runs again after a crash: its journal says where they stood.
                Unavailable: the view is not there within the deadline.
        """
        return self._turn.view(projection, fresh)

    def model(self, name: str) -> "ModelRef":
        """A model service of the deployment's settings: ``await self.model("fast").chat([...])``, each call journaled like a step.

        Raises:
            BadPayload: no such provider is configured.
        """
        from actors.models.service import ModelRef  # most actors ask no model: tenacity stays out of their import

        return ModelRef(self, self._turn.models, name)

    def now(self) -> datetime:
        """The time of this turn's last journal entry, UTC; the same on a re-run."""
        return self._turn.now()

    def random(self) -> float:
        """A number in [0, 1), the same on a re-run."""
        return self._turn.random()

    def new_id(self) -> str:
        """A fresh name of 26 characters that may stand in a subject, the same on a re-run."""
        return self._turn.new_id()

    def chunk(self, data: Any) -> None:
        """Show partial output to whoever listens on ``cue.chunk``. Not recorded; held back until nothing before it can be undone."""
        self._turn.chunk(data)
