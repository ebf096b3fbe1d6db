"""What people say to agents at work: decisions, in their own words."""

from actors.people.decision import Decision, decision_of
from actors.people.language import Language, in_language_of, language_of

__all__ = ["Decision", "Language", "decision_of", "in_language_of", "language_of"]
