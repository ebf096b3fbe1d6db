"""What a person's text asks for, by rules: no model, no clock, no state. German first, English beside it.

`words` is the table of patterns, `classify` the function, `guards` what stops a request that goes in circles.
"""

from actors.classifier.classify import Classification, classify, forget, memo_info
from actors.classifier.guards import blocked
from actors.classifier.words import DEFAULT_WORDS, Words, words_with

__all__ = ["DEFAULT_WORDS", "Classification", "Words", "blocked", "classify", "forget", "memo_info", "words_with"]
