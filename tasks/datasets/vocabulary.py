"""The one place where the datasets' own codes and names for expressions and action units become ours."""

from __future__ import annotations

import re

AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""Expression of the codes 0 … 7; 8 is none, 9 uncertain, 10 no face."""

AFF_WILD2 = ("neutral", "anger", "disgust", "fear", "happy", "sad", "surprise", "other")
"""Expression of the codes 0 … 7; before the third edition there was no ``other``."""

RAF_DB = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
"""Expression of the codes 1 … 7, in this order."""

FER2013 = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Expression of the codes 0 … 6."""

CODES: dict[str, dict[int, str]] = {
    "affectnet": dict(enumerate(AFFECTNET)),
    "aff_wild2": dict(enumerate(AFF_WILD2)),
    "raf_db": dict(enumerate(RAF_DB, start=1)),
    "fer2013": dict(enumerate(FER2013)),
}
"""Dataset → code → canonical expression, for files that hold numbers."""

_SYNONYMS = {
    "neutral": ("neutrality", "calm"),
    "happy": ("happiness", "joy", "joyful"),
    "sad": ("sadness",),
    "surprise": ("surprised",),
    "fear": ("fearful", "afraid", "scared"),
    "disgust": ("disgusted",),
    "anger": ("angry",),
    "contempt": ("contemptuous",),
    "other": ("others",),
}
EXPRESSION_NAMES: dict[str, str] = {name: canon for canon, names in _SYNONYMS.items() for name in (canon, *names)}
"""Lower-case name in any of the datasets → canonical expression."""

ANSWER_NAMES: dict[str, str] = {**EXPRESSION_NAMES, "unknown": "unknown", "nf": "no_face"}
"""Lower-case name of what a rater may answer → whom the vote is for."""

AFF_WILD2_AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
ABAW1_AUS = (1, 2, 4, 6, 12, 15, 20, 25)
DISFA_AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)  # DISFA+ has the same
BP4D_AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)  # of the benchmark; BP4D+ has the same; the files code more
BP4D_INTENSITY_AUS = (6, 10, 12, 14, 17)


def au_name(text: str) -> str | None:
    """The column of an action unit as some file calls it; None where it is none.

    >>> [au_name(text) for text in ("AU01", "au 12", "AU6_r", "7", "99x", "valence")]
    ['au1', 'au12', 'au6', 'au7', None, None]
    """
    found = re.fullmatch(r"(?:au)?[ _]?0*([1-9]\d?)(?:_[cr])?", text.strip(), re.IGNORECASE)
    return f"au{int(found[1])}" if found else None
