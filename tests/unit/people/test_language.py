"""In whose language somebody is answered."""

import pytest

from actors.classifier import classify
from actors.classifier.words import AGENT
from actors.people import in_language_of, language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Fehler", "de"), ("prüfe den Code und die Tests", "de"), ("erstelle eine Todo App mit Login", "de"), ("Das ist zu langsam.", "de"),
        ("Ich weiß es nicht", "de"), ("WARUM?", "de"), ("optimiere main.py", "de"), ("hallo", "de"),
        ("check the code and the tests", "en"), ("fix the login bug in auth.py", "en"), ("It's too slow", "en"), ("Why?", "en"),
        ("I don\N{RIGHT SINGLE QUOTATION MARK}t know", "en"), ("hello", "en"), ("build an app", "en"),
        ("Looks wrong", "en"), ("Sieht falsch aus", "de"),
        ("", None), ("stop", None), ("auth.py", None), ("Docker", None), ("ja yes", None), ("42", None),
    ],
)  # fmt: skip
def test_the_language_of_a_text(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_whose_language_is_not_clear_hears_both() -> None:
    assert [in_language_of(text, de="d", en="e") for text in ("warum", "why", "x")] == ["d", "e", "e / d"]


def test_every_question_of_the_classifier_is_there_in_both_languages() -> None:
    """Each kind of work asked for too briefly, in both languages; and what is no work at all."""
    asked = [
        ("langsam", "slow"), ("ein Fehler", "an error"), ("refaktoriere", "simplify"), ("bitte teste", "please test"),
        ("bitte bauen", "please build"), ("welche", "which"), ("die Datenbank", "the database"), ("eine KI", "the AI"),
        ("dieses hier", "this one"),
    ]  # fmt: skip
    assert len(asked) == len(AGENT) + 1
    for german, english in asked:
        questions = [classify(text).question for text in (german, english)]
        assert None not in questions, (german, english)
        assert [language_of(question or "") for question in questions] == ["de", "en"], questions
