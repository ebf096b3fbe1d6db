"""The answers of the memory view, from its rows: plain functions on a connection in a read transaction.

Every statement that touches a memory names the number of the one workspace that was asked for; what comes from an index by number is
looked up with it again.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from projections.database import Database
from projections.memory.answers import (
    Interaction,
    Pattern,
    PatternTotal,
    Recalled,
    Remembered,
    Solution,
    StalePage,
    TypeTotal,
)
from projections.memory.ranking import Candidate, parts_of, ranked
from projections.memory.tables import pattern_key, words_table
from projections.memory.words import all_of, any_of, rarest, terms_of

CANDIDATES_MIN: Final = 50
CANDIDATES_PER_ANSWER: Final = 4
SCORED_MAX: Final = 500
"""Texts with the question's words up to which all are scored. Of more, so many that are found in one way."""
COUNTED_MAX: Final = 20_000
"""Matches of all words together that count in a score, where there are more texts than `SCORED_MAX`."""
ANSWER_BYTES_MAX: Final = 900 * 1_024
"""Of all answers of one recall; fewer than asked for are given rather than none."""

_INTEGERS: Final = msgspec.json.Decoder(list[int]).decode
_REALS: Final = msgspec.json.Decoder(list[float]).decode
_COLUMNS: Final = (
    "m.memory, m.type, m.content, m.importance, m.metadata, m.session, m.agent, m.subject, m.created_us, m.accesses, m.accessed_us"
)


class Vectors(Protocol):
    """The workspace's vectors beside the question's: numbers of rows and cosines."""

    def nearest(self, k: int, allowed: AbstractSet[int] | None) -> Sequence[tuple[int, float]]:
        """The best first, at most `k`, among `allowed` (None: all)."""
        ...

    def cosines(self, numbers: AbstractSet[int]) -> dict[int, float]:
        """Of these few, as far as they have a vector of the question's model."""
        ...


class Filter(NamedTuple):
    """What is asked for beside the question. None = any."""

    types: Sequence[str] | None = None
    min_importance: float = 0.0
    session: str | None = None
    agent: str | None = None

    @property
    def is_open(self) -> bool:
        return self == Filter()

    def where(self) -> tuple[str, list[Any]]:
        """SQL behind a WHERE that names the workspace, and its parameters."""
        text, values = "", list[Any]()
        if self.types is not None:
            text += f" AND m.type IN ({', '.join('?' * len(self.types))})"
            values += self.types
        if self.min_importance > 0:
            text += " AND m.importance >= ?"
            values.append(self.min_importance)
        for column, value in (("session", self.session), ("agent", self.agent)):
            if value is not None:
                text += f" AND m.{column} = ?"
                values.append(value)
        return text, values


def workspace_number(db: Database, name: str) -> int | None:
    found = db.execute("SELECT id FROM workspaces WHERE name = ?", (name,)).fetchone()
    return None if found is None else int(found[0])


def recall(db: Database, workspace: int, query: str, k: int, wanted: Filter, vectors: Vectors) -> list[Recalled]:
    """The best `k`: those near by meaning and those that share words, ranked together."""
    count = max(CANDIDATES_MIN, CANDIDATES_PER_ANSWER * k)
    near = dict(_near(db, workspace, count, wanted, vectors))
    words = _by_words(db, workspace, query, count, wanted, near)
    if found_by_words := words.keys() - near.keys():
        near |= vectors.cosines(found_by_words)
    # Ranked by numbers alone: of a hundred candidates only the `k` best are read.
    candidates = [
        Candidate(number, created_us, near.get(number, 0.0), words.get(number, 0.0), importance)
        for number, created_us, importance in _ranked_by(db, workspace, {*near, *words}, wanted)
    ]
    if not candidates:
        return []
    (newest,) = db.execute("SELECT max(created_us) FROM memories WHERE workspace = ?", (workspace,)).fetchone()
    top = ranked(candidates, k, newest)
    memories = {row[0]: _remembered(row[1:]) for row in _rows(db, workspace, {each.number for each in top}, Filter(), _COLUMNS)}
    return within_reply([
        Recalled(
            **msgspec.structs.asdict(memories[each.number]), score=each.score,
            similarity=round(near[each.number], 6) if each.number in near else None, parts=parts_of(each.values),
        )
        for each in top
    ])  # fmt: skip


def _near(db: Database, workspace: int, count: int, wanted: Filter, vectors: Vectors) -> Iterable[tuple[int, float]]:
    """The nearest that pass the filter."""
    if wanted.is_open:
        return vectors.nearest(count, None)
    found = vectors.nearest(4 * count, None)
    passed = {number for number, _ in _rows(db, workspace, {number for number, _ in found}, wanted, "1")}
    if len(passed) >= count or len(found) < 4 * count:
        return [hit for hit in found if hit[0] in passed]
    # Too few of the nearest pass: look among those that do.
    text, values = wanted.where()
    allowed = {number for (number,) in db.execute(f"SELECT m.id FROM memories m WHERE m.workspace = ?{text}", (workspace, *values))}
    return vectors.nearest(count, allowed)


def _by_words(db: Database, workspace: int, query: str, count: int, wanted: Filter, near: Iterable[int]) -> dict[int, float]:
    """bm25, the more the better, of the best `count` and of those in `near`."""
    table = words_table(workspace)
    wording = _wording(db, table, terms_of(query))
    if wording is None:
        return {}
    text, values = wanted.where()
    joined = f" JOIN memories m ON m.id = {table}.rowid" if text else ""
    newest = f"SELECT * FROM (SELECT {table}.rowid FROM {table}{joined} WHERE {table} MATCH ?{text} ORDER BY {table}.rowid DESC LIMIT ?)"
    found, scores = db.execute(
        # `scored` in one statement, because bm25 counts all matches of every word each time; and, by the +, with a look at each match, not
        # one search per number. One row, as in `_ranked_by`.
        "WITH near (id) AS MATERIALIZED (SELECT value FROM json_each(?)), "
        f"met (id) AS MATERIALIZED ({' UNION '.join([newest] * len(wording.found_by))}), "
        "scored (id, score) AS MATERIALIZED "
        f"(SELECT rowid, bm25({table}) FROM {table} WHERE {table} MATCH ? AND +rowid IN (SELECT id FROM near UNION SELECT id FROM met)), "
        "best (id, score) AS (SELECT id, score FROM scored WHERE id IN (SELECT id FROM met) ORDER BY score, id LIMIT ?) "
        "SELECT json_group_array(id), json_group_array(score) FROM "
        "(SELECT id, score FROM best UNION SELECT id, score FROM scored WHERE id IN (SELECT id FROM near))",
        (_json(near), *chain.from_iterable((each, *values, most) for each, most in wording.found_by), wording.scored_by, count),
    ).fetchone()
    # A word that stands in more than half of all texts has a negative weight; it says next to nothing.
    return {number: max(-score, 1e-9) for number, score in zip(_INTEGERS(found), _REALS(scores), strict=True)}


class _Wording(NamedTuple):
    """How texts are found by words.

    Fields:
        found_by: expressions of FTS5, and how many texts each finds at most, the newest.
        scored_by: the expression whose bm25 is the score of all; it matches whatever one of `found_by` does.
    """

    found_by: list[tuple[str, int]]
    scored_by: str


def _wording(db: Database, table: str, terms: Sequence[str]) -> _Wording | None:
    """By every word, as long as no more than `SCORED_MAX` texts have one of them; None if no text has.

    To find a text by a word takes FTS5 0.06 us, to score it twenty times as long. So of more texts those are found that have a word which
    few have; then the newest with the next word, or, where no word is rare, with two of them, and with all that count. These words count in
    a score, and less rare ones as long as all together have `COUNTED_MAX` matches: a word in half of all texts would be looked at in all of
    these.
    """
    if not terms:
        return None
    everything = any_of(terms)
    (texts,) = _texts_with(db, table, [everything], SCORED_MAX)
    if texts <= SCORED_MAX:
        return _Wording([(everything, SCORED_MAX)], everything) if texts else None
    counts = {term: count for term, count in zip(terms, _texts_with(db, table, terms, COUNTED_MAX), strict=True) if count}
    rare = rarest(counts, SCORED_MAX)
    counted = rarest(counts, COUNTED_MAX, least=len(rare) + 1)
    found_by = [(any_of(rare), SCORED_MAX)]
    room = SCORED_MAX - sum(counts[term] for term in rare)
    if len(counted) > len(rare):
        if room > 0:
            found_by.append((counted[len(rare)], room))
        else:
            found_by += [(each, SCORED_MAX) for each in dict.fromkeys((all_of(counted[:2]), all_of(counted)))]
    return _Wording(found_by, any_of(counted))


def _texts_with(db: Database, table: str, expressions: Sequence[str], most: int) -> list[int]:
    """How many texts each expression finds; none is counted further than to `most` + 1."""
    (counts,) = db.execute(
        f"SELECT json_group_array((SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH j.value LIMIT ?))) "
        "FROM (SELECT value FROM json_each(?) ORDER BY id) j",
        (most + 1, _json(expressions)),
    ).fetchone()
    return _INTEGERS(counts)


def _ranked_by(db: Database, workspace: int, numbers: AbstractSet[int], wanted: Filter) -> Iterable[tuple[int, int, float]]:
    """Number, age and importance of those of `numbers` that pass the filter."""
    text, values = wanted.where()
    # One row: for each of a hundred Python would give up the interpreter's lock, and wait for it (`events.sqlite.packed_sqlite`).
    found, created_us, importance = db.execute(
        "SELECT json_group_array(m.id), json_group_array(m.created_us), json_group_array(m.importance) "
        f"FROM json_each(?) j CROSS JOIN memories m ON m.id = j.value WHERE +m.workspace = ?{text}",
        (_json(sorted(numbers)), workspace, *values),
    ).fetchone()
    return zip(_INTEGERS(found), _INTEGERS(created_us), _REALS(importance), strict=True)


def _json(values: Iterable[int] | Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _rows(db: Database, workspace: int, numbers: AbstractSet[int], wanted: Filter, columns: str) -> list[tuple[Any, ...]]:
    """The number and `columns` of those of `numbers` that pass the filter."""
    text, values = wanted.where()
    return db.execute(
        # CROSS and + keep SQLite from walking through the whole workspace instead of looking up these few.
        f"SELECT m.id, {columns} FROM json_each(?) j CROSS JOIN memories m ON m.id = j.value WHERE +m.workspace = ?{text}",
        (_json(sorted(numbers)), workspace, *values),
    ).fetchall()


def _remembered(row: Sequence[Any]) -> Remembered:
    memory, kind, content, importance, metadata, session, agent, subject, created_us, accesses, accessed_us = row
    return Remembered(
        memory=memory, type=kind, content=content, importance=importance, metadata=msgspec.json.decode(metadata), session=session,
        agent=agent, subject=subject, created_at_us=created_us, accesses=accesses, accessed_at_us=accessed_us,
    )  # fmt: skip


def within_reply(answers: list[Any]) -> list[Any]:
    """The first of `answers`, as many as fit one reply."""
    room = ANSWER_BYTES_MAX
    for count, answer in enumerate(answers):
        room -= len(msgspec.json.encode(answer))
        if room < 0 and count:
            return answers[:count]
    return answers


def newest(db: Database, workspace: int, wanted: Filter, subject: str | None, limit: int) -> list[Remembered]:
    """Memories, the newest first."""
    text, values = wanted.where()
    if subject is not None:
        text, values = f"{text} AND m.subject = ?", [*values, subject]
    found = db.execute(
        f"SELECT {_COLUMNS} FROM memories m WHERE m.workspace = ?{text} ORDER BY m.created_us DESC, m.id DESC LIMIT ?",
        (workspace, *values, limit),
    )
    return within_reply([_remembered(row) for row in found])


def solution(db: Database, workspace: int, pattern: str, min_success_rate: float, agent: str | None) -> Solution | None:
    """The solution with the best record, which counts a long one for more than a short one: (successes + 1) / (uses + 2), Laplace's
    rule."""
    row = db.execute(
        "SELECT p.pattern, s.solution, s.agent, s.uses, s.successes, s.last_us, 1.0 * p.successes / p.uses "
        "FROM solutions s JOIN patterns p USING (workspace, key, agent) "
        "WHERE s.workspace = ? AND s.key = ? AND (? IS NULL OR s.agent = ?) AND s.successes > 0 AND 1.0 * s.successes / s.uses >= ? "
        "ORDER BY (s.successes + 1.0) / (s.uses + 2) DESC, s.last_us DESC, s.agent, s.solution_key LIMIT 1",
        (workspace, pattern_key(pattern), agent, agent, min_success_rate),
    ).fetchone()
    if row is None:
        return None
    said, text, who, uses, successes, last_us, rate = row
    return Solution(
        pattern=said, solution=text, agent=who, uses=uses, successes=successes, success_rate=round(successes / uses, 6),
        pattern_rate=round(rate, 6), used_at_us=last_us,
    )  # fmt: skip


def patterns(db: Database, workspace: int, agent: str | None, limit: int) -> list[Pattern]:
    """Patterns, those used last first."""
    found = db.execute(
        "SELECT p.pattern, p.agent, p.uses, p.successes, p.first_us, p.last_us, (SELECT count(*) FROM solutions s "
        "WHERE s.workspace = p.workspace AND s.key = p.key AND s.agent = p.agent) "
        "FROM patterns p WHERE p.workspace = ? AND (? IS NULL OR p.agent = ?) ORDER BY p.last_us DESC, p.key, p.agent LIMIT ?",
        (workspace, agent, agent, limit),
    )
    return within_reply([
        Pattern(
            pattern=pattern, agent=who, uses=uses, successes=successes, success_rate=round(successes / uses, 6), solutions=count,
            first_at_us=first_us, used_at_us=last_us,
        )
        for pattern, who, uses, successes, first_us, last_us, count in found
    ])  # fmt: skip


def interactions(db: Database, workspace: int, with_actor: str | None, session: str | None, limit: int) -> list[Interaction]:
    """The newest first; `with_actor` on either side."""
    text, values = "", list[Any]()
    if with_actor is not None:
        text, values = " AND (agent = ? OR with_actor = ?)", [with_actor, with_actor]
    if session is not None:
        text, values = f"{text} AND session = ?", [*values, session]
    found = db.execute(
        f"SELECT agent, with_actor, type, content, result, session, at_us FROM interactions WHERE workspace = ?{text} "
        "ORDER BY id DESC LIMIT ?",
        (workspace, *values, limit),
    )
    return within_reply([
        Interaction(agent=agent, with_actor=other, type=kind, content=content, result=result, session=group, at_us=at_us)
        for agent, other, kind, content, result, group, at_us in found
    ])  # fmt: skip


def stale(
    db: Database, workspace: int, before_us: int, importance_below: float, accessed_below: int, limit: int, after: str | None
) -> StalePage:
    """Names of memories that may be forgotten, in their order. A noted fact holds until its subject says otherwise."""
    found = db.execute(
        "SELECT memory FROM memories WHERE workspace = ? AND created_us < ? AND importance < ? AND accesses < ? AND subject IS NULL "
        "AND memory > ? ORDER BY memory LIMIT ?",
        (workspace, before_us, importance_below, accessed_below, after or "", limit + 1),
    ).fetchall()
    names = [name for (name,) in found[:limit]]
    return StalePage(memories=names, next=names[-1] if len(found) > limit else None)


def texts(db: Database, workspace: int, numbers: Sequence[int]) -> dict[str, str]:
    """Name and text of the memories with these numbers."""
    found = db.execute(
        "SELECT m.memory, m.content FROM json_each(?) j CROSS JOIN memories m ON m.id = j.value WHERE +m.workspace = ? ORDER BY m.id",
        (_json(numbers), workspace),
    )
    return dict(within_reply(found.fetchall()))


class Totals(NamedTuple):
    """What the rows of a workspace add up to."""

    by_type: dict[str, TypeTotal]
    sessions: int
    forgotten: int
    patterns: PatternTotal
    interactions: int


def totals(db: Database, workspace: int) -> Totals:
    by_type = {
        kind: TypeTotal(count=count, importance_mean=round(mean, 6), accesses=accesses)
        for kind, count, mean, accesses in db.execute(
            "SELECT type, count(*), avg(importance), sum(accesses) FROM memories WHERE workspace = ? GROUP BY type ORDER BY type",
            (workspace,),
        )
    }
    (sessions,) = db.execute("SELECT count(DISTINCT session) FROM memories WHERE workspace = ?", (workspace,)).fetchone()
    (forgotten,) = db.execute("SELECT forgotten FROM workspaces WHERE id = ?", (workspace,)).fetchone()
    count, agents, mean, best = db.execute(
        "SELECT count(*), count(DISTINCT agent), avg(1.0 * successes / uses), max(1.0 * successes / uses) FROM patterns "
        "WHERE workspace = ?",
        (workspace,),
    ).fetchone()
    (dealt,) = db.execute("SELECT count(*) FROM interactions WHERE workspace = ?", (workspace,)).fetchone()
    known = PatternTotal(
        count=count, agents=agents, success_rate_mean=None if mean is None else round(mean, 6),
        success_rate_best=None if best is None else round(best, 6),
    )  # fmt: skip
    return Totals(by_type=by_type, sessions=sessions, forgotten=forgotten, patterns=known, interactions=dealt)
