"""In which language somebody is answered: German or English, by the words of what he said. Pure."""

import re
from typing import Final, Literal

Language = Literal["de", "en"]


def _words(said: str) -> frozenset[str]:
    return frozenset(said.split())


# Words that only one of the two has ("was", "die", "in", "so", "bug" and "code" are in both), the small ones first: they carry a sentence.
_GERMAN: Final = _words(
    "ich du er sie wir ihr mir mich dir dich uns der das dem den des ein eine einen einem einer eines und oder aber nicht kein keine "
    "keinen ist sind bin bist sei wird werden wurde wurden habe hast hat haben kann kannst können könnte soll sollte sollen muss müssen "
    "möchte willst mit ohne für von vom zum zur zu auf aus bei nach über unter durch gegen dass wenn weil wie wo wer wann warum welche "
    "welcher welches dies diese dieser dieses dieselbe dasselbe hier dort schon noch nur auch sehr mehr bitte danke ja nein nö nee doch "
    "mal gern gerne hallo moin servus guten morgen tag abend hilfe weiter fortsetzen abbrechen nochmal alles etwas irgendwas nichts "
    "fehler langsam schneller kaputt bauen baue bau mache mach nimm nimmt ändere ändern füge lass einverstanden genehmigt abgelehnt "
    "passt klar sinn ki modell datei ordner tabelle datenbank falsch richtig gut besser sieht"
)
_ENGLISH: Final = _words(
    "i you he she we they me him us them the a and or but not no is are be been being were has have had do does did don't doesn't can't "
    "cannot could should would must may might shall with without for of from to on at by into than then that these those this it its if "
    "because how what where who when why which here there already still only too very more please thanks thank yes yeah yep nope hello "
    "good morning evening help continue resume again everything something anything nothing whatever error errors slow faster broken "
    "build make create write add change use remove rename fix check review look go ahead sure agree approve simplify approved rejected "
    "table file files folder looks wrong right good better"
)
_STEMS: Final = (
    "erstell", "prüf", "überprüf", "beheb", "reparier", "optimier", "beschleunig", "schreib", "programmier", "entwickl", "umstrukturier",
    "vereinfach", "aufräum", "umbau", "ergänz", "entfern", "verwend", "bibliothek", "abstürz", "absturz", "empfehl", "schätz", "entwurf",
    "entwirf", "funktionier", "generier", "refaktor",
)  # fmt: skip
"""Beginnings of German words of which every ending counts."""

_UMLAUTS: Final = frozenset("äöüß")


def language_of(text: str) -> Language | None:
    """The language of `text`; None where its words are of neither, or of both alike."""
    said = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    german = sum(word in _GERMAN or word.startswith(_STEMS) or bool(_UMLAUTS & set(word)) for word in said)
    english = sum(word in _ENGLISH for word in said)
    return None if german == english else "de" if german > english else "en"


def in_language_of(text: str, *, de: str, en: str) -> str:
    """What to say to whoever said `text`: in his language, and in both where it is not clear which that is."""
    found = language_of(text)
    return f"{en} / {de}" if found is None else de if found == "de" else en
