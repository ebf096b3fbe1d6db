"""The memory of one workspace: decides what is remembered. The projection `memory` finds it again:
``self.view("memory").recall(query=...)``.

Reading and writing are apart on purpose: a recall is a query to the view and leaves nothing here; the view's service counts which memories
were found and reports them in lots (`accessed`).
"""

import asyncio
from functools import partial
from typing import Annotated, Any, ClassVar, Final

import msgspec

from actors.actor import Actor, command, query
from actors.embedder import Embedder
from actors.errors import BadPayload, Rejected, Unavailable
from actors.memory.facts import (
    Importance,
    InteractionRecorded,
    Known,
    Meaning,
    MeaningRenewed,
    MemoriesAccessed,
    MemoriesForgotten,
    MemoryState,
    MemoryStored,
    MemoryType,
    NotedItem,
    PatternLearned,
    SubjectNoted,
)
from actors.sensitive import Sensitive
from events.codec import encode
from events.ids import is_token
from events.limits import EVENT_BYTES_MAX

CONTENT_BYTES_MAX: Final = 16 * 1_024
METADATA_BYTES_MAX: Final = 2 * 1_024
"""Fifty memories of both sizes fit one reply."""
NAMES_MAX: Final = 10_000
"""Memories named in one command."""
NOTED_MAX: Final = 500
"""Items of one note. With vectors of many dimensions a turn takes fewer: 50 always fit."""
KNOWN_MAX: Final = 20_000
"""Of one subject: its state stays at some megabytes. Who finds more notes the first so many."""
NOTE_TEXT_CHARACTERS: Final = 300
_EMBEDDED_AT_ONCE: Final = 16
"""Texts that an embedder in the loop gets before others have their turn: 2 ms."""
_NOTED_BYTES: Final = EVENT_BYTES_MAX // 2
_FORGOTTEN_AT_ONCE: Final = 5_000
_PAGES_MAX: Final = 20

Text = Annotated[str, msgspec.Meta(min_length=1, extra={"sensitive": True})]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Names = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=NAMES_MAX)]


class Stale(msgspec.Struct, frozen=True, kw_only=True):
    """A page of memories that the view names for forgetting; `next` is the cursor of the page after it."""

    memories: list[str]
    next: str | None


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """A page of memories whose vector is of another model; left: how many there are, with these."""

    memories: dict[str, str]
    left: int


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    """renewed: memories that got a vector of the present model; left: how many still have one of another."""

    model: str
    renewed: int
    left: int


class Consolidated(msgspec.Struct, frozen=True, kw_only=True):
    """more: there is more to forget than one command does; repeat it."""

    forgotten: int
    more: bool


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest round said of a subject; known: how many of its things are kept."""

    round: str
    digest: str
    at: str
    total: int
    known: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """found: keys that are not known yet, in the order given; gone: what is known and was not given."""

    found: list[str]
    gone: dict[str, Known]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be known of a subject."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=NOTE_TEXT_CHARACTERS)]
    importance: Importance = 0.5


class Memory(Actor[MemoryState], name="memory"):
    """Memories, learned patterns, interactions and known facts of one workspace, whose id it carries.

    Agents of a workspace reach only their own memory: a command from an actor with another id is refused. Abstract in one point: who puts
    an app together hands the embedder in with `memory_actor`.
    """

    embedder: ClassVar[Embedder | None] = None
    embeds_in_loop: ClassVar[bool] = False
    """The embedder is a quick pure function: it is called in the turn, without a journal. Any other is a recorded step."""

    @command
    async def remember(
        self,
        content: Text,
        type: MemoryType = "episodic",
        importance: Importance = 0.5,
        metadata: dict[str, Any] | None = None,
        session: Name | None = None,
        agent: Name | None = None,
    ) -> str:
        """Remember something; replies the name of the memory.

        Args:
            content: what to remember, 1 byte to 16 KiB.
            importance: 0 to 1. Below 0.3 it may be consolidated away.
            metadata: any JSON object, at most 2 KiB.
            session: groups memories of one conversation or run.
            agent: who remembers, by default the type of the asking actor.
        """
        self._check_caller()
        _check_size("content", content, CONTENT_BYTES_MAX)
        _check_size("metadata", metadata, METADATA_BYTES_MAX)
        (meaning,) = await self._meanings([content])
        memory = self.new_id()
        self.emit(
            MemoryStored(
                memory=memory, content=content, type=type, importance=importance, metadata=metadata or {}, session=session,
                agent=agent or self._asking(), meaning=meaning,
            )
        )  # fmt: skip
        return memory

    @command
    async def learn(self, pattern: Text, solution: Text, success: bool, agent: Name | None = None) -> None:
        """Record whether a solution worked for a pattern.

        Every agent has success rates of its own. The solution that is offered is the one with the best record, so a failure never takes the
        place of what has worked.
        """
        self._check_caller()
        _check_size("pattern", pattern, CONTENT_BYTES_MAX)
        _check_size("solution", solution, CONTENT_BYTES_MAX)
        self.emit(PatternLearned(agent=agent or self._asking() or "", pattern=pattern, solution=solution, success=success))

    @command
    async def record_interaction(
        self,
        with_actor: Name,
        type: Name,
        content: Text,
        result: Sensitive[str | None] = None,
        session: Name | None = None,
        agent: Name | None = None,
    ) -> None:
        """Record that an agent dealt with another one."""
        self._check_caller()
        _check_size("content", content, CONTENT_BYTES_MAX)
        _check_size("result", result, CONTENT_BYTES_MAX)
        self.emit(
            InteractionRecorded(
                agent=agent or self._asking() or "", with_actor=with_actor, type=type, content=content, result=result, session=session
            )
        )

    @command
    async def accessed(self, counts: dict[Name, Count]) -> None:
        """Count that memories were found, so many times each. Names that are not there do no harm."""
        self._check_caller()
        if len(counts) > NAMES_MAX:
            raise BadPayload(f"counts names {len(counts):,} memories, allowed are {NAMES_MAX:,}", field="counts")
        if counts:
            self.emit(MemoriesAccessed(counts=counts))

    @command
    async def forget(self, memories: Names) -> None:
        """Forget memories by name: text, words, vector and counts. Names that are not there do no harm."""
        self._check_caller()
        for first in range(0, len(memories), _FORGOTTEN_AT_ONCE):
            self.emit(MemoriesForgotten(memories=memories[first : first + _FORGOTTEN_AT_ONCE], reason="asked"))

    @command
    async def consolidate(
        self,
        max_age_days: Annotated[float, msgspec.Meta(ge=0, le=36_500)] = 30.0,
        importance_below: Importance = 0.3,
        accessed_below: Annotated[int, msgspec.Meta(ge=0)] = 2,
    ) -> Consolidated:
        """Forget memories that are old and unimportant and were hardly ever found.

        Args:
            max_age_days: only what is older. importance_below, accessed_below: only what has less of both.

        Raises:
            Unavailable: the view does not run: only it knows what was found how often.
        """
        self._check_caller()
        before_us = int((self.now().timestamp() - max_age_days * 86_400) * 1_000_000)
        forgotten, after = 0, None
        for _ in range(_PAGES_MAX):
            found = await self.view("memory", fresh=True).stale(
                before_us=before_us, importance_below=importance_below, accessed_below=accessed_below, limit=_FORGOTTEN_AT_ONCE, after=after
            )
            page = msgspec.convert(found, Stale)
            if page.memories:
                self.emit(MemoriesForgotten(memories=page.memories, reason="consolidated"))
            forgotten, after = forgotten + len(page.memories), page.next
            if after is None:
                break
        return Consolidated(forgotten=forgotten, more=after is not None)

    @command
    async def renew_meanings(self, limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 200) -> Renewed:
        """Give memories whose vectors are of another model vectors of the present one; repeat it while `left` is not 0.

        Raises:
            Unavailable: the view or the model does not run.
        """
        self._check_caller()
        model = self._embedder().model
        page = msgspec.convert(await self.view("memory", fresh=True).other_models(model=model, limit=limit), Unread)
        if page.memories:
            meanings = await self._meanings(list(page.memories.values()))
            self.emit(MeaningRenewed(meanings=dict(zip(page.memories, meanings, strict=True))))
        return Renewed(model=model, renewed=len(page.memories), left=page.left - len(page.memories))

    # -- subjects: what holds of something, round after round -------------------------------------------------------------------------

    @query
    def standing(self, subject: Name) -> Standing | None:
        """What the newest round said of a subject; None if there was none."""
        self._check_caller()
        known = self.state.subjects.get(subject)
        if known is None:
            return None
        return Standing(round=known.round, digest=known.digest, at=known.at, total=known.total, known=len(known.items))

    @query
    def compare(self, subject: Name, keys: list[str]) -> Difference:
        """What is new among `keys`, and what is known of the subject and not among them."""
        self._check_caller()
        known = self.state.subjects.get(subject)
        items = {} if known is None else known.items
        given = set(keys)
        return Difference(
            found=[key for key in dict.fromkeys(keys) if key not in items],
            gone={key: item for key, item in items.items() if key not in given},
        )

    @command
    async def note(
        self,
        subject: Name,
        round: Name,
        digest: str,
        total: int,
        found: dict[Name, Note],
        gone: list[Name],
        searchable: bool = True,
        agent: Name | None = None,
    ) -> None:
        """Take in what a round found of a subject: what is new, and the keys of what holds no more.

        Each thing is a memory of type ``entity`` as long as it holds, named ``subject:key``.

        Args:
            digest: of everything that the round found; empty with every page but the last.
            total: how many things the round found.
            found: at most 500.
            searchable: also by their meaning, not only by their words.
        """
        self._check_caller()
        if len(found) > NOTED_MAX:
            raise BadPayload(f"a note has {len(found):,} things, allowed are {NOTED_MAX:,}", field="found")
        if not is_token(subject):
            raise BadPayload("a subject is a name of 1 to 64 letters, digits, '_' or '-'", field="subject")
        known = self.state.subjects.get(subject)
        left = 0 if known is None else len(known.items.keys() - set(gone))
        if left + len(found) > KNOWN_MAX:
            raise Rejected(f"of {subject} {left:,} things are known; at most {KNOWN_MAX:,} are kept", known=left)
        meanings: list[Meaning] | list[None] = [None] * len(found)
        if searchable and found:
            meanings = await self._meanings([note.text for note in found.values()])
        items = {
            key: NotedItem(text=note.text, importance=note.importance, meaning=meaning)
            for (key, note), meaning in zip(found.items(), meanings, strict=True)
        }
        at, pages = self.now().isoformat(timespec="milliseconds"), _pages(items)
        for number, page in enumerate(pages):
            is_last = number == len(pages) - 1
            self.emit(
                SubjectNoted(
                    subject=subject, round=round, digest=digest if is_last else "", at=at, total=total, agent=agent or self._asking(),
                    found=page, gone=gone if number == 0 else [],
                )
            )  # fmt: skip

    # -- parts ------------------------------------------------------------------------------------------------------------------------

    def _check_caller(self) -> None:
        """An actor comes from the workspace whose id it carries. A fork of a conversation keeps to the forks of its own (S33)."""
        sender = self.sender
        if sender is None:
            return
        workspace = sender.partition("/")[2]
        if workspace not in (self.id, self._turn.command.stream.partition("/")[2]):
            raise Rejected(f"{sender} is of workspace {workspace} and has nothing to do with the memory of {self.id}", workspace=workspace)

    def _asking(self) -> str | None:
        return None if self.sender is None else self.sender.partition("/")[0]

    def _embedder(self) -> Embedder:
        if self.embedder is None:
            raise Unavailable("no embedder was handed in for the memory: put the app together with memory_actor(embedder)")
        return self.embedder

    async def _meanings(self, texts: list[str]) -> list[Meaning]:
        embedder = self._embedder()
        if not self.embeds_in_loop:
            return await self.step("embed", partial(meanings_of, embedder, texts))
        found: list[Meaning] = []
        for first in range(0, len(texts), _EMBEDDED_AT_ONCE):
            if first:
                await asyncio.sleep(0)
            found += await meanings_of(embedder, texts[first : first + _EMBEDDED_AT_ONCE])
        return found


async def meanings_of(embedder: Embedder, texts: list[str]) -> list[Meaning]:
    """Step: what a model makes of texts."""
    return [msgspec.convert(msgspec.to_builtins(each), Meaning) for each in await embedder.embed(texts)]


def memory_actor(embedder: Embedder, *, in_loop: bool = False) -> type[Memory]:
    """The memory for an app's actors, with its embedder.

    Args:
        in_loop: calling it is a pure function of well under a millisecond. Else every call is a recorded step of its turn.
    """

    class MemoryWithEmbedder(Memory, name="memory"):
        pass

    MemoryWithEmbedder.embedder = embedder
    MemoryWithEmbedder.embeds_in_loop = in_loop
    return MemoryWithEmbedder


def _pages(items: dict[str, NotedItem]) -> list[dict[str, NotedItem]]:
    """In pieces that each fit an event, whatever the size of their vectors; at least one."""
    pages: list[dict[str, NotedItem]] = [{}]
    room = _NOTED_BYTES
    for key, item in items.items():
        size = len(encode(item))
        if size > room and pages[-1]:
            pages.append({})
            room = _NOTED_BYTES
        pages[-1][key] = item
        room -= size
    return pages


def _check_size(field: str, value: object, bytes_max: int) -> None:
    size = len(encode(value))
    if size > bytes_max:
        raise BadPayload(f"{field} has {size:,} bytes as JSON, allowed are {bytes_max:,}", field=field)
