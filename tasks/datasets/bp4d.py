"""BP4D-Spontaneous: 41 people at eight tasks that call up emotions, action units coded in a part of each (Zhang et al. 2014).

::

    ROOT/Sequences(2D+3D)/F001/T1/2440.jpg                       or 0440.jpg, 044.jpg: three or four digits, or as many as there are
    ROOT/AUCoding/AU_OCC/F001_T1.csv                             a line a frame, a column an action unit
    ROOT/AUCoding/AU_INT/AU06/F001_T1_AU06.csv                   "2440,3": intensities 0-5 of AU 6, 10, 12, 14, 17

The first line of a file of occurrences names its columns by the numbers of the action units, 0 is the frame. A cell is 0, 1 or 9, which
is unknown. The separate distribution of videos (``2F01_01.avi`` …) is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.samples import Reading
from tasks.datasets import au_coding

_LAYOUT = au_coding.Layout(title="BP4D", folder="Sequences(2D+3D)/{subject}/{task}/", offset=0, coded=None, beyond="lines without an image")


def read(root: str | Path, *, activities: Mapping[str, str] | None = None, aus: Sequence[int] | None = None) -> Reading:
    """All coded frames: ``au1`` … as 0 or 1, ``au6_intensity`` … 0..5; what is coded 9 is null.

    A sequence (``F001_T1``) is a clip, and its frames have the numbers of the recording. That images beyond the coded part have no
    labels is no problem; a sequence of which none has one is.

    Args:
        root: The dataset's folder, or one above it.
        activities: Task → what is done there, as text, for methods that learn from it. A task that is not in it is its own name, "T1".
        aus: The action units to keep. By default the benchmark's twelve, and every other one that is coded in any frame.

    Raises:
        RequestError: There is no such folder or no occurrences in it, or an option is none.
    """
    return au_coding.read(root, _LAYOUT, activities=activities, aus=aus)
