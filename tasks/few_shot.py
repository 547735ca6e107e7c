"""Few-shot video labelling: some frames of a test clip come with their labels, the others are predicted and scored."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from harness import metrics, splits
from harness.errors import RequestError, did_you_mean
from harness.task import Score, Setting, Split, Task, TaskInfo

SELECTIONS = ("first", "uniform", "every", "random", "kmeans")
"""How the support frames of a clip are chosen; see :meth:`FewShotVideo.support`."""

ANCHORS = ("last", "nearest", "mean", "median", "weighted", "embedding")
"""How a method combines what it predicts from each support frame: from the latest one not after the query, from the nearest
in time, by mean, median or mean weighted by similarity over all, or from the nearest in feature space."""

_SUPPORT = {"size": 4, "selection": "uniform", "every": 20, "draw": 0}
_EVALUATE = {"support": {}, "anchor": "last", "block": 1}


class FewShotVideo(Task):
    """Valence and arousal of every frame of a clip, from the labels of a few of its frames; folds by actor.

    Args:
        name, version, protocol: As in the task's YAML. The folds are part of the protocol, so their number and seed are
            appended to its id: results of other folds never share a table.
        dataset: The dataset's YAML: ``name``, and where known ``licence`` and ``citation``.
        folds: How many folds; no actor is in two of them.
        seed: Of the folds and of the validation actors.
        validation: Share of the training part whose actors are kept for validation, in [0, 1).
        group: The column whose values stay on one side of a split.
        duplicates: What the guard does with identical images on both sides: ``refuse``, or ``drop`` them from training.
        score_support: Whether frames whose labels were given are scored too, as the released MT-CLAR code does.
        note: Printed with every table.
    """

    def __init__(
        self,
        *,
        name: str,
        version: int,
        protocol: str,
        dataset: Mapping[str, Any],
        folds: int = 5,
        seed: int = 0,
        validation: float = 0.2,
        group: str = "subject",
        duplicates: str = "drop",
        score_support: bool = False,
        note: str = "",
    ) -> None:
        splits.check_settings(folds=folds, seed=seed, validation=validation, least_folds=2)
        self.info = TaskInfo(
            name=name,
            version=version,
            dataset=str(dataset["name"]),
            protocol=f"{protocol}-{folds}-folds-seed-{seed}",
            targets=("valence", "arousal"),
            group=group,
            primary="ccc",
            licence=str(dataset.get("licence", "")),
            citation=str(dataset.get("citation", "")),
            note=note,
        )
        self.folds = folds
        self.seed = seed
        self.validation = validation
        self.duplicates = duplicates
        self.scores_support = score_support

    def select(self, samples: pl.DataFrame) -> pl.DataFrame:
        """The frames with both labels and a place in their clip, sorted by clip and frame."""
        return samples.drop_nulls(["clip", "frame", *self.info.targets]).sort("clip", "frame")

    def split(self, samples: pl.DataFrame, fold: int) -> Split:
        """One of the folds by group."""
        return splits.by_group(samples, folds=self.folds, group=self.info.group, seed=self.seed, validation=self.validation)[fold]

    def setting(self, evaluate: Mapping[str, Any]) -> Setting:
        """The canonical form of ``evaluate``; keys that are not given have their defaults.

        ``support.size`` is a number of frames or a share of the clip (``6%``); 0 gives no support, whatever else is set.
        ``support.every`` counts only for the selection ``every``, which has no size, and ``support.draw`` only for
        ``random``. An ``anchor`` chooses among support frames, so with exactly one of them it makes no difference.

        >>> FewShotVideo(name="t", version=1, protocol="p", dataset={"name": "d"}).setting({"support": {"size": "1", "draw": 3}})
        {'support': {'selection': 'uniform', 'size': 1}, 'block': 1}
        """
        given = _filled(evaluate, _EVALUATE, where="evaluate")
        support = _filled(given["support"], _SUPPORT, where="evaluate.support")
        size = _size(support["size"])
        selection = _one_of(support["selection"], SELECTIONS, where="evaluate.support.selection")
        every = _whole(support["every"], least=2, where="evaluate.support.every")  # from 2: or no frame would be left to score
        draw = _whole(support["draw"], least=0, where="evaluate.support.draw")
        anchor = _one_of(given["anchor"], ANCHORS, where="evaluate.anchor")
        block = _whole(given["block"], least=1, where="evaluate.block")
        if size == 0:
            return {"support": {"size": 0}}
        if selection == "every":
            return {"support": {"selection": selection, "every": every}, "anchor": anchor, "block": block}
        drawn = {"draw": draw} if selection == "random" else {}
        combined = {} if size == 1 else {"anchor": anchor}
        return {"support": {"selection": selection, "size": size, **drawn}, **combined, "block": block}

    def support(self, test: pl.DataFrame, setting: Setting, thumbnails: np.ndarray) -> np.ndarray:
        """The support of every clip on its own: a function of the clip and the setting, the same for every method.

        - ``first``: the first frames.
        - ``uniform``: spread evenly by halving, always with the first frame; even where the size is a power of two, and
          between two such sizes one half of the clip is ahead of the other, which is the price of being nested.
        - ``every``: positions 0, k, 2k … of the frames in their order.
        - ``random``: one order of the frames a draw and clip, of which the first ones are taken.
        - ``kmeans``: frames that stand for the others, by their thumbnails.

        All are nested: a larger support contains a smaller one, shares of a clip among them (of ``every``, one whose step
        divides the other). A share is rounded up. A clip has at least one support frame, and one of two or more frames
        keeps at least one to be scored.
        """
        chosen = np.zeros(test.height, dtype=bool)
        given = setting["support"]
        if given.get("size") == 0:
            return chosen
        start = 0
        for length, clip in test["clip"].rle().struct.unnest().iter_rows():
            frames = _chosen(given, str(clip), length, thumbnails[start : start + length])
            chosen[start + frames] = True
            start += length
        return chosen

    def score(self, predictions: pl.DataFrame) -> Score:
        """RMSE, PCC, CCC and SAGR, pooled and per clip; beside them ``frames_scored`` and ``labels_used``."""
        scored = predictions if self.scores_support else predictions.filter(~pl.col("support"))
        if scored.is_empty():
            raise RequestError(f"{self.info.name}: no frame is left to score", remedy="every frame of the predictions is a support frame")
        units = metrics.units(scored, targets=self.info.targets)
        counts = {"frames_scored": float(scored.height), "labels_used": float(predictions["support"].sum())}
        return Score(metrics.metrics(units) | counts, units)


def _chosen(support: Mapping[str, Any], clip: str, length: int, thumbnails: np.ndarray) -> np.ndarray:
    """Positions of one clip's support frames."""
    selection = support["selection"]
    if selection == "every":
        return np.arange(0, length, support["every"])
    size = support["size"]
    wanted = math.ceil(Decimal(size.rstrip("%")) * length / 100) if isinstance(size, str) else size  # Decimal: 6 % of 50 is 3, not 4
    count = max(1, min(wanted, length - 1))
    if selection == "first":
        return np.arange(count)
    if selection == "uniform":
        return _halving(length)[:count]
    if selection == "random":
        return _drawn(length, clip, support["draw"])[:count]
    return _representative(thumbnails, count)


def _halving(length: int) -> np.ndarray:
    """All positions in van der Corput's order: the start, the middle, the quarters, the eighths …

    The grid of 2^bits points is at least as fine as the frames, so each frame is met, and first by its coarsest point.
    """
    bits = (length - 1).bit_length()
    grid = np.arange(1 << bits)
    place = np.arange(bits)
    bit_reversed = ((grid[:, None] >> place & 1) << place[::-1]).sum(axis=1)
    _, first_met = np.unique(bit_reversed * length >> bits, return_index=True)
    return np.argsort(first_met)


def _drawn(length: int, clip: str, draw: int) -> np.ndarray:
    """A random order of the positions. From raw bits, whose stream NumPy promises to keep, which it does not for permutations."""
    seed = hashlib.sha256(f"{draw}:{clip}".encode()).digest()
    return np.argsort(np.random.PCG64(int.from_bytes(seed)).random_raw(length))


def _representative(points: np.ndarray, count: int) -> np.ndarray:
    """The k-means objective with frames for centres, minimised greedily: each next frame lowers it most.

    Plain k-means has centres that are no frames, depends on how it is started, and its k centres are not among its k + 1.

    Args:
        points: ``(n, d)``.
        count: 1 … n.

    Returns:
        ``(count,)`` positions in the order of their choice; ties go to the earlier frame.
    """
    from scipy.spatial.distance import cdist

    distances = cdist(points, points, "sqeuclidean")
    nearest = np.full(len(points), np.inf)
    order = np.empty(count, dtype=np.int64)
    for step in range(count):
        objective = np.minimum(distances, nearest).sum(axis=1)
        objective[order[:step]] = np.inf
        order[step] = objective.argmin()
        nearest = np.minimum(nearest, distances[order[step]])
    return order


def _filled(given: Any, defaults: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise RequestError(f"{given!r} is no group of keys", where=where, remedy=f"its keys are {', '.join(defaults)}")
    for key in given:
        if key not in defaults:
            raise RequestError(f"unknown key {key!r}", where=f"{where}.{key}", remedy=did_you_mean(str(key), defaults))
    return {**defaults, **given}


def _one_of(value: Any, options: Collection[str], *, where: str) -> str:
    if value not in options:
        raise RequestError(f"unknown {where.rsplit('.', 1)[-1]} {value!r}", where=where, remedy=did_you_mean(str(value), options))
    return str(value)


def _whole(value: Any, *, least: int, where: str) -> int:
    if not re.fullmatch(r"\d+", str(value)) or int(value) < least:
        raise RequestError(f"{where.rsplit('.', 1)[-1]} is {value!r}", where=where, remedy=f"give a whole number from {least} on")
    return int(value)


def _size(value: Any) -> int | str:
    """``4`` of 4 or ``" 4"``; ``6%`` of ``"6 %"`` or ``"6.0%"``."""
    written = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?) ?%", str(value).strip())
    if written and written[1]:
        return int(written[1])
    if written and 0 < (share := Decimal(written[2])) <= 100:
        return f"{share.normalize():f}%"
    raise RequestError(
        f"support size {value!r}", where="evaluate.support.size", remedy="give a number of frames, as 4, or a share of the clip, as '6%'"
    )
