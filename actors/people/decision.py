"""A person's answer to a proposal, read from free text in German or English.

Only what is clearly a yes counts as one: an agent that begins against somebody's will has done harm, one that asks again has cost a minute.
So a text is a yes or a no if *every* word of it belongs to one; whatever else it holds makes it a wish for a change or a question.
"""

import re
from typing import Final, Literal

import msgspec

from actors.people.language import in_language_of

Verdict = Literal["approved", "rejected", "modified", "unclear"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided. `feedback` is the text as it was said, where it asks for a change; `question` is what to ask back where unclear, in
    the language of the text (`in_language_of`)."""

    verdict: Verdict
    feedback: str = ""
    question: str = ""


def _words(said: str) -> frozenset[str]:
    return frozenset(said.split())


_YES: Final = _words("ja jo jawohl yes yep yeah ok okay okey approved approve genehmigt einverstanden passt lgtm sure klar perfekt perfect")
_NO: Final = _words("nein nö nee no nope reject rejected abgelehnt ablehnen never niemals")
_NOT: Final = _words("nicht not kein keine keinen never nie niemals don't dont doesn't won't can't cannot isn't without ohne")
_FILLER: Final = _words(
    "das so es it this that bitte please danke thanks thank you dir gut good great super prima in ordnung all right fein fine "
    "sieht aus looks look i ich we wir do go ahead proceed weiter los machen mach make mal gerne gern auch genau exactly the "
    "plan plan der den proposal vorschlag passt bin agree zu is ist schon very sehr first"
)
_AFFIRMING: Final = (
    "sieht gut aus", "looks good", "go ahead", "mach das so", "mach das", "mach so", "i agree", "in ordnung", "all right", "stimme zu",
)  # fmt: skip
_CHANGING: Final = _words(
    "use nimm nehmt nutze verwende change ändere ändern replace ersetze add füge ergänze remove entferne lass lasse rename "
    "benenne switch wechsle statt instead aber but jedoch however except außer sondern lieber rather make mache move "
    "verschiebe split teile put setze"
)

_NO_CLEAR_YES: Final = "That was no clear yes. Shall I go on like this (yes), leave it (no), or what should I change?"
_KEIN_KLARES_JA: Final = "Das war kein klares Ja. Soll ich so weitermachen (ja), es lassen (nein), oder was soll ich ändern?"


def decision_of(text: str) -> Decision:
    """What `text` decides about a proposal.

    A clear yes or no is made of nothing else; ``aber``, ``use`` and their like ask for a change, which goes back to whoever made the
    proposal with the text as feedback; all else is unclear and asks back.
    """
    said = " ".join(re.findall(r"[\w'-]+", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))
    words = said.split()
    negated = any(word in _NOT for word in words)
    affirmed = any(word in _YES for word in words) or any(phrase in said for phrase in _AFFIRMING)
    refused = bool(words) and words[0] in _NO
    known = all(word in _YES or word in _FILLER or word in _NO for word in words)
    changes = any(word in _CHANGING for word in words)
    if affirmed and known and not negated and not refused and not any(word in _NO for word in words) and "?" not in text:
        return Decision(verdict="approved")
    if refused and not affirmed and all(word in _NO or word in _FILLER or word in _NOT for word in words) and "?" not in text:
        return Decision(verdict="rejected")
    # More than the word itself: "but" alone asks for nothing that anybody could do.
    if changes and len(words) > 2 and "?" not in text:
        return Decision(verdict="modified", feedback=text.strip())
    return Decision(verdict="unclear", question=in_language_of(text, de=_KEIN_KLARES_JA, en=_NO_CLEAR_YES))
