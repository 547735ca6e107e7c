"""The tasks of the ABAW challenges on Aff-Wild2: recognition, and predictions as the organisers want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RequestError, did_you_mean
from tasks.datasets.abaw_submissions import CHALLENGES, write_submission
from tasks.recognition import Recognition


class Challenge(Recognition):
    """One challenge of ABAW.

    Args:
        challenge: ``va``, ``expr``, ``au`` or ``mtl``; the dataset must be read for the same one.
        recognition: The arguments of :class:`tasks.recognition.Recognition`.
    """

    def __init__(self, *, challenge: str, **recognition: Any) -> None:
        if challenge not in CHALLENGES:
            remedy = did_you_mean(str(challenge), CHALLENGES)
            raise RequestError(f"ABAW has no challenge {challenge!r}", where="task.challenge", remedy=remedy)
        super().__init__(**recognition)
        self.challenge = challenge

    def submission(self, predictions: pl.DataFrame, order: Path | None = None) -> dict[str, str]:
        """One text file for all videos, as since the fifth edition; ``order`` is the challenge's own sample file."""
        return write_submission(predictions, self.challenge, order=order)
