"""The tasks of the ABAW challenges on Aff-Wild2: recognition, and predictions as the organisers want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import Problems
from tasks.datasets.abaw_submissions import CHALLENGES, LAYOUTS, read_rows, write_submission
from tasks.recognition import Recognition


class Challenge(Recognition):
    """One challenge of ABAW.

    Args:
        challenge: ``va``, ``expr``, ``au`` or ``mtl``; the dataset must be read for the same one.
        layout: Of a submission: ``single`` (one file, since the fifth edition) or ``per_video`` (up to the third).
        recognition: The arguments of :class:`tasks.recognition.Recognition`.
    """

    def __init__(self, *, challenge: str, layout: str = "single", **recognition: Any) -> None:
        if challenge not in CHALLENGES:
            remedy = did_you_mean(str(challenge), CHALLENGES)
            raise RequestError(f"ABAW has no challenge {challenge!r}", where="task.challenge", remedy=remedy)
        if layout not in LAYOUTS:
            raise RequestError(f"no layout {layout!r} of a submission", where="task.layout", remedy=did_you_mean(str(layout), LAYOUTS))
        super().__init__(**recognition)
        self.challenge, self.layout = challenge, layout

    def submission(self, predictions: pl.DataFrame, problems: Problems, order: Path | None = None) -> dict[str, str]:
        """The text files of :func:`tasks.datasets.abaw_submissions.write_submission`; ``order`` is the challenge's own sample file."""
        return write_submission(predictions, self.challenge, order=order, layout=self.layout, problems=problems)

    def read_submission(self, path: Path, problems: Problems) -> pl.DataFrame:
        """What stands in such files, by line; a frame that stands twice is there twice."""
        return read_rows(path, self.challenge, problems)
