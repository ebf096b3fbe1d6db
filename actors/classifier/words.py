"""The patterns of the classifier: whole words, lower case. A `*` at the end takes any ending."""

from typing import Final

import msgspec

from events.memo import memo


def _words(said: str) -> tuple[str, ...]:
    return tuple(said.split(", "))


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the classifier knows of language. A deployment may add to it; the version names it in the log and in the memo."""

    version: str = "1"
    greeting: tuple[str, ...] = _words("hallo, hi, hey, hello, moin, servus, guten morgen, guten tag, guten abend, good morning, na")
    personal: tuple[str, ...] = _words("wer bist du, wie heißt du, wie alt bist du, who are you, your name, how are you, wie geht*")
    temporal: tuple[str, ...] = _words("gestern, heute, morgen, yesterday, today, tomorrow, letzte woche, last week, vorhin, später, later")
    comparison: tuple[str, ...] = _words("oder, versus, vs, besser als, better than, im vergleich, compared, unterschied*, difference*")
    philosophical: tuple[str, ...] = _words(
        "sinn des lebens, meaning of life, bewusstsein, consciousness, freier wille, free will, was ist wahrheit"
    )
    control: tuple[str, ...] = _words("stop, stopp, halt, pause, weiter, fortsetzen, resume, continue, abbrechen, cancel, abort")
    meta: tuple[str, ...] = _words("was kannst du, what can you do, hilfe, help, wie funktionierst du, how do you work, deine fähigkeiten")
    reference: tuple[str, ...] = _words("das, dies, dieses, diese, es, it, this, that, these, those, dasselbe, same, nochmal, again")
    everything: tuple[str, ...] = _words("alles, everything, irgendwas, something, anything, was auch immer, whatever")
    performance: tuple[str, ...] = _words(
        "langsam*, slow*, performance, optimier*, optimi*, beschleunig*, faster, schneller, speed, latenz*"
    )
    bug_report: tuple[str, ...] = _words(
        "fehler*, bug*, error*, exception*, crash*, abstürz*, absturz*, kaputt, broken, fix*, behebe*, repar*, traceback, "
        "funktioniert nicht, geht nicht, fails, failing"
    )
    refactoring: tuple[str, ...] = _words(
        "refactor*, refaktor*, aufräum*, clean up, cleanup, restructur*, umstrukturier*, vereinfach*, simplify"
    )
    testing: tuple[str, ...] = _words("test*, unittest*, pytest, coverage, testabdeckung, review*, prüf*, überprüf*")
    implementation: tuple[str, ...] = _words(
        "erstell*, baue, bau, bauen, implement*, programmier*, entwickl*, schreib*, create, build, make, write, add, develop, "
        "code, generate, generier*, füge, ergänz*, iterate, print, mach, mache, convert, sort, parse, rename"
    )
    technology: tuple[str, ...] = _words(
        "framework*, technolog*, library, bibliothek*, architektur*, architecture, stack, welche*, which, empfehl*, recommend*, "
        "python, docker, javascript, typescript, rust, react, fastapi, kubernetes, estimate*, schätz*, cost, costs, kosten, "
        "design*, entwurf*, entwirf*"
    )
    database: tuple[str, ...] = _words(
        "datenbank*, database*, sql, sqlite, postgres*, mysql, schema*, tabelle*, table, tables, migration*, index"
    )
    ai_integration: tuple[str, ...] = _words("ki, ai, llm, gpt*, claude, openai, anthropic, embedding*, chatbot, modell, prompt, prompts")
    schema: tuple[str, ...] = _words("schema*, tabelle*, table, tables")
    polite: tuple[str, ...] = _words(
        "bitte, please, kannst du, könntest du, can you, could you, ich möchte, ich will, i want to, i need to, let us"
    )
    keyboard: tuple[str, ...] = _words("qwertzuiop, qwertyuiop, asdfghjkl, yxcvbnm, zxcvbnm, 1234567890")


DEFAULT_WORDS: Final = Words()

GROUPS: Final = tuple(name for name in Words.__struct_fields__ if name != "version")
"""Groups of words that a deployment may add to."""


@memo("words of workspaces", 256)
def words_with(version: str, added: tuple[tuple[str, tuple[str, ...]], ...]) -> Words:
    """The words that everybody has, and `added` ones by group. version: names them in results.

    Raises:
        KeyError: there is no such group.
    """
    more = dict(added)
    if unknown := set(more) - set(GROUPS):
        raise KeyError(", ".join(sorted(unknown)))
    changed = {group: (*getattr(DEFAULT_WORDS, group), *words) for group, words in more.items()}
    return msgspec.structs.replace(DEFAULT_WORDS, version=version, **changed)

ORDER: Final = ("performance", "bug_report", "refactoring", "testing", "implementation", "technology", "database", "ai_integration")
"""Of several kinds of work the first one counts - unless the text begins with the verb of another (`classify.kind_of_work`)."""

AGENT: Final = {
    "performance": "performance",
    "bug_report": "fixer",
    "refactoring": "codesmith",
    "implementation": "codesmith",
    "testing": "reviewer",
    "technology": "architect",
    "database": "architect",
    "ai_integration": "research",
}
