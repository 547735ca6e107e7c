"""Plan a sweep, run what is missing, gather its table: what `harness sweep`, `run` and `status` do, for programs too."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness import plan as plans
from harness import snapshot
from harness.config import Config, compose, use
from harness.errors import RequestError
from harness.plan import Job, Plan, Sweep
from harness.store import Store

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A sweep with its data read, its plan made and its store at hand; nothing has run.

    Attributes:
        config: The config that the sweep's arms share (its ``cluster``, ``tracker`` and ``output_dir``).
        command: What a user types to make the same again.
    """

    sweep: Sweep
    plan: Plan
    store: Store
    config: Config
    output: Path
    command: str


def prepare(sweep: Sweep, *, command: str, extra: Sequence[Path] = (), say: Say = lambda _: None) -> Prepared:
    """Compose, read and decode the data, and plan.

    Raises:
        RequestError: Anything in the request that cannot be.
    """
    use(extra)
    shared = compose(_first_arm(sweep), extra)
    output = Path(shared["output_dir"]).expanduser().resolve()
    shared["tracker"]["group"] = sweep.name

    def snapshot_of(task: Config, config: Config) -> snapshot.Snapshot:
        with progress_bar("reading frames", say) as advance:
            return snapshot.take(task, output / "cache", lambda done, total: advance(done, total, ""))

    plan = plans.build(sweep, extra=extra, snapshot_of=snapshot_of)
    for job in plan.jobs.values():
        job.tracker["group"] = sweep.name
    return Prepared(sweep, plan, Store(output / "store"), shared, output, command)


def run(prepared: Prepared, *, say: Say = lambda _: None) -> bool:
    """Run what the store lacks.

    Returns:
        Whether every evaluation of the plan that can be made now has a record.
    """
    pending = prepared.plan.pending(prepared.store)
    if pending.is_empty():
        return True
    jobs = missing_jobs(prepared.plan, pending, prepared.store)
    from harness import scheduler

    fits = sum(bool(job.stages) and prepared.store.fit(job.name) is None for job in jobs.values())
    say(f"{fits} fits and {pending.height} evaluations to run, {prepared.plan.rows.height - pending.height} need nothing")
    chains = sum(bool(job.stages) for job in jobs.values())
    total = sum(len(evaluations) for job in jobs.values() for _, _, evaluations in job.entries)
    with progress_bar("evaluations", say) as advance:
        scheduler.run(
            jobs,
            prepared.store,
            prepared.config["cluster"],
            progress=lambda ended, done, now: advance(done, total, f"{ended} of {chains} fits{', ' if now else ''}{now}"),
            python_path=[folder for folder in sys.path if folder],
        )
    prepared.store.pack()
    return prepared.plan.pending(prepared.store).is_empty()


def missing_jobs(plan: Plan, pending: pl.DataFrame, store: Store) -> dict[str, Job]:
    """The jobs that make the pending evaluations, and the unfinished fits they rest on. Each job holds only what is missing."""
    import dataclasses

    wanted = set(pending["evaluation"])
    jobs: dict[str, Job] = {}
    for name, job in plan.jobs.items():
        entries = [
            (baseline, arm, kept)
            for baseline, arm, evaluations in job.entries
            if (kept := [(evaluation, setting) for evaluation, setting in evaluations if evaluation in wanted])
        ]
        if entries:
            jobs[name] = dataclasses.replace(job, entries=entries)
    for name in [spec.fit for job in list(jobs.values()) for spec in job.stages[:-1]]:
        if name not in jobs and store.fit(name) is None:
            jobs[name] = dataclasses.replace(plan.jobs[name], entries=[])
    return jobs


def records(prepared: Prepared) -> pl.DataFrame:
    """The records of the sweep's evaluations, with the arm they stand for here and their setting as columns."""
    mine = prepared.plan.rows.select("evaluation", "arm")
    found = prepared.store.records().drop("arm").join(mine, on="evaluation", how="inner", maintain_order="right")
    return plans.flatten(found)


def state(prepared: Prepared) -> pl.DataFrame:
    """The plan's rows with ``state`` (done, stale, running, pending, failed, impossible) and ``why``."""
    plan, store = prepared.plan, prepared.store
    known = store.records().select("evaluation", "provenance", "score")
    stale = stale_provenance(store, known["provenance"].unique())
    failures = pl.DataFrame(
        [(name, failure.get("error", "")) for name, failure in store.failures().items()],
        schema={"name": pl.String, "error": pl.String},
        orient="row",
    )
    running = [name for name in plan.jobs if store.running(name)]
    return (
        plan.rows.join(known, on="evaluation", how="left", maintain_order="left")
        .join(failures.rename({"name": "evaluation"}), on="evaluation", how="left", maintain_order="left")
        .join(failures.rename({"name": "fit", "error": "fit_error"}), on="fit", how="left", maintain_order="left")
        .with_columns(error=pl.coalesce("error", "fit_error"))
        .with_columns(
            state=pl.when(pl.col("why_not").is_not_null())
            .then(pl.lit("impossible"))
            .when(pl.col("provenance").is_in(stale))
            .then(pl.lit("stale"))
            .when(pl.col("provenance").is_not_null())
            .then(pl.lit("done"))
            .when(pl.col("fit").is_in(running))
            .then(pl.lit("running"))
            .when(pl.col("error").is_not_null())
            .then(pl.lit("failed"))
            .otherwise(pl.lit("pending"))
        )
        .with_columns(why=pl.coalesce("why_not", pl.when(pl.col("state") == "failed").then("error")).fill_null(""))
        .drop("why_not", "error", "fit_error", "provenance")
    )


def stale_provenance(store: Store, addresses: Iterable[str]) -> list[str]:
    """The provenances whose task or baseline file has changed since, while their versions have not."""
    from harness.provenance import sources

    now: dict[str, str | None] = {}
    stale = []
    for address in addresses:
        for target, digest in store.provenance(address).get("sources", {}).items():
            if target not in now:
                now[target] = sources(target).get(target)
            if now[target] not in (None, digest):
                stale.append(address)
                break
    return sorted(stale)


def estimate(prepared: Prepared) -> dict[str, Any]:
    """What running the rest would cost, from fits of the same stage that the store holds.

    Returns:
        ``fits``, ``evaluations`` still to do, and ``seconds`` of one worker (None where no such fit was ever timed).
    """
    pending = prepared.plan.pending(prepared.store)
    jobs = missing_jobs(prepared.plan, pending, prepared.store)
    timed: dict[str, list[float]] = {}
    for known in prepared.store.fits():
        timed.setdefault(known["stage"], []).append(known["seconds"])
    todo = [job.stages[-1] for job in jobs.values() if job.stages and prepared.store.fit(job.name) is None]
    seconds = [sorted(timed[spec.name])[len(timed[spec.name]) // 2] for spec in todo if spec.name in timed]
    whole = sum(seconds) if len(seconds) == len(todo) else None
    known_evaluations = prepared.store.records()["seconds"].median()
    if whole is not None and isinstance(known_evaluations, float):
        whole += known_evaluations * pending.height
    return {"fits": len(todo), "evaluations": pending.height, "seconds": whole}


def _first_arm(sweep: Sweep) -> list[str]:
    return [*sweep.overrides, *next(iter(sweep.arms.values()))]


@contextmanager
def progress_bar(what: str, say: Say) -> Iterator[Callable[[int, int, str], None]]:
    """A bar with an estimate on a terminal; elsewhere a plain line now and then."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            line = bar.add_task(what, total=None, note="")
            yield lambda done, total, note: bar.update(line, completed=done, total=total, note=note)
        return
    began, told = time.monotonic(), time.monotonic()

    def tell(done: int, total: int, note: str) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= 10 or (done == total and now - began > 1 and told < now - 1):
            told = now
            left = f", about {(now - began) / done * (total - done):.0f} s left" if 0 < done < total else ""
            say(f"{what}: {done} of {total}{f' ({note})' if note else ''}, {now - began:.0f} s{left}")

    yield tell


def interrupted(prepared: Prepared) -> RequestError:
    """What to say after Ctrl-C."""
    left = prepared.plan.pending(prepared.store).height
    return RequestError(f"stopped: {left} evaluations are left, all others are kept", remedy=f"go on with: {prepared.command}")
