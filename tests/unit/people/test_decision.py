"""Only a clear yes is one (scenario 6, pain P9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.people import decision_of

SAID = [
    ("I don't approve", "unclear"),
    ("I don\N{RIGHT SINGLE QUOTATION MARK}t approve this", "unclear"),
    ("Looks wrong", "unclear"),
    ("Looks wrong, use Postgres", "modified"),
    ("I know", "unclear"),
    ("I know a better layout", "unclear"),
    ("Nein", "rejected"),
    ("Ja, passt", "approved"),
    ("ja", "approved"),
    ("JA!", "approved"),
    ("ok", "approved"),
    ("Okay, mach das so", "approved"),
    ("yes please", "approved"),
    ("looks good, go ahead", "approved"),
    ("LGTM", "approved"),
    ("sieht gut aus", "approved"),
    ("ja, aber mit Postgres", "modified"),
    ("yes but rename the table", "modified"),
    ("nein, nimm lieber SQLite", "modified"),
    ("no", "rejected"),
    ("no thanks", "rejected"),
    ("nein danke", "rejected"),
    ("yes?", "unclear"),
    ("ja oder nein?", "unclear"),
    ("ja nein", "unclear"),
    ("passt nicht", "unclear"),
    ("nicht ok", "unclear"),
    ("not ok", "unclear"),
    ("yesterday was better", "unclear"),
    ("okapi", "unclear"),
    ("notify me", "unclear"),
    ("the plan", "unclear"),
    ("but", "unclear"),
    ("", "unclear"),
    ("disapproved", "unclear"),
    ("approve nothing", "unclear"),
    ("stop", "unclear"),
]


@pytest.mark.parametrize(("text", "verdict"), SAID)
def test_said(text: str, verdict: str) -> None:
    decision = decision_of(text)
    assert decision.verdict == verdict
    assert bool(decision.question) == (verdict == "unclear")
    assert decision.feedback == (text if verdict == "modified" else "")


@pytest.mark.parametrize(
    ("text", "languages"), [("I don't approve", "en"), ("passt nicht", "de"), ("Ich weiß", "de"), ("stop", "en de"), ("", "en de")]
)
def test_who_is_not_clear_is_asked_back_in_his_language_and_in_both_where_that_is_not_clear(text: str, languages: str) -> None:
    asked = decision_of(text).question
    assert ("no clear yes" in asked) == ("en" in languages)
    assert ("kein klares Ja" in asked) == ("de" in languages)


YES = [text for text, verdict in SAID if verdict == "approved"]


@given(st.sampled_from(["nicht", "not", "kein", "don't", "nie", "ohne"]), st.sampled_from(YES))
def test_no_yes_survives_a_not(negation: str, yes: str) -> None:
    for text in (f"{negation} {yes}", f"{yes} {negation}"):
        assert decision_of(text).verdict != "approved"


@given(st.text(max_size=80), st.sampled_from(["ja", "ok", "yes"]))
def test_a_yes_inside_other_words_is_none(text: str, yes: str) -> None:
    assert decision_of(f"xyz{yes} {text}").verdict != "approved"
