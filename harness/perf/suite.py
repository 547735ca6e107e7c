"""Runs the benchmarks of a checkout with pytest-benchmark and keeps what they say, beside where and with what it was measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.perf import checkout, history, machine, turns
from harness.perf.comparing import chosen

KEPT = (
    "size",
    "processor_s",
    "processor_least_s",
    "queue_s",
    "peak_mib",
    "grown_mib",
    "ratios",
    "rates",
    "modules",
    "heavy_modules",
    "share_of_fit",
    "share_of_step",
    "over_bare",
    "seconds_over_bare",
    "steps",
    "megabytes",
    "gpu",
    "gpu_busy",
    "gpu_peak_mib",
)
"""Of what a benchmark notes; the rest is for whoever runs pytest."""


@dataclass(frozen=True)
class Measured:
    """A run of the suite.

    Attributes:
        kept: What is in the history now.
        names: Benchmarks of this run.
        failed: Those that broke, with pytest's line.
        notes: What is to be known.
    """

    kept: history.Kept
    names: list[str]
    failed: dict[str, str]
    notes: tuple[str, ...]


def run(
    repository: Path,
    only: Sequence[str],
    *,
    quick: bool,
    accuracy: Path | None,
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Measure, keep and tell.

    Args:
        repository: A checkout.
        only: Patterns of benchmarks.
        quick: Of modest size; kept where the full size is not measured yet.
        accuracy: A store's folder, whose scores are kept, too; None: ``outputs``, if all it holds was made at this revision.
        folder: Of the JSON files.
        say: Told what is done.

    Raises:
        RequestError: No such benchmark, or the suite cannot be run.
    """
    side = checkout.Side("new", checkout.resolve(repository, "HEAD"), checkout.is_dirty(repository), repository)
    names = chosen(turns.collect(side), only)
    say(f"{len(names)} benchmarks of {side.label}, {'modest' if quick else 'full'} size")
    before = machine.load()
    found, failed = _measure(side, names, "modest" if quick else "full")
    facts = machine.facts()
    scores, notes = _scores(repository, side, accuracy)
    kept = _history(side, repository, facts, [before, machine.load()], found, scores)
    path = history.write(folder, kept)
    notes += [f"load of the machine before and after: {before[:1]} and {machine.load()[:1]} on {facts['cores']} cores"]
    notes += [f"{turns.short(name)} failed: {reason}" for name, reason in failed.items()]
    say(f"kept in {path}")
    return Measured(kept, [name for name in names if name in found], failed, tuple(notes))


def compact(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is kept of pytest-benchmark's report: a name → a few numbers, rounded to what they are worth."""
    found = {}
    for entry in report["benchmarks"]:
        stats, extra = entry["stats"], entry["extra_info"]
        kept = {"median_s": stats["median"], "least_s": stats["min"], "iqr_s": stats["iqr"], "rounds": stats["rounds"]}
        kept |= {name: extra[name] for name in KEPT if extra.get(name) is not None}
        found[str(entry["fullname"])] = {name: _rounded(value) for name, value in kept.items()}
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return {name: _rounded(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def _measure(side: checkout.Side, names: Sequence[str], size: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="harness-perf-run-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", *names, "-q", "--tb=line", "-rfE", "-p", "no:cacheprovider", "--timeout=3600"]
        command += [
            "--benchmark-enable",
            "--benchmark-only",
            f"--benchmark-json={report}",
            f"--perf-size={size}",
            f"--perf-folder={folder}/made",
        ]
        environment = {name: value for name, value in turns.environment(side).items() if name not in turns.THREADS}
        done = subprocess.run(
            command, cwd=side.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if not report.exists():
            last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
            raise RequestError(f"pytest kept nothing: {last}", where=turns.TESTS, remedy="run pytest tests/perf --benchmark-enable")
        return compact(json.loads(report.read_text(encoding="utf-8"))), turns.reasons(done.stdout)


def _scores(repository: Path, side: checkout.Side, given: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    output = given or repository / "outputs"
    if not (output / "store").is_dir():
        if given is not None:
            raise RequestError(f"no store in {given}", where="--accuracy", remedy="run `make demo` first")
        return [], []
    from harness.perf.accuracy import of_store

    scores, commits = of_store(output)
    if commits == {side.commit}:
        return scores, [f"{len(scores)} scores of {output} are kept, too"]
    told = f"the scores in {output} were made at another revision"
    if given is not None:
        raise RequestError(told, where="--accuracy", remedy="run `make demo` at this one, into an empty folder")
    return [], [f"{told} and are not kept"]


def _history(
    side: checkout.Side,
    repository: Path,
    facts: dict[str, Any],
    load: Sequence[Sequence[float]],
    found: dict[str, dict[str, Any]],
    scores: list[dict[str, Any]],
) -> history.Kept:
    from harness import provenance

    committed = checkout.git(repository, "show", "--no-patch", "--format=%cI", side.commit).strip()
    software = provenance.software()
    versions = {"python": software["python"], **software["packages"]}
    return history.Kept(machine.fingerprint(facts), side.commit, side.dirty, committed, facts, versions, load, found, scores)
