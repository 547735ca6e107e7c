"""How often a 95 % interval covers the truth and a test rejects a true null, over many synthetic experiments (``worlds``).

    python -m tests.simulation.experiments                   # the table of docs/statistics.md: some fifteen minutes on one core
    python -m tests.simulation.experiments --experiments 200 --subjects 20

Beside ``harness.statistics`` stands what is often done instead: the same bootstrap and the same swaps with every *frame* for a subject
of its own (``rows``).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from harness.metrics import units
from harness.publish.tables import render
from harness.statistics import Panel, bootstrap
from tests.simulation.worlds import CLASSES, METRICS, TARGETS, Design, World, calibrate, scores, world

DESIGNS = (Design(1, 12), Design(1, 20), Design(1, 60), Design(3, 6), Design(3, 20))
_BY = ("evaluation", "fold", "subject", "clip")


def truth(design: Design, experiments: int = 3000) -> dict[str, float]:
    """What the protocol gives on average: the expected score of ``a`` over experiments that are not those measured."""
    found = [scores(world(design, [9, seed]).predictions("a")) for seed in range(experiments)]
    return {metric: float(np.mean([one[metric] for one in found])) for metric in METRICS}


def endless(subjects: int = 4000) -> dict[str, float]:
    """The score of ``a`` over so many subjects in one fold that chance plays no part."""
    return scores(world(Design(1, subjects), [8, 0]).predictions("a"))


def measure(
    design: Design,
    *,
    experiments: int,
    rows: int = 0,
    draws: int = 1000,
    scales: Mapping[str, float] | None = None,
    metrics: Sequence[str] = METRICS,
    truths: Mapping[str, float] | None = None,
    beyond: Mapping[str, float] | None = None,
) -> pl.DataFrame:
    """Repeat the experiment and count.

    Args:
        design: Of each experiment.
        experiments: How many.
        rows: In how many of them frames are resampled, too.
        draws: Of bootstrap and permutation.
        scales: What :func:`worlds.calibrate` returned; without it the weak null is left out.
        metrics: Which.
        truths: What :func:`truth` returned.
        beyond: What :func:`endless` returned.

    Returns:
        ``design``, ``metric``, ``how`` (``subjects`` or ``rows``), ``experiments``, and shares from 0 to 1: ``covered`` (the interval of
        ``a`` holds the truth), ``covered_endless`` (it holds the score of endless subjects), ``covered_0`` and ``rejected`` (the
        difference of ``a`` and ``b``; p at most 5 %), ``covered_0_weak`` and ``rejected_weak`` (of ``a`` and ``c``).
    """
    truths, beyond = truths or truth(design), beyond or endless()
    seen: list[dict[str, object]] = []
    for seed in range(experiments):
        drawn = world(design, [3, seed])
        for how in ("subjects", "rows")[: 2 if seed < rows else 1]:
            frames = {"a": drawn.predictions("a"), "b": drawn.predictions("b")}
            if how == "subjects" and scales:
                frames |= {f"c {metric}": drawn.predictions("c", scales[metric]) for metric in metrics}
            panel, of = _panel(frames, drawn, design, how, 200 if how == "rows" else draws, seed)
            for metric in metrics:
                interval = panel.interval(of["a"], metric)
                facts: dict[str, object] = {"metric": metric, "how": how}
                facts |= {
                    "covered": interval.lo <= truths[metric] <= interval.hi,
                    "covered_endless": interval.lo <= beyond[metric] <= interval.hi,
                }
                for name, end in (("b", ""), (f"c {metric}", "_weak")):
                    if name in of:
                        difference = panel.difference(of["a"], of[name], metric)
                        facts |= {f"covered_0{end}": difference.lo <= 0 <= difference.hi, f"rejected{end}": difference.p <= 0.05}
                seen.append(facts)
    bootstrap.cache_clear()
    shares = ("covered", "covered_endless", "covered_0", "rejected", "covered_0_weak", "rejected_weak")
    table = pl.DataFrame(seen, infer_schema_length=None)
    there = [name for name in shares if name in table.columns]
    found = table.group_by("how", "metric", maintain_order=True).agg(
        pl.len().alias("experiments"), *(pl.col(name).mean() for name in there)
    )
    return found.select(pl.lit(design.name).alias("design"), "metric", "how", "experiments", *there)


def _panel(
    frames: Mapping[str, pl.DataFrame], drawn: World, design: Design, how: str, draws: int, seed: int
) -> tuple[Panel, dict[str, list[str]]]:
    """The panel of some methods, and the evaluations, one a fold, of each."""
    named = [frame.with_columns(evaluation=pl.format("{} {}", pl.lit(name), "fold")) for name, frame in frames.items()]
    if how == "rows":
        number = pl.Series([str(row) for row in range(len(drawn.fold))])
        named = [frame.with_columns(subject=number, clip=number) for frame in named]
    sums = units(pl.concat(named), targets=TARGETS, classes=CLASSES, by=_BY)
    return Panel(sums, draws=draws, seed=seed), {name: [f"{name} {fold}" for fold in range(design.folds)] for name in frames}


def shown(found: pl.DataFrame) -> pl.DataFrame:
    """The table of the docs, in %: ours, then the rows'."""
    ours, rows = (found.filter(how=how).drop("how") for how in ("subjects", "rows"))
    percent = {
        "covers": "covered",
        "covers endless": "covered_endless",
        "difference covers 0": "covered_0",
        "rejects": "rejected",
        "difference covers 0, weak": "covered_0_weak",
        "rejects, weak": "rejected_weak",
    }
    there = {name: column for name, column in percent.items() if column in found.columns}
    by_rows = rows.select("design", "metric", **{f"rows: {name}": there[name] for name in ("covers", "rejects")})
    table = ours.select("design", "metric", **there).join(by_rows, on=["design", "metric"], how="left", maintain_order="left")
    return table.with_columns((pl.selectors.float() * 100).round(1))


def main() -> None:
    """Measure, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=200, help="experiments in which frames are resampled, too")
    parser.add_argument("--subjects", type=int, help="so many subjects a fold, instead of the five designs")
    parser.add_argument("--folds", type=int, default=1)
    given = parser.parse_args()
    for design in [Design(given.folds, given.subjects)] if given.subjects else DESIGNS:
        found = measure(design, experiments=given.experiments, rows=given.rows, scales=calibrate(design))
        print(render(shown(found), "markdown"), flush=True)


if __name__ == "__main__":
    main()
