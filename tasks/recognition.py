"""Recognition: each image on its own, with no labelled frame of the same clip: affect, expressions, action units, or all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from harness import identity, metrics, splits, thresholds
from harness.config import instantiate
from harness.errors import RequestError, did_you_mean
from harness.samples import EXPRESSIONS, label_columns
from harness.task import Score, Setting, Split, Task, TaskInfo, kind_of
from tasks.labels import Rule, Votes

Folds = int | Sequence[Sequence[str]]


class Recognition(Task):
    """Valence, arousal, expression, presence or intensity of action units of single images, on the official split or on folds by group.

    Args:
        name, version, protocol: As in the task's YAML. What changes which numbers compare is appended to the protocol's id: the classes
            told apart, the rules that labels went through, and the folds where there are any.
        dataset: The dataset's YAML: ``name``, and where known ``licence`` and ``citation``.
        targets: Of ``valence``, ``arousal``, ``expression``, ``au12`` …, ``au12_intensity`` …
        taught: The targets whose labels training has, where these are others: zero-shot. Samples without a label of these are not
            learned from, and samples without one of ``targets`` are not tested.
        held_out: Expressions of which nothing is learned, and nothing else is tested: zero-shot. This is done to a split once it is
            drawn, so the folds are those of the task without it. The answer is the likeliest of these; ``accuracy_among_all`` is the
            accuracy where any class may be it, which methods that know the others from training seldom get right.
        retrieval: Measure how well subjects are told apart by the embeddings, too (``retrieval_subject``).
        primary: The metric a leaderboard ranks by: ``accuracy_expression``, ``f1_au``, ``ccc``, ``p_mtl`` … (``harness.metrics``).
        labels: Name → a rule of ``tasks.labels``, applied in this order.
        classes: How many expressions of AffectNet's order (7: without contempt; 8), or which. Images of other classes
            have no expression here. Classes that the data at hand lack are never the answer and cost nothing.
        folds: 1 is the official split; more are folds by group; lists of groups are those published, each tested once.
        test: The official part that is tested on: ``validation`` where, as for AffectNet, the test part is not public.
        seed: Of the folds and of the validation part.
        validation: Share of the training part kept for validation, in [0, 1), or the official part that is for it. It is never the
            official part that is tested on, which would select on what is tested.
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
        taught: Sequence[str] | None = None,
        held_out: Sequence[str] | None = None,
        retrieval: bool = False,
        labels: Mapping[str, Any] | None = None,
        classes: int | Sequence[str] = 8,
        folds: Folds = 1,
        test: str = "validation",
        seed: int = 0,
        validation: float | str = 0.15,
        group: str = "clip",
        duplicates: str = "drop",
        note: str = "",
    ) -> None:
        kinds = [kind_of(target) for target in targets]
        for target in taught or ():
            kind_of(target)  # refuses what is none
        taught_id = [f"taught-{identity.address(sorted(taught))[:6]}"] if taught else []
        splits.check_settings(folds=folds, seed=seed, validation=validation, least_folds=1)
        self.rules: list[Rule] = [instantiate(rule) for rule in (labels or {}).values() if rule]
        self.votes = any(isinstance(rule, Votes) for rule in self.rules)
        if "expression" in targets:
            self.classes = _vocabulary(classes)
            usual = self.classes == EXPRESSIONS[: len(self.classes)]
            protocol += f"-{len(self.classes)}-classes" if usual else f"-{'-'.join(self.classes)}"
        self.held_out = _held_out(held_out, self.classes)
        held_out_id = [f"held-out-{'-'.join(self.held_out)}"] if self.held_out else []
        metric_names = [metric for metric in metrics.names_for(targets, self.classes, votes=self.votes) if not metric.endswith("_per_clip")]
        if primary not in metric_names:
            remedy = did_you_mean(primary, metric_names)
            raise RequestError(f"no metric {primary!r} for these targets", where="task.primary", remedy=remedy)
        self.folds = folds if isinstance(folds, int) else len(folds)
        self.lists = None if isinstance(folds, int) else [[str(name) for name in names] for names in folds]
        self.info = TaskInfo(
            name=name,
            version=version,
            dataset=str(dataset["name"]),
            protocol="-".join(
                [
                    protocol,
                    *taught_id,
                    *(rule.id for rule in self.rules),
                    *held_out_id,
                    *self._folds_id(seed),
                ]
            ),
            targets=tuple(targets),
            group=group,
            primary=primary,
            higher_is_better=metrics.higher_is_better(primary),
            licence=str(dataset.get("licence", "")),
            citation=str(dataset.get("citation", "")),
            note=note,
            parts=(
                *_parts(targets, self.held_out or self.classes, primary, votes=self.votes),
                *(("accuracy_among_all",) if self.held_out else ()),
                *(("retrieval_subject", "chance_subject") if retrieval else ()),
            ),
            taught=tuple(taught or ()),
            retrieval=retrieval,
        )
        self.test = test
        self.seed = seed
        self.validation = validation
        self.duplicates = duplicates
        self.detects = "occurrence" in kinds
        self.needs_probabilities = self.votes or bool(self.held_out)

    def select(self, samples: pl.DataFrame) -> pl.DataFrame:
        """The images with a target, sorted by clip and frame; an expression that is not told apart here is null.

        Where the official part to test on has no label of any kind, its images are there all the same, to be predicted.
        """
        for rule in self.rules:
            samples = rule(samples)
        missing = [target for target in (*self.info.targets, *self.info.taught) if target not in samples.columns]
        if missing:
            raise RequestError(f"the samples have no {', '.join(missing)}", where="task.targets", remedy="check the dataset's folder")
        if self.classes:
            samples = samples.with_columns(pl.when(pl.col("expression").is_in(self.classes)).then("expression"))
        labelled = self._labelled(samples, *self.info.targets, *self.info.taught)
        if self.folds == 1:
            tested = (pl.col("split") == self.test).fill_null(False)
            known = pl.any_horizontal(pl.col(set(label_columns(samples)) - {"activity"}).is_not_null())
            labelled = labelled | (tested & ~(known & tested).any())
        return samples.filter(labelled).sort("clip", "frame", "sample")

    def split(self, samples: pl.DataFrame, fold: int) -> Split:
        """The official split, one of the published folds, or one of the folds by group, and of these what is taught and tested.

        Raises:
            RequestError: As of ``harness.splits``; or the test part has none of the expressions held out.
        """
        whole = self._whole(samples, fold)
        if not self.info.taught and not self.held_out:
            return whole
        learned, tested = (samples.select(self._labelled(samples, *some)).to_series() for some in (self.info.learned, self.info.targets))
        if not tested.gather(whole.test).any():  # a part whose labels nobody has is there to be predicted
            tested = ~tested
        if self.held_out:
            unseen = samples["expression"].cast(pl.String).is_in(self.held_out).fill_null(False)
            learned, tested = learned & ~unseen, tested & unseen
            if not tested.gather(whole.test).any():
                what = f"no sample of {', '.join(self.held_out)} is tested in split {whole.name!r}"
                raise RequestError(what, where="task.held_out", remedy="hold out expressions that the test part has")
        parts = ((whole.train, learned), (whole.validation, learned), (whole.test, tested))
        return Split(whole.name, *(rows[kept.to_numpy()[rows]] for rows, kept in parts))

    def _whole(self, samples: pl.DataFrame, fold: int) -> Split:
        group, seed = self.info.group, self.seed
        if self.folds == 1:
            return splits.official(samples, test=self.test, validation=self.validation, seed=seed, group=group)
        share = float(self.validation)
        if self.lists is not None:
            return splits.by_lists(samples, self.lists, group=group, seed=seed, validation=share)[fold]
        return splits.by_group(samples, folds=self.folds, group=group, seed=seed, validation=share)[fold]

    def setting(self, evaluate: Mapping[str, Any]) -> Setting:
        """``threshold``, where action units are detected: 0.5, or ``validation``; the only ``support.size`` is 0.

        >>> task = Recognition(name="t", version=1, protocol="p", dataset={"name": "d"}, targets=["au1"], primary="f1_au")
        >>> task.setting({"threshold": "validation"}), task.setting({"threshold": 0.5, "support": {"size": 0}})
        ({'threshold': 'validation'}, {'threshold': '0.5'})
        """
        support = evaluate.get("support", {})
        known = {"support", "threshold"} if self.detects else {"support"}
        if set(evaluate) - known or not isinstance(support, Mapping) or set(support) - {"size"} or str(support.get("size", 0)) != "0":
            more = " and threshold" if self.detects else ""
            raise RequestError(
                f"{self.info.name} has no support frames, so evaluate cannot be {dict(evaluate)}",
                where="evaluate",
                remedy=f"set nothing but support.size=0{more}",
            )
        chosen = str(evaluate.get("threshold", 0.5))
        if chosen not in thresholds.CHOICES:
            remedy = did_you_mean(chosen, thresholds.CHOICES)
            raise RequestError(f"no threshold {chosen!r}", where="evaluate.threshold", remedy=remedy)
        return {"threshold": chosen} if self.detects else {}

    def score(self, predictions: pl.DataFrame) -> Score:
        """Every metric of the targets (``harness.metrics``), and ``frames_scored``: how many frames have a label."""
        more = {"frames_scored": float(predictions.filter(self._labelled(predictions, *self.info.targets)).height)}
        if self.held_out:
            right = predictions.select(pl.col("expression").cast(pl.String) == pl.col("expression_pred").cast(pl.String)).to_series().mean()
            more["accuracy_among_all"] = float("nan") if right is None else float(right)  # type: ignore[arg-type]
            predictions = _among(predictions, self.held_out)
        units = metrics.units(predictions, targets=self.info.targets, classes=self.classes)
        return Score(metrics.metrics(units) | metrics.auc(predictions, self.info.targets) | more, units)

    def _labelled(self, frame: pl.DataFrame, *targets: str) -> pl.Expr:
        """Whether a row has a label of any of some targets."""
        voted = [f"votes_{name}" for name in self.classes if self.votes and f"votes_{name}" in frame.columns]
        return pl.any_horizontal(pl.col(*targets, *(voted if "expression" in targets else ())).is_not_null())

    def _folds_id(self, seed: int) -> list[str]:
        if self.lists is not None:
            return [f"{self.folds}-published-folds-{identity.address(self.lists)[:6]}"]
        return [f"{self.folds}-folds-seed-{seed}"] if self.folds > 1 else []


def _vocabulary(classes: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, int):
        if classes not in (7, 8):
            raise RequestError(f"{classes} classes", where="task.classes", remedy="give 7 or 8, in AffectNet's order, or a list of names")
        return EXPRESSIONS[:classes]
    for name in classes:
        if name not in EXPRESSIONS:
            raise RequestError(f"unknown expression {name!r}", where="task.classes", remedy=did_you_mean(name, EXPRESSIONS))
    return tuple(classes)


def _held_out(names: Sequence[str] | None, classes: Sequence[str]) -> tuple[str, ...]:
    """In the order of the classes."""
    if isinstance(names, str):
        raise RequestError(f"held_out is {names!r}", where="task.held_out", remedy=f"give a list: [{names}]")
    for name in names or ():
        if name not in classes:
            remedy = did_you_mean(str(name), classes) if classes else "it needs the target expression"
            raise RequestError(f"{name!r} is held out and no class here", where="task.held_out", remedy=remedy)
    found = tuple(name for name in classes if name in (names or ()))
    if found and found == tuple(classes):
        raise RequestError("every class is held out", where="task.held_out", remedy="leave one to learn from")
    return found


def _among(predictions: pl.DataFrame, classes: Sequence[str]) -> pl.DataFrame:
    """The predictions with the likeliest of some classes for an answer, of equals the first one.

    Raises:
        RequestError: The predictions have no probabilities.
    """
    chances = [f"expression_p_{name}" for name in classes]
    missing = [chance for chance in chances if chance not in predictions.columns]
    if missing:
        what = f"predictions lack the columns {', '.join(missing)}"
        raise RequestError(what, remedy="of expressions that are held out the likeliest is the answer, so each needs its probability")
    highest = pl.max_horizontal(chances)
    likeliest = pl.coalesce(pl.when(pl.col(chance) == highest).then(pl.lit(name)) for name, chance in zip(classes, chances, strict=True))
    return predictions.with_columns(expression_pred=likeliest)


def _parts(targets: Sequence[str], classes: Sequence[str], primary: str, *, votes: bool) -> tuple[str, ...]:
    """The metrics that stand beside the score: what it is the mean of, and the others of its field."""
    kinds = {
        kind: [target for target in targets if kind_of(target) == kind] for kind in ("affect", "expression", "occurrence", "intensity")
    }
    if primary == "p_mtl":  # three fields at once: their means only
        return "ccc", "f1_expression", "f1_au", "ccc_valence", "ccc_arousal", "accuracy_expression", "auc_au"
    shown = [f"{kind}_{target}" for kind in ("ccc", "pcc", "rmse", "sagr") for target in kinds["affect"]]
    if kinds["expression"]:
        shown += ["accuracy_expression", "f1_expression", "recall_expression", *(f"f1_{name}" for name in classes)]
        shown += ["agreement_expression", "kl_expression"] if votes else []
    if kinds["occurrence"]:
        shown += [*(f"f1_{au}" for au in kinds["occurrence"]), "f1_au", "auc_au"]
    if kinds["intensity"]:
        shown += [*(f"icc_{target.removesuffix('_intensity')}" for target in kinds["intensity"]), "icc_au", "mse_au", "mae_au"]
    return tuple(metric for metric in shown if metric != primary)
