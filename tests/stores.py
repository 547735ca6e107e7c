"""Stores written by hand: what a site is made of, without a fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness import identity, metrics
from harness.store import RECORD, Store
from harness.tuning import ON_VALIDATION

EVIL = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">../../etc/passwd"
LONG = "a method with a name that nobody will ever read to its end " * 6
SOURCE = "tests.plugin.toy.Toy"


def predictions(skill: float, seed: int, *, subjects: int = 6, frames: int = 20) -> pl.DataFrame:
    """Two clips a subject; the better the skill, the nearer the predictions."""
    rng = np.random.default_rng(seed)
    n = subjects * 2 * frames
    place = np.arange(n) // frames
    frame = {"subject": [f"s{p // 2}" for p in place], "clip": [f"c{p}" for p in place]}
    for target in ("valence", "arousal"):
        label = np.random.default_rng(7).uniform(-1, 1, n)
        frame |= {target: label, f"{target}_pred": skill * label + (1 - skill) * rng.normal(0, 0.5, n)}
    return pl.DataFrame(frame)


def enter(store: Store, arm: str, *, skill: float, setting: dict[str, Any] | None = None, stage: str = "", **more: Any) -> str:
    """One record with its sums, its provenance and, where it has a stage, its fit with a history; returns the evaluation."""
    fold, seed = more.get("fold", 0), more.get("seed", 0)
    known = predictions(skill, identity.address([arm, fold, seed, setting]).encode()[0] + 7 * fold + seed)
    sums = metrics.units(known, targets=("valence", "arousal"))
    values = metrics.metrics(sums)
    given = (setting or {}).get("support", {}).get("size", 0)
    fit = identity.address([arm, stage, fold, seed])
    source = more.pop("source", None)
    extra = more.pop("provenance", {})
    kept: dict[str, Any] = {
        "environment": {"commit": "0" * 40, "dirty": False, "python": "3.11", "packages": {"polars": "2.1"}, "gpus": [], "cores": 2},
        "sources": {"harness.statistics.holm": source} if source else {},
        "guard": {"labels": "l", "parts": {"test": {"samples": 240, "clips": 12, "groups": 6, "dropped": 0, "sha256": "0" * 64}}},
        "problems": {"missing image": 1},
        "fits": [fit] if stage else [],
        "versions": {"task": 1, "baseline": 1},
        "baseline": {"_target_": "nowhere.Method", "name": arm, "version": 1},
        "task": {"name": more.get("task", "toy"), "folds": 2, "dataset": {"title": "Toy", "licence": "none"}, "note": "A note."},
    }
    record: dict[str, Any] = dict.fromkeys(RECORD) | {
        "fit": fit,
        "task": "toy",
        "task_version": 1,
        "protocol": "folds-2",
        "dataset": "toys",
        "synthetic": True,
        "data": "d" * 20,
        "primary": "ccc",
        "baseline": arm,
        "baseline_version": 1,
        "arm": arm,
        "control": False,
        "fold": 0,
        "seed": 0,
        "setting": identity.canonical(setting or {}),
        "score": values["ccc"],
        "metrics": identity.canonical({name: value if np.isfinite(value) else None for name, value in values.items()}),
        "labels_used": 12 * given,
        "n_samples": known.height,
        "n_clips": 12,
        "n_subjects": 6,
        "selection": "last" if stage else "none",
        "seconds": 0.1,
        "fit_seconds": 10.0 * (1 + len(arm) % 3) if stage else 0.0,
        "gpu_seconds": 0.0,
        "peak_memory": 2**28,
        "provenance": store.put(kept | extra),
        "written": "2026-01-02T03:04:05+00:00",
    }
    record |= more
    record["evaluation"] = identity.address([record[name] for name in RECORD if name not in ("evaluation", "score", "metrics", "written")])
    record |= {"predictions": f"predictions/{record['evaluation']}.parquet", "sha256": "0" * 64}
    store.write_record(record, sums)
    if stage and store.fit(fit) is None:
        history = [
            {"epoch": float(epoch), "train/valence": 1 / epoch, "validation/valence": 1.2 / epoch, "weight/valence": 1.0}
            for epoch in (1, 2, 3)
        ]
        store.finish_fit(fit, {"fit": fit, "stage": stage, "trainer": {"epochs": 3}, "weighting": None, "seconds": 10.0})
        (store.fit_folder(fit) / "history.json").write_text(json.dumps(history))
    return str(record["evaluation"])


def full(output: Path) -> Store:
    """Everything that a site must show: methods and controls at several supports, an oracle, a partial, a stale, a submitted and a failed
    one, hostile names, a second protocol, a second version, a draw on the validation part, real data, a sweep.
    """
    store = Store(output / "store")
    for size in (1, 4, 16):
        setting = {"support": {"size": size, "selection": "uniform"}}
        for fold in (0, 1):
            for seed in (0, 1):
                enter(store, "method", skill=0.7 + size / 80, setting=setting, stage="train", fold=fold, seed=seed)
                enter(store, EVIL, skill=0.6 + size / 80, setting=setting, stage="<b>stage</b>", fold=fold, seed=seed)
            enter(store, "mean", skill=0.3 + size / 40, setting=setting, control=True, fold=fold)
            enter(store, "cheat", skill=0.95, setting=setting, stage="train", fold=fold, selection="test (oracle)")
        enter(store, "half", skill=0.5, setting=setting, stage="train", fold=0)
    setting = {"support": {"size": 4, "selection": "uniform"}}
    sent = {"submission": {"by": "another lab", "paper": "https://example.org/paper?a=1&b=2", "sha256": "1" * 64}}
    for fold in (0, 1):
        enter(store, "old", skill=0.6, setting=setting, stage="train", fold=fold, source="0" * 64)
        enter(store, "sent", skill=0.65, setting=setting, fold=fold, selection="submitted", provenance=sent)
        enter(store, LONG, skill=0.55, setting=setting, stage="train", fold=fold)
        for arm, skill in (("method", 0.7), ("mean", 0.3)):
            enter(store, arm, skill=skill, fold=fold, protocol="folds-3", control=arm == "mean")
            enter(store, arm, skill=skill, fold=fold, task_version=2, control=arm == "mean")
            enter(store, arm, skill=skill, fold=fold, task="real", synthetic=False, dataset=EVIL, data="e" * 20, control=arm == "mean")
    enter(store, "drawn", skill=0.9, stage="train", protocol=f"folds-2{ON_VALIDATION}")
    failure = {"arms": ["broken"], "task": "toy", "fold": 1, "seed": 0, "error": "loss is nan <script>alert(1)</script>", "written": "now"}
    store.fail("f" * 20, failure)
    store.fail("e" * 20, {"arms": ["lost"], "fold": 0, "seed": 0, "error": "no such task", "written": "now"})
    sweep(output, "toys", ["method", "mean"])
    return store


def sweep(output: Path, name: str, arms: Sequence[str]) -> None:
    """The folder of a sweep, as ``boards`` writes it."""
    folder = output / "sweeps" / name
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>\n<html><body><main>\n<h1>Toys</h1></main></body></html>\n")
    (folder / "table.csv").write_text("arm\n")
    pl.DataFrame({"arm": list(arms)}).write_parquet(folder / "table.parquet")
    told = {"key": "k", "files": ["index.html"], "title": f"{name} on toy", "task": "toy", "command": f"harness sweep {name}"}
    (folder / "kept.json").write_text(json.dumps(told))


def large(output: Path, n: int, *, clips: int = 4, seed: int = 0) -> Store:
    """A packed store of ``n`` records: arms × five sizes × five folds × ten seeds on four tasks; a provenance a fit of five sizes."""
    store = Store(output / "store")
    (store.root / "records").mkdir(parents=True)
    row, rng = np.arange(n), np.random.default_rng(seed)
    arm = row // 250
    size = 2 ** (row % 5)
    shared = {
        "n_samples": 600,
        "n_clips": clips,
        "n_subjects": clips,
        "seconds": 0.1,
        "fit_seconds": 9.0,
        "gpu_seconds": 0.0,
        "peak_memory": 2**28,
    }
    names = pl.DataFrame({"row": row}).select(evaluation=pl.format("{}", pl.col("row").cast(pl.String).str.zfill(20)))["evaluation"]
    settings = {int(s): identity.canonical({"support": {"size": int(s), "selection": "uniform"}}) for s in np.unique(size)}
    provenances = {}
    for one in np.unique(arm):
        kept = {
            "environment": {"commit": "0" * 40},
            "sources": {},
            "guard": {"parts": {}},
            "fits": [],
            "baseline": {"name": f"arm {one}"},
            "task": {"name": f"task {one % 4}"},
        }
        provenances[int(one)] = store.put(kept)
    records = pl.DataFrame(
        {
            "evaluation": names,
            "fit": names,
            "task": [f"task {a % 4}" for a in arm],
            "arm": [f"arm {a}" for a in arm],
            "baseline": [f"arm {a}" for a in arm],
            "control": arm % 8 == 0,
            "fold": row // 5 % 5,
            "seed": row // 25 % 10,
            "setting": [settings[int(s)] for s in size],
            "score": rng.uniform(0, 1, n),
            "metrics": '{"ccc":0.5}',
            "labels_used": clips * size,
            "provenance": [provenances[int(a)] for a in arm],
            **shared,
        }
    ).with_columns(
        task_version=pl.lit(1),
        baseline_version=pl.lit(1),
        synthetic=pl.lit(True),
        primary=pl.lit("ccc"),
        written=pl.lit("2026-01-02T03:04:05+00:00"),
        **{name: pl.lit(name) for name in ("protocol", "dataset", "data", "selection", "predictions", "sha256")},
    )
    records.select(pl.col(name).cast(dtype) for name, dtype in RECORD.items()).write_parquet(
        store.root / "records" / "000001-x.records.parquet"
    )
    one = (
        metrics.units(predictions(0.7, 0, subjects=clips, frames=10), targets=("valence", "arousal"))
        .filter(pl.col("clip").is_first_distinct())
        .head(clips)
    )
    units = names.to_frame().join(one, how="cross")
    units.write_parquet(store.root / "records" / "000001-x.units.parquet")
    return store
