"""How time and memory grow: each thing at one, three and ten times a size, in a process of its own.

    python tests/soak/growth.py                   # all of them, some minutes
    python tests/soak/growth.py planning          # one of them
    python tests/soak/growth.py planning 30000    # at one size, in this process

Processor seconds (of all threads, so that what else the machine does counts little), the same per item, and how far the peak of memory
rises above what the process held before. Linear or better is what is wanted: the time per item does not rise. Nothing is asserted.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness import boards, identity, metrics, plan, snapshot, splits, statistics, sweep
from harness.store import RECORD, Store
from tests import stores

PLUGIN = Path(__file__).resolve().parent.parent / "plugin"
BASE = ["task=toy", "tracker=none", "trainer.epochs=1"]
Work = Callable[[], object]


def samples(n: int, folder: Path) -> Work:
    """A split of n samples in clips of 50 is shown not to leak, and addressed."""
    row = np.arange(n)
    frame = pl.DataFrame({"sample": row.astype(str), "clip": (row // 50).astype(str), "subject": (row // 200).astype(str)})
    frame = frame.with_columns(valence=pl.Series(np.random.default_rng(0).normal(size=n)))
    digests = np.array([f"{i:040x}" for i in row])

    def work() -> None:
        split = splits.by_group(frame, folds=5, group="subject", seed=0, validation=0.2)[0]
        splits.guard(frame, digests, split, group="subject")
        identity.address_of_frame(frame)

    return work


def clips(n: int, folder: Path) -> Work:
    """Predictions of n clips of 50 frames, four clips a subject, are scored, with intervals from 1,000 draws."""
    rng, row = np.random.default_rng(0), np.arange(50 * n)
    names = ("valence", "arousal", "valence_pred", "arousal_pred")
    one = {"evaluation": ["e"] * (50 * n), "fold": 0, "subject": row // 200, "clip": row // 50}
    frame = pl.DataFrame({**one, **{name: rng.normal(size=50 * n) for name in names}})

    def work() -> None:
        sums = metrics.units(frame, targets=("valence", "arousal"), by=("evaluation", "fold", "subject", "clip"))
        metrics.metrics(sums)
        statistics.Panel(sums, draws=1000).intervals(["e"], ["ccc_valence", "rmse_arousal"])

    return work


def support(n: int, folder: Path) -> Work:
    """Clips of 300 frames are labelled from n of them each by every control that interpolates, scored and written."""
    from harness import evaluation

    arms = {name: [f"baseline={name}"] for name in ("interpolation", "last_label", "mean_label")}
    data = ["task.dataset.synth.frames=300", "task.dataset.synth.clips=1", f"evaluate.support.size={n}"]
    made = _plan(plan.Sweep("s", "", arms, {"fold": [0]}, [*BASE, *data]), folder)
    store = Store(folder / "store")
    (job,) = made.jobs.values()
    evaluation.lay_out(job.task, job.snapshot, job.fold)
    return lambda: evaluation.run(job, store)


def finished(n: int, folder: Path) -> Work:
    """A sweep of n evaluations, fifty a fit, all of which are done, is planned and asked for its state and its records."""
    prepared = _finished(n, folder)

    def work() -> None:
        again = sweep.planned_again(prepared)
        assert again.plan.pending(again.store).is_empty()
        assert set(sweep.state(again)["state"]) == {"done"}
        sweep.records(again)

    return work


def table(n: int, folder: Path) -> Work:
    """The table of such a sweep, the first time: every row with intervals and tests from 2,000 draws of all its evaluations."""
    prepared = _finished(n, folder)
    return lambda: boards.gather(prepared)


def planning(n: int, folder: Path) -> Work:
    """The plan alone of n evaluations, fifty a fit."""
    chosen = _sweep(n)
    _plan(chosen, folder)  # writes the data, imports what is needed
    return lambda: _plan(chosen, folder)


def records(n: int, folder: Path) -> Work:
    """The leaderboards of four tasks from n records."""
    store = stores.large(folder, n)
    return lambda: [boards.of_task(store, f"task {number}") for number in range(4)]


def packing(n: int, folder: Path) -> Work:
    """n records, loose, are packed."""
    store, sums = Store(folder / "store"), metrics.units(stores.predictions(0.7, 0), targets=("valence", "arousal"))
    for number in range(n):
        store.write_record({**dict.fromkeys(RECORD), "evaluation": identity.address(number)}, sums)
    return store.pack


KINDS: dict[str, tuple[Callable[[int, Path], Work], tuple[int, int, int]]] = {
    "samples": (samples, (100_000, 300_000, 1_000_000)),
    "clips": (clips, (600, 1_800, 6_000)),
    "support": (support, (10, 30, 100)),
    "planning": (planning, (10_000, 30_000, 100_000)),
    "finished": (finished, (10_000, 30_000, 100_000)),
    "table": (table, (1_000, 3_000, 10_000)),
    "records": (records, (1_000, 3_000, 10_000)),
    "packing": (packing, (1_000, 3_000, 10_000)),
}


def _sweep(n: int) -> plan.Sweep:
    axes: dict[str, list[Any]] = {
        "fold": [0, 1],
        "seed": list(range(10)),
        "baseline.stages.brightness.width": list(range(1, n // 1_000 + 1)),
        "evaluate.support.size": [1, 2],
        "evaluate.support.selection": ["random"],
        "evaluate.support.draw": list(range(25)),
    }
    return plan.Sweep("s", "", {"toy": ["baseline=toy"]}, axes, BASE)


def _plan(chosen: plan.Sweep, folder: Path) -> plan.Plan:
    return plan.build(chosen, extra=[PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, folder / "cache"))


def _finished(n: int, folder: Path) -> sweep.Prepared:
    """A sweep whose every evaluation has a record with the same sums."""
    chosen = _sweep(n)
    chosen.overrides.append(f"output_dir={folder}")
    prepared = sweep.prepare(chosen, command="harness sweep s", extra=[PLUGIN / "configs"])
    sums = metrics.units(stores.predictions(0.7, 0), targets=("valence", "arousal"))
    values = metrics.metrics(sums)
    rows = prepared.plan.rows
    info = next(iter(prepared.plan.tasks.values())).info
    facts = {
        "task": info.name,
        "task_version": info.version,
        "protocol": info.protocol,
        "dataset": info.dataset,
        "data": next(iter(prepared.plan.snapshots.values())).fingerprint,
        "synthetic": True,
        "primary": info.primary,
        "baseline_version": 1,
        "control": False,
        "score": values[info.primary],
        "metrics": identity.canonical({name: value for name, value in values.items() if np.isfinite(value)}),
        "labels_used": 6,
        "n_samples": 240,
        "n_clips": 12,
        "n_subjects": 6,
        "selection": "last",
        "seconds": 0.01,
        "fit_seconds": 0.3,
        "provenance": prepared.store.put({"sources": {}, "environment": {}}),
        "written": "2026-01-02T03:04:05+00:00",
    }
    own = ("evaluation", "fit", "arm", "baseline", "fold", "seed", "setting")
    known = rows.select(pl.col(name) if name in own else pl.lit(facts.get(name), dtype).alias(name) for name, dtype in RECORD.items())
    (prepared.store.root / "records").mkdir(parents=True, exist_ok=True)
    known.write_parquet(prepared.store.root / "records" / "000001-all.records.parquet")
    rows.select("evaluation").join(sums, how="cross").write_parquet(prepared.store.root / "records" / "000001-all.units.parquet")
    return prepared


def measure(kind: str, n: int) -> dict[str, float]:
    """Processor seconds and MiB of one thing at one size, in this process."""
    sys.path.insert(0, str(PLUGIN))
    from harness.cluster import tell_environment

    tell_environment(0)
    with tempfile.TemporaryDirectory() as folder:
        work = KINDS[kind][0](n, Path(folder))
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        held, began = _peak(), time.process_time()
        work()
        return {"seconds": time.process_time() - began, "mib": (_peak() - held) / 1024}


def _peak() -> int:
    """KiB."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """One thing in this process, or all in others."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
        return
    print(f"{'what':12}{'n':>10}{'seconds':>10}{'µs each':>10}{'MiB more':>10}")
    for kind in sys.argv[1:] or KINDS:
        for n in KINDS[kind][1]:
            done = subprocess.run([sys.executable, __file__, kind, str(n)], capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{kind:12}{n:>10,}{found['seconds']:>10.2f}{found['seconds'] / n * 1e6:>10.1f}{found['mib']:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
