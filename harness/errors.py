"""What a user did wrong, in one line: what, where it was set, what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RequestError(Exception):
    """The request cannot be carried out as it was made (exit status 2).

    Args:
        what: What is wrong, with the offending value in it.
        where: The file, key or argument that set it.
        remedy: What would be right.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        line = what + (f" ({where})" if where else "") + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(line.split()))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.what, self.where, self.remedy)


class FitError(Exception):
    """One fit cannot go on (a loss that is not finite, say); the others do. Trying again would not help."""


def _rebuild(what: str, where: str | None, remedy: str | None) -> RequestError:
    return RequestError(what, where=where, remedy=remedy)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A remedy that names the closest option, or all of them.

    >>> did_you_mean("mtclar", ["mt_clar", "ridge"])
    "did you mean 'mt_clar'?"
    >>> did_you_mean("xyz", ["b", "a"])
    'choose from: a, b'
    """
    options = sorted(set(options))
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"choose from: {', '.join(options)}"
