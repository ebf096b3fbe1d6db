"""Who may decide about a run: whoever started it, or who was named at the start, by the keys that the deployment knows."""

import hmac
import types
from typing import Annotated, ClassVar, Self

import msgspec

from actors.actor import Actor
from actors.errors import BadPayload, Denied, Rejected
from actors.people.known import NOBODY, OPERATOR, People, digest_of
from actors.tasks.state import STARTER, TaskState, deciders_of

Session = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""The key that proves who somebody is: that of a person whom the deployment knows, else one that only he and this run have seen. The log
holds digests of keys, and names."""

Decider = Annotated[str, msgspec.Meta(pattern="^(role:)?[A-Za-z0-9_-]{1,64}$")]
"""``starter``, ``operator``, the name of somebody whom the deployment knows, or ``role:NAME``."""
Deciders = Annotated[list[Decider], msgspec.Meta(min_length=1, max_length=32)]


class Decided(Actor[TaskState]):
    """The part of `Task` that knows who is who. A refusal of somebody who may not, or who comes too late, stays in the log (`Denied`)."""

    known: ClassVar[People] = NOBODY
    """Whom the deployment knows; handed in by `knowing`."""

    @classmethod
    def knowing(cls, people: People) -> type[Self]:
        """This actor type in a deployment that knows `people`."""
        body = {"known": people, "__module__": cls.__module__, "__doc__": cls.__doc__}
        made: type[Self] = types.new_class(cls.__name__, (cls,), {"name": cls.__actor_name__}, lambda space: space.update(body))
        return made

    def _chosen(self, deciders: list[str] | None) -> list[str]:
        """Who is to decide about a run that begins. Raises: BadPayload: nobody of whom anybody knows."""
        named = list(dict.fromkeys(deciders or []))
        if unknown := sorted(set(named) - self.known.titles - {STARTER}):
            here = ", ".join(sorted(self.known.titles | {STARTER}))
            raise BadPayload(f"deciders: nobody here is {', '.join(unknown)}; there are: {here}", field="deciders")
        return named

    def _named(self, session: str) -> str:
        """The name of whom the deployment knows; "" = it does not know him."""
        person = self.known.who(session)
        return "" if person is None else person.name

    def _name(self, session: str) -> str:
        """Who that is: a name, or "starter"; "" = a stranger."""
        return self._named(session) or (STARTER if self._started(session) else "")

    def _started(self, session: str) -> bool:
        """Whether that is whoever started the run: by his name, if the deployment knew him then, as his key may be another one since."""
        if self.state.by:
            return self._named(session) == self.state.by
        return hmac.compare_digest(digest_of(session), self.state.session_sha256)

    def _may_decide(self, session: str, *, ended: bool = False) -> str:
        """Whoever decides about this run. Returns: his name.

        Raises:
            Denied: he may not. Rejected: the run is not under way.
        """
        return self._allowed(session, deciders_of(self.state), ended=ended)

    def _may_steer(self, session: str) -> str:
        """Whoever may let this run rest or end: who decides, who started it, and the deployment's operator. Raises: as `_may_decide`."""
        return self._allowed(session, [*deciders_of(self.state), STARTER, OPERATOR], ended=False)

    def _allowed(self, session: str, allowed: list[str], *, ended: bool) -> str:
        if self.state.phase == "new":
            raise Rejected(f"there is no run {self.id}", reason="no_run")
        person = self.known.who(session)
        titles = frozenset() if person is None else person.titles
        if not (titles & set(allowed) or (STARTER in allowed and self._started(session))):
            raise self._denial(self._name(session))
        if self.state.phase == "ended" and not ended:
            raise Rejected(f"the run has ended: {self.state.outcome}", outcome=self.state.outcome)
        return self._name(session)

    def _denial(self, name: str) -> Denied:
        deciders = deciders_of(self.state)
        if deciders == [STARTER] and name == "":
            return Denied("this run belongs to another session", reason="foreign_session", by=name, deciders=deciders)
        who = name or "whoever has this key"
        text = f"{who} may not decide about this run; who may: {', '.join(deciders)}"
        return Denied(text, reason="not_a_decider", by=name, deciders=deciders)

    def _check_open(self, what: str, how: str, standing: str, expires_at_us: int, by: str, former: str) -> None:
        """A proposal or a question waits for one decision, for a time. Raises: Denied: no more, and why; `former` decided before `by`."""
        waits = standing in {"pending", "open"}
        if standing == "expired" or (waits and self._now_us() > expires_at_us):
            text = f"{what} could be {how} for {self.state.approval_s:g} s; that is over"
            raise Denied(text, reason="too_late", standing="expired", by=by)
        if not waits:
            before = f"decided before: {standing}" if how == "decided" else f"{standing} before"
            raise Denied(f"{what} was {before}", reason="decided_before", standing=standing, by=by, decided_by=former)

    def _now_us(self) -> int:
        return int(self.now().timestamp() * 1_000_000)
