"""The ranking of candidates: only those that can win are rounded, and nobody can tell."""

from hypothesis import given
from hypothesis import strategies as st

from projections.memory.ranking import NEAR_MIN, WEIGHTS, Candidate, Ranked, Values, ranked

DAY_US = 86_400 * 1_000_000
# Steps of less than a rounded digit, so that scores are equal only after rounding, and often.
shares = st.one_of(
    st.floats(-1, 1),
    st.integers(0, 40).map(lambda steps: 0.5 + steps * 1e-7),
    st.integers(-20, 20).map(lambda steps: NEAR_MIN + steps * 1e-7),
)
words = st.one_of(st.just(0.0), st.floats(1e-9, 30), st.integers(0, 40).map(lambda steps: 3 + steps * 1e-7))
facts = st.tuples(st.integers(0, 90 * DAY_US), shares, words, st.floats(0, 1))


def by_rounding_all(candidates: list[Candidate], k: int, newest_us: int) -> list[Ranked]:
    """As it is defined: every value of every candidate is rounded before any is compared."""
    most = max((each.words for each in candidates), default=0.0) or 1.0
    found = []
    for each in candidates:
        recency = 0.5 ** ((newest_us - each.created_us) / DAY_US / 30)
        parts = (min(1.0, max(0.0, each.meaning)), each.words / most, recency, each.importance)
        values = Values._make(round(value, 6) for value in parts)
        if values.words > 0 or values.meaning >= NEAR_MIN:
            score = round(sum(value * weight for value, weight in zip(values, WEIGHTS.values(), strict=True)), 6)
            found.append((-score, -each.created_us, each.number, values))
    return [Ranked(number, -negative, values) for negative, _, number, values in sorted(found)[:k]]


@given(st.lists(facts, max_size=40), st.integers(1, 10))
def test_the_best_are_those_of_rounding_all(given_facts: list[tuple[int, float, float, float]], k: int) -> None:
    candidates = [Candidate(number, *each) for number, each in enumerate(given_facts)]
    newest_us = max((each.created_us for each in candidates), default=0)
    assert ranked(candidates, k, newest_us) == by_rounding_all(candidates, k, newest_us)


def test_of_equal_scores_the_newer_one_comes_first() -> None:
    """The difference in age is too small to be seen in a rounded score."""
    candidates = [Candidate(number, created_us, 0.5, 0.0, 0.5) for number, created_us in enumerate((7, 9, 9, 8))]
    assert [each.number for each in ranked(candidates, 4, 9)] == [1, 2, 3, 0]
    assert len({each.score for each in ranked(candidates, 4, 9)}) == 1


def test_what_has_nothing_to_do_with_the_question_does_not_win_by_being_important() -> None:
    assert ranked([Candidate(1, 0, 0.05, 0.0, 1.0)], 5, 0) == []
    assert ranked([], 5, 0) == []
