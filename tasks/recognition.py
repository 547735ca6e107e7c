"""Recognition: each image or frame on its own, with no labelled frame of the same clip; expression, valence and arousal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from harness import splits, statistics
from harness.errors import RequestError, did_you_mean
from harness.samples import EXPRESSIONS
from harness.task import Score, Setting, Split, Task, TaskInfo

_METRICS = {"expression": ("accuracy_expression", "f1_expression"), "valence": ("ccc_valence",), "arousal": ("ccc_arousal",)}


class Recognition(Task):
    """Expression, valence or arousal of single images, on the dataset's official split or on folds by group.

    Args:
        name, version, protocol: As in the task's YAML. What changes which numbers compare is appended to the protocol's
            id: the classes told apart, and the folds where there are any.
        dataset: The dataset's YAML: ``name``, and where known ``licence`` and ``citation``.
        targets: Of ``expression``, ``valence``, ``arousal``.
        primary: The metric a leaderboard ranks by: ``accuracy_expression``, ``f1_expression``, ``ccc`` …
        classes: How many expressions of AffectNet's order (7: without contempt; 8), or which. Images of other classes
            have no expression here. Classes that the data at hand lack are never the answer and cost nothing.
        folds: 1 is the official split; more are folds by group.
        test: The official part that is tested on: ``validation`` where, as for AffectNet, the test part is not public.
        seed: Of the folds and of the validation part.
        validation: Share of the training part kept for validation, in [0, 1). It is never the official validation
            part, which would select on what is tested.
        group: The column whose values stay on one side of a split.
        duplicates: What the guard does with identical images on both sides: ``refuse``, or ``drop`` them from training.
        note: Printed with every table.
    """

    def __init__(
        self,
        *,
        name: str,
        version: int,
        protocol: str,
        dataset: Mapping[str, Any],
        targets: Sequence[str],
        primary: str,
        classes: int | Sequence[str] = 8,
        folds: int = 1,
        test: str = "validation",
        seed: int = 0,
        validation: float = 0.15,
        group: str = "clip",
        duplicates: str = "drop",
        note: str = "",
    ) -> None:
        for target in targets:
            if target not in _METRICS:
                raise RequestError(f"unknown target {target!r}", where="task.targets", remedy=did_you_mean(target, _METRICS))
        metrics = [metric for target in targets for metric in _METRICS[target]] + ["ccc"] * ({"valence", "arousal"} <= {*targets})
        if primary not in metrics:
            raise RequestError(f"no metric {primary!r} for these targets", where="task.primary", remedy=did_you_mean(primary, metrics))
        if "expression" in targets:
            self.classes = _vocabulary(classes)
            known = self.classes == EXPRESSIONS[: len(self.classes)]
            protocol += f"-{len(self.classes)}-classes" if known else f"-{'-'.join(self.classes)}"
        if folds > 1:
            protocol += f"-{folds}-folds-seed-{seed}"
        splits.check_settings(folds=folds, seed=seed, validation=validation, least_folds=1)
        self.info = TaskInfo(
            name=name,
            version=version,
            dataset=str(dataset["name"]),
            protocol=protocol,
            targets=tuple(targets),
            group=group,
            primary=primary,
            licence=str(dataset.get("licence", "")),
            citation=str(dataset.get("citation", "")),
            note=note,
        )
        self.folds = folds
        self.test = test
        self.seed = seed
        self.validation = validation
        self.duplicates = duplicates

    def select(self, samples: pl.DataFrame) -> pl.DataFrame:
        """The images with a target, sorted by clip and frame; an expression that is not told apart here is null."""
        if self.classes:
            samples = samples.with_columns(pl.when(pl.col("expression").is_in(self.classes)).then("expression"))
        return super().select(samples).sort("clip", "frame", "sample")

    def split(self, samples: pl.DataFrame, fold: int) -> Split:
        """The official split, or one of the folds by group."""
        if self.folds > 1:
            return splits.by_group(samples, folds=self.folds, group=self.info.group, seed=self.seed, validation=self.validation)[fold]
        return splits.official(samples, test=self.test, validation=self.validation, seed=self.seed, group=self.info.group)

    def setting(self, evaluate: Mapping[str, Any]) -> Setting:
        """Nothing can be set: the only ``support.size`` is 0."""
        support = evaluate.get("support", {})
        if set(evaluate) - {"support"} or not isinstance(support, Mapping) or set(support) - {"size"} or str(support.get("size", 0)) != "0":
            raise RequestError(
                f"{self.info.name} has no support frames, so evaluate cannot be {dict(evaluate)}",
                where="evaluate",
                remedy="set nothing but support.size=0",
            )
        return {}

    def score(self, predictions: pl.DataFrame) -> Score:
        """Accuracy and F1 of the expression; RMSE, PCC, CCC and SAGR of valence and arousal; beside them ``frames_scored``."""
        units = statistics.units(predictions, targets=self.info.targets, classes=self.classes)
        return Score(statistics.metrics(units) | {"frames_scored": float(predictions.height)}, units)


def _vocabulary(classes: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, int):
        if classes not in (7, 8):
            raise RequestError(f"{classes} classes", where="task.classes", remedy="give 7 or 8, in AffectNet's order, or a list of names")
        return EXPRESSIONS[:classes]
    for name in classes:
        if name not in EXPRESSIONS:
            raise RequestError(f"unknown expression {name!r}", where="task.classes", remedy=did_you_mean(name, EXPRESSIONS))
    return tuple(classes)
