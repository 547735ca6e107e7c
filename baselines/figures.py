"""Pictures of what a fitted net does, as SVG, PNG and CSV; the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.publish.drawing import LOOK, files, plain


def attention(matrices: np.ndarray, names: Sequence[str], *, title: str) -> dict[str, bytes]:
    """Matrices of who takes how much of whom, beside each other.

    Args:
        matrices: ``(layers, t, t)``, shares in [0, 1]; rows ask, columns are asked.
        names: Of the t.
        title: Above the figure.

    Returns:
        ``svg``, ``png``, and ``csv`` with the columns ``layer`` (from 1), ``token``, ``attends_to`` and ``share``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    layers, t = matrices.shape[:2]
    cell = 0.62 if t <= 6 else 0.3
    side = max(2.0, cell * t)
    most = max(float(matrices.max()), 1e-9)
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(1.9 + layers * (side + 0.4), side + 1.9), layout="constrained")
        axes = figure.subplots(1, layers, sharey=True, squeeze=False)[0]
        for layer, (axis, matrix) in enumerate(zip(axes, matrices, strict=True), 1):
            shown = axis.imshow(matrix, vmin=0, vmax=most, cmap="cividis")
            axis.set_title(f"layer {layer}", fontsize=9)
            axis.set_xticks(range(t), names, rotation=45 if t <= 6 else 90, ha="right" if t <= 6 else "center")
            axis.set_yticks(range(t), names)
            axis.tick_params(length=0)
            for (row, column), share in np.ndenumerate(matrix):
                if t <= 6:
                    axis.text(column, row, f"{share:.2f}", ha="center", va="center", color="black" if share > most / 2 else "white")
        figure.supxlabel("attends to", fontsize=9)
        figure.supylabel("token", fontsize=9)
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.colorbar(shown, ax=list(axes), label="share of a row", shrink=0.9)
        out = files(figure, ("svg", "png"))
    lines = ["layer,token,attends_to,share"]
    lines += [f"{layer + 1},{names[row]},{names[column]},{share:.6f}" for (layer, row, column), share in np.ndenumerate(matrices)]
    return out | {"csv": ("\n".join(lines) + "\n").encode()}
