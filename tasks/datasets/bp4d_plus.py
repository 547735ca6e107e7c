"""BP4D+: 140 people at ten tasks, action units coded in the first, sixth, seventh and eighth (Zhang et al. 2016).

::

    ROOT/2D+3D/F001.zip                                          with F001/T1/0.jpg … in it, or unpacked: ROOT/2D+3D/F001/T1/0.jpg
    ROOT/AUCoding/AU_OCC/F001_T1.csv                             a line a frame from 1, a column an action unit
    ROOT/AUCoding/AU_INT/AU06/F001_T1_AU06.csv                   "1,3": intensities 0-5

The labels are as in :mod:`tasks.datasets.bp4d`, but their columns are fewer and so stand in other places. Frames are counted from 1 and
images from 0. Other recordings (``Physiology``, ``Thermal``, ``2DFeatures`` …) are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import RequestError
from harness.samples import Reading
from tasks.datasets import au_coding

_LAYOUT = au_coding.Layout(
    title="BP4D+", folder="2D+3D/{subject}.zip::{subject}/{task}/", offset=-1, coded=("T1", "T6", "T7", "T8"), beyond="length mismatch"
)


def read(
    root: str | Path, *, image_offset: int = -1, activities: Mapping[str, str] | None = None, aus: Sequence[int] | None = None
) -> Reading:
    """All coded frames: ``au1`` … as 0 or 1, ``au6_intensity`` … 0..5; what is coded 9 is null.

    A sequence (``F001_T1``) is a clip, and its frames have the numbers of the labels. Images without labels are no problem, but for
    whole sequences of the tasks that are coded.

    Args:
        root: The dataset's folder, or one above it.
        image_offset: What to add to the number of a frame for that of its image.
        activities: Task → what is done there, as text, for methods that learn from it. A task that is not in it is its own name, "T1".
        aus: The action units to keep. By default BP4D's twelve, and every other one that is coded in any frame.

    Raises:
        RequestError: There is no such folder or no occurrences in it, or an option is none.
    """
    if type(image_offset) is not int or abs(image_offset) > 10_000:
        raise RequestError(f"image_offset={image_offset!r}", where="task.dataset.read.image_offset", remedy="give a whole number, -1 say")
    return au_coding.read(root, replace(_LAYOUT, offset=image_offset), activities=activities, aus=aus)
