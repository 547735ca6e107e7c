"""Action units of the world as coders of BP4D and BP4D+ would write them: what the writers of both share."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError
from tasks.datasets.vocabulary import BP4D_INTENSITY_AUS
from tasks.synthetic.faces import AUS
from tasks.synthetic.world import Footage

CODED = tuple(au for au in range(1, 40) if au not in (3, 8, 21, 25, 26))
"""The action units that are coded: the 34 columns of BP4D+."""

UNKNOWN = 9

Codes = dict[int, np.ndarray]
"""Action unit → ``(n,)`` int, one a coded frame, as they stand on disk."""


def lengths(n: int, frames: tuple[int, int], seed: int) -> list[int]:
    """How many frames each of ``n`` sequences has.

    Raises:
        RequestError: The least is more than the most.
    """
    low, high = frames
    if high < low:
        raise RequestError(f"frames={[low, high]}", remedy="give the least and the most frames of a sequence")
    drawn: list[int] = np.random.default_rng([seed, 21]).integers(low, high + 1, n).tolist()
    return drawn


def codes(footage: Footage, rows: np.ndarray, unsure: float, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Occurrences and intensities of some frames, a share of each 9. An action unit that no drawn face can show is 0."""
    occurrences = {au: footage.present(au)[rows] if au in AUS else np.zeros(len(rows), int) for au in CODED}
    intensities = {au: footage.intensity[rows, AUS.index(au)] for au in BP4D_INTENSITY_AUS}
    for column in (*occurrences.values(), *intensities.values()):
        column[rng.random(len(rows)) < unsure] = UNKNOWN
    return occurrences, intensities


def save(root: Path, clip: str, frames: np.ndarray, occurrences: Codes, intensities: Codes, header: Iterable[int]) -> None:
    """The six label files of a sequence.

    Args:
        root: The dataset's folder.
        clip: As in ``F001_T1``.
        frames: ``(n,)`` numbers.
        occurrences, intensities: Of these frames.
        header: The action units that have a column; one that is not coded is 9 throughout.
    """
    coding = root / "AUCoding"
    header = list(header)
    unknown = np.full(len(frames), UNKNOWN)
    _csv(coding / "AU_OCC" / f"{clip}.csv", [[0, *header], *zip(frames, *(occurrences.get(au, unknown) for au in header), strict=True)])
    for au, levels in intensities.items():
        _csv(coding / "AU_INT" / f"AU{au:02}" / f"{clip}_AU{au:02}.csv", zip(frames, levels, strict=True))


def _csv(path: Path, rows: Iterable[Iterable[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def labels(occurrences: Mapping[int, np.ndarray], intensities: Mapping[int, np.ndarray]) -> pl.DataFrame:
    """The columns that a reader should make of them."""
    columns = {f"au{au}": column for au, column in occurrences.items()}
    columns |= {f"au{au}_intensity": column for au, column in intensities.items()}
    return pl.DataFrame(columns).select(pl.when(pl.all() != UNKNOWN).then(pl.all()))


def jpegs(footage: Footage, rows: np.ndarray, image: int) -> list[bytes]:
    """Some frames, drawn."""
    drawn = []
    for pixels in footage.render(rows, image).images:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        drawn.append(file.getvalue())
    return drawn
