"""How every figure looks, and how it becomes files: the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.publish.document import INK, described

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito's palette, told apart with any colour vision."""

LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.hashsalt": "harness",
    "svg.fonttype": "path",
    "axes.unicode_minus": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
"""Settings of matplotlib."""


def files(figure: Figure, kinds: Sequence[str], texts: Mapping[str, str] | None = None, **options: Any) -> dict[str, bytes]:
    """A figure as files, without a clock in them.

    Args:
        figure: By matplotlib.
        kinds: ``svg``, ``png``, ``pdf``.
        texts: Of an SVG for a page: gid of an artist → what it says; without a paper of its own.
        options: Of ``savefig``.
    """
    of_kind: Any = {
        "svg": {"metadata": {"Date": None}},
        "png": {"dpi": 160, "metadata": {"Software": None}},
        "pdf": {"metadata": {"CreationDate": None, "Producer": None, "Creator": None}},
    }
    out = {}
    for kind in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, facecolor="white" if texts is None else "none", **of_kind[kind], **options)
        out[kind] = buffer.getvalue() if texts is None else described(buffer.getvalue(), texts)
    return out


def plain(text: str) -> str:
    """A name as it is: a dollar sign starts no formula."""
    return text.replace("$", r"\$")
