"""The golden table of the classifier, and its memo."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.classifier import DEFAULT_WORDS, blocked, classify, forget, memo_info, words_with
from actors.classifier.classify import classify_by

GOLDEN = [
    # As the predecessor answered, and should.
    ("hallo", "direct_response", None),
    ("asdfghjkl", "clarification", None),
    ("das ist langsam", "clarification", None),
    ("Login Fehler beim Speichern der Datei", "route_agent", "fixer"),
    ("erstelle eine Todo App mit Login", "route_agent", "codesmith"),
    ("which framework for web", "route_agent", "architect"),
    ("use claude for text summarization in the app", "route_agent", "research"),
    # As it answered, and should not have (pain P21).
    ("hey fix the login bug in auth.py", "route_agent", "fixer"),
    ("python", "clarification", None),
    ("docker", "clarification", None),
    ("refactor", "clarification", None),
    ("implement", "clarification", None),
    ("Fehler", "clarification", None),
    ("pause", "control", None),
    ("stop", "control", None),
    ("Estimate the cost of the migration", "route_agent", "architect"),
    ("iterate over the list and print", "route_agent", "codesmith"),
    ("Create a calculator web app with tests", "route_agent", "codesmith"),
    ("the build tool is great", "safe_execution", None),
    ("baue eine App", "route_agent", "codesmith"),
    # What follows from the same rules.
    ("Hallo!", "direct_response", None),
    ("Guten Morgen zusammen", "direct_response", None),
    ("Hallo, erstelle bitte eine REST API", "route_agent", "codesmith"),
    ("ich möchte eine App für Notizen bauen", "route_agent", "codesmith"),
    ("bitte refactor den Parser", "route_agent", "codesmith"),
    ("optimiere die Suche in index.py", "route_agent", "performance"),
    ("schreibe Tests für auth.py", "route_agent", "codesmith"),
    ("prüfe die Tests in auth.py", "route_agent", "reviewer"),
    ("add a column to the users table", "route_agent", "codesmith"),
    ("the users table needs an index on email", "route_agent", "architect"),
    ("postgres", "clarification", None),
    ("mach es neu", "clarification", None),
    ("baue alles neu", "clarification", None),
    ("this is broken", "clarification", None),
    ("was kannst du?", "direct_response", None),
    ("Was ist der Sinn des Lebens?", "direct_response", None),
    ("stop the server when the tests fail", "route_agent", "reviewer"),
    ("", "clarification", None),
    ("???", "clarification", None),
    ("qqqqqqq", "clarification", None),
    ("rhythm", "safe_execution", None),
]


@pytest.mark.parametrize(("text", "action", "agent"), GOLDEN)
def test_golden(text: str, action: str, agent: str | None) -> None:
    found = classify(text)
    assert (found.action, found.agent) == (action, agent), found


@pytest.mark.parametrize("text", ["python", "docker", "refactor", "implement", "Fehler", "pause", "Estimate the cost of the migration"])
def test_words_are_not_nonsense(text: str) -> None:
    assert "nonsense" not in classify(text).flags


def test_whoever_asks_back_says_what_is_missing() -> None:
    assert classify("Fehler").question == "Welcher Fehler tritt wo auf? Bitte Meldung und Stelle nennen."
    assert classify("fix the error").question == "Which error, and where? Please give the message and the place."
    assert classify("hallo").response == "Hallo! Wobei kann ich helfen?"
    assert classify("Hello!").response == "Hello! What can I help with?"
    assert classify("stop").control == "stop"


def test_a_repeat_is_a_memo_hit_with_the_same_result() -> None:
    first = classify("baue eine App")
    before = memo_info()
    assert classify("baue eine App") is first
    assert memo_info() == (before[0] + 1, before[1], before[2])
    assert classify("baue eine App", depth=1) is not first


def test_other_words_are_another_question() -> None:
    assert classify("zimmere eine Hütte").agent is None
    mine = words_with("2", (("implementation", ("zimmer*",)),))
    found = classify("zimmere eine Hütte", words=mine)
    assert (found.agent, found.words_version) == ("codesmith", "2")
    assert classify("zimmere eine Hütte").agent is None
    assert classify("zimmere eine Hütte", words=words_with("2", (("implementation", ("zimmer*",)),))) is found
    forget()
    assert memo_info() == (0, 0, 0)
    with pytest.raises(KeyError, match="carpentry"):
        words_with("3", (("carpentry", ("zimmer*",)),))


@given(st.text(max_size=200), st.integers(min_value=0, max_value=9))
def test_any_text_has_one_answer(text: str, depth: int) -> None:
    found = classify_by(text, depth, DEFAULT_WORDS)
    assert found == classify_by(text, depth, DEFAULT_WORDS)
    assert (found.agent is not None) == (found.action == "route_agent")
    assert all(0 <= score <= 1 for score in (found.coherence, found.confidence, found.safety))
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_guards() -> None:
    found = classify("erstelle eine Todo App mit Login")
    free = {"depth": 0, "recent": [], "now": 100.0}
    assert blocked(found, **free) is None  # type: ignore[arg-type]
    assert blocked(found, depth=4, recent=[], now=100.0) is not None
    twice = [(found.digest, 80.0), (found.digest, 90.0)]
    assert blocked(found, depth=0, recent=twice[:1], now=100.0) is None
    assert blocked(found, depth=0, recent=twice, now=100.0) is not None
    assert blocked(found, depth=0, recent=twice, now=115.0) is None
    assert blocked(found, depth=0, recent=[], now=100.0, route=["a", "b", "a"]) is not None
    assert blocked(found, depth=0, recent=[], now=100.0, route=["a", "b", "c"]) is None
    assert blocked(found, depth=0, recent=[], now=100.0, messages=1_001) is not None
    assert blocked(found, depth=0, recent=[], now=100.0, steps=51) is not None
    assert blocked(classify("asdfghjkl"), depth=0, recent=[], now=100.0) is not None
