"""Where a request in somebody's own words goes, by the rules of the classifier: no model, so it works with no key at all."""

import hashlib
from typing import Annotated, Any

import msgspec

from actors.actor import command, query
from actors.classifier import Classification, blocked, classify, forget, words_with
from actors.classifier.words import AGENT, GROUPS
from actors.errors import BadPayload, Rejected
from actors.event import Event, State
from actors.people.language import in_language_of
from actors.tasks.agent import Agent, NeedsAnswer
from actors.tasks.records import Job, Plan, Result, StepPlan, Text, Token

OURS = frozenset({"keeper", "router"})
"""Who serves runs and is given no step of one."""

SAID_KEPT = 10
"""Requests of one session that are remembered, to notice who goes in circles."""
SESSIONS_KEPT = 256
WORDS_MAX = 200
"""Words that may be added to one group."""

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was let through: its digest, and when."""

    digest: str
    at_us: int


class RouterState(State):
    """Of one workspace. version, added, agents: what was taught. said: by digest of the session, oldest first. routed: how many requests
    came to what, by action and agent."""

    version: str = "1"
    added: dict[str, list[str]] = {}
    agents: dict[str, str] = {}
    said: dict[str, list[Said]] = {}
    routed: dict[str, int] = {}
    stopped: int = 0


class WordsTaught(Event[RouterState], tag="router.taught"):
    """From here on requests are read with these words, and kinds of work go to these agents."""

    version: str
    added: dict[str, list[str]]
    agents: dict[str, str]

    def apply(self, state: RouterState) -> None:
        state.version, state.added, state.agents = self.version, dict(self.added), dict(self.agents)


class RequestRouted(Event[RouterState], tag="router.routed"):
    """What a request asks for. The log holds digests of the text and of the session. stopped: why it must not go on, "" = it may."""

    session_sha256: str
    digest: str
    words_version: str
    action: str
    agent: str
    work: str
    at_us: int
    stopped: str = ""

    def apply(self, state: RouterState) -> None:
        if self.stopped:
            state.stopped += 1
            return
        key = f"{self.action} {self.agent}".strip()
        state.routed[key] = state.routed.get(key, 0) + 1
        before = state.said.pop(self.session_sha256, [])
        state.said[self.session_sha256] = [*before, Said(digest=self.digest, at_us=self.at_us)][-SAID_KEPT:]
        if len(state.said) > SESSIONS_KEPT:
            del state.said[next(iter(state.said))]


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with a request. stopped: why nothing, None = go on."""

    found: Classification
    stopped: str | None = None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Requests by what they came to, and how many were stopped."""

    routed: dict[str, int]
    stopped: int


class Router(Agent[RouterState], name="router"):
    """Reads requests; the id is that of the workspace, whose people can teach it words. As the planner of a run it gives the whole goal to
    the agent that is meant, or says what to ask back."""

    @query
    def classify(self, text: Text, depth: int = 0) -> Classification:
        """What `text` asks for, without a trace in the log. depth: how many agents have handed it on already."""
        return self._found(text, depth)

    @command
    def route(
        self, session: Annotated[str, msgspec.Meta(min_length=1, max_length=256)], text: Text, depth: int = 0,
        handed: Annotated[list[str], msgspec.Meta(max_length=32)] | None = None,
    ) -> Routed:  # fmt: skip
        """What `text` asks for, and whether it may go on: a session that says the same a third time within half a minute, and agents that
        hand a request back and forth, are stopped.

        Args:
            session: whoever asks; nobody else's requests count.
            handed: the agents it went through, oldest first.
        """
        found = self._found(text, depth)
        at_us = int(self.now().timestamp() * 1_000_000)
        key = hashlib.sha256(session.encode()).hexdigest()
        before = [(said.digest, said.at_us / 1e6) for said in self.state.said.get(key, [])]
        stopped = blocked(found, depth=depth, recent=before, now=at_us / 1e6, route=handed or [])
        self.emit(
            RequestRouted(
                session_sha256=key, digest=found.digest, words_version=found.words_version, action=found.action,
                agent=found.agent or "", work=found.work or "", at_us=at_us, stopped=stopped or "",
            )
        )  # fmt: skip
        return Routed(found=found, stopped=stopped)

    @command
    def teach(
        self, version: Token, words: dict[str, Annotated[list[Word], msgspec.Meta(max_length=WORDS_MAX)]] | None = None,
        agents: dict[str, Token] | None = None,
    ) -> str:  # fmt: skip
        """Read requests with further words from now on; what was taught before is replaced.

        Args:
            version: names these words in every result.
            words: by group, such as ``{"implementation": ["zimmer*"]}``; a ``*`` at the end takes any ending.
            agents: who does a kind of work, where it is not the usual one: ``{"bug_report": "scribe"}``.

        Raises:
            Rejected: an agent asks for it; only people may.
        """
        if self.sender is not None:
            raise Rejected("words are taught from outside, not by an agent", agent=self.sender)
        added, meant = words or {}, agents or {}
        for field, given, known in (("words", added, GROUPS), ("agents", meant, AGENT)):
            if unknown := sorted(set(given) - set(known)):
                raise BadPayload(f"{field}: there is no {', '.join(unknown)}; there are: {', '.join(known)}", field=field)
        if (version, added, meant) != (self.state.version, self.state.added, self.state.agents):
            self.emit(WordsTaught(version=version, added=added, agents=meant))
            forget()
        return version

    @query
    def statistics(self) -> Statistics:
        """What became of the requests that were routed here."""
        return Statistics(routed=self.state.routed, stopped=self.state.stopped)

    async def handle(self, job: Job) -> Result:
        """As a planner: one step for the agent that the goal asks for.

        Raises:
            NeedsAnswer: the words ask for no agent.
            Rejected: they ask for one that is not here.
        """
        if job.step != "_plan":
            raise Rejected("the router plans runs, and does no step of one", step=job.step)
        said = [job.goal, *(answer.answer for answer in job.answers if answer.step == "_plan")]
        # The newest words first: whoever was asked back may have said all anew, or only what was missing.
        found = await self._meant(job, said[-1])
        if found.agent is None and len(said) > 1:
            found = await self._meant(job, "\n".join(said))
        if found.agent is None:
            asked = in_language_of(said[-1], de=_KEIN_AGENT, en=_NO_AGENT)
            raise NeedsAnswer(found.question or found.response or asked)
        workers = self.types_with("work")
        if found.agent not in workers:
            here = ", ".join(name for name in workers if name not in OURS) or "nobody"
            raise Rejected(f"this is work for {found.agent}, whom this deployment does not have; who can be given work: {here}")
        wishes = [job.feedback] if job.feedback else []
        if job.plan is not None:
            wishes = [*job.plan.details.get("wishes", []), *wishes]
        step = StepPlan(id=found.work or "work", agent=found.agent, task="\n".join([*said, *wishes]))
        plan = Plan(summary=f"{found.agent}: {said[-1]}", steps=[step], details={"action": found.action, "wishes": wishes})
        return Result(text=found.action, data=msgspec.to_builtins(plan))

    async def _meant(self, job: Job, text: str) -> Classification:
        """What `text` asks for, by the words of the run's workspace."""
        if not job.workspace or job.workspace == self.id:
            return self._found(text, 0)
        found: Classification = await self.ref(Router, job.workspace).classify(text=text)
        return found

    def _found(self, text: str, depth: int) -> Classification:
        state = self.state
        added: Any = tuple((group, tuple(words)) for group, words in sorted(state.added.items()))
        found = classify(text, depth, words_with(state.version, added))
        meant = state.agents.get(found.work or "")
        return found if meant is None or found.agent is None else msgspec.structs.replace(found, agent=meant)


_KEIN_AGENT = "Das ist keine Aufgabe für einen der Agenten. Was soll getan werden, und woran?"
_NO_AGENT = "That is no work for any of the agents. What is to be done, and to what?"
