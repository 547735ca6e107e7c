"""Plan a sweep, run what is missing, gather its table: what `harness sweep`, `run` and `status` do, for programs too."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness import failures as failed_ones
from harness import integrity, rounds, snapshot
from harness import output as outputs
from harness import plan as plans
from harness import tuning as tunings
from harness.config import Config, compose, use
from harness.errors import RequestError
from harness.output import Output
from harness.plan import Job, Plan, Sweep
from harness.store import LOOSE, Store

Say = Callable[[str], None]
GATHER_EVERY = 5.0
"""Seconds between two looks at how many loose files there are."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A sweep with its data read, its plan made and its store at hand; nothing has run.

    Attributes:
        config: The config that the sweep's arms share (its ``cluster``, ``tracker`` and ``output_dir``).
        command: What a user types to make the same again.
        extra: The user's config folders.
    """

    sweep: Sweep
    plan: Plan
    store: Store
    config: Config
    output: Output
    command: str
    extra: tuple[Path, ...] = ()


def prepare(sweep: Sweep, *, command: str, extra: Sequence[Path] = (), say: Say = lambda _: None) -> Prepared:
    """Compose, read and decode the data, and plan.

    Raises:
        RequestError: Anything in the request that cannot be.
    """
    use(extra)
    shared = compose(_first_arm(sweep), extra)
    output = outputs.opened(shared["output_dir"])
    shared["tracker"]["group"] = sweep.name
    store = output.store
    return Prepared(sweep, _plan(sweep, store, extra, say), store, shared, output, command, tuple(extra))


def planned_again(prepared: Prepared) -> Prepared:
    """The same with the plan as the store is now: draws that have been scored since are chosen among."""
    return dataclasses.replace(prepared, plan=_plan(prepared.sweep, prepared.store, prepared.extra, lambda _: None))


def _plan(sweep: Sweep, store: Store, extra: Sequence[Path], say: Say) -> Plan:
    def snapshot_of(task: Config, config: Config) -> snapshot.Snapshot:
        with progress_bar("reading frames", say) as advance:
            return snapshot.take(task, store.output / "cache", lambda done, total: advance(done, total, ""))

    plan = plans.build(sweep, extra=extra, snapshot_of=snapshot_of, store=store)
    for job in plan.jobs.values():
        job.tracker["group"] = sweep.name
    return plan


def run(prepared: Prepared, *, stop: bool = False, say: Say = lambda _: None) -> Prepared:
    """Run what the store lacks: where arms are tuned, first their draws, round after round, and then what is made of the best.

    Args:
        prepared: The sweep.
        stop: At the first failure.
        say: Told what begins.

    Returns:
        The sweep as it is planned at the end; :func:`complete` says whether all of it was made.

    Raises:
        FitError: It was stopped by a failure.
    """
    store = prepared.store
    integrity.check(store)
    aside = integrity.set_aside(store)
    pending = prepared.plan.pending(store)
    if pending.is_empty() and not prepared.plan.jobs.keys() & {*store.lost_fits()}:
        return prepared
    prepared.output.check(write=True)
    from harness import scheduler

    jobs = prepared.plan.jobs.values()
    with ExitStack() as stack:
        path = [folder for folder in sys.path if folder]
        where = stack.enter_context(scheduler.started(prepared.config["cluster"], jobs=jobs, python_path=path, store=store))

        def carry_out(rows: pl.DataFrame, what: str) -> None:
            jobs = missing_jobs(prepared.plan, rows, store)
            fits = sum(bool(job.stages) and store.fit(job.name) is None for job in jobs.values())
            say(f"{what}{fits} fits and {rows.height} evaluations to run, {prepared.plan.rows.height - rows.height} need nothing now")
            chains = sum(bool(job.stages) for job in jobs.values())
            total = sum(len(evaluations) for job in jobs.values() for _, _, evaluations in job.entries)
            with progress_bar("evaluations", say) as advance, _gathering(store):
                scheduler.run(
                    jobs,
                    store,
                    where,
                    among=prepared.plan.jobs.values(),
                    stop=stop,
                    progress=lambda ended, done, now: advance(done, total, f"{ended} of {chains} fits{', ' if now else ''}{now}"),
                )
            store.pack()
            for path in sorted(integrity.set_aside(store).items() - aside.items()):  # by a worker, which nobody hears
                say(f"{path[0].with_suffix('')} was not what was written; it is set aside as {path[0].name}")

        tried = pending.clear()  # what failed in this run is not tried again in it
        while (pending["phase"] == "tuning").any():
            now = pending.filter((pl.col("phase") != "refit").fill_null(True))
            carry_out(now, "tuning: ")
            tried = pl.concat([tried, now])
            prepared = planned_again(prepared)
            pending = prepared.plan.pending(store).join(tried, on="evaluation", how="anti", maintain_order="left")
        if not pending.is_empty() or prepared.plan.jobs.keys() & {*store.lost_fits()}:
            carry_out(pending, "refitting: " if (pending["phase"] == "refit").any() else "")
    return prepared


@contextmanager
def _gathering(store: Store) -> Iterator[None]:
    """While the block lasts, loose files of the store are packed as soon as they are many, however long it lasts."""
    over = threading.Event()

    def gather() -> None:
        while not over.wait(GATHER_EVERY):
            try:
                store.pack(above=LOOSE)
            except (OSError, RequestError) as error:  # nothing is lost by it, and the end of the sweep tries again
                logger.warning("files of the store are left as they are: %s", error)

    thread = threading.Thread(target=gather, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def complete(prepared: Prepared) -> bool:
    """Whether every evaluation of the plan that can be made has a record. Draws may fail; an arm of which all do is not complete."""
    wanted = prepared.plan.rows.filter((pl.col("phase") != "tuning").fill_null(True))
    held = wanted["stand"].is_in(["waiting", "failed"]).any()
    missing = prepared.plan.missing(prepared.store)
    return not held and missing.join(wanted, on="evaluation", how="semi").is_empty()


def missing_jobs(plan: Plan, pending: pl.DataFrame, store: Store) -> dict[str, Job]:
    """The jobs that make the pending evaluations, and the unfinished fits they rest on. Each job holds only what is missing."""
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
    for name in plan.jobs.keys() & {*store.lost_fits()} - jobs.keys():
        jobs[name] = dataclasses.replace(plan.jobs[name], entries=[])
    for name in [spec.fit for job in list(jobs.values()) for spec in job.stages[:-1]]:
        if name not in jobs and store.fit(name) is None:
            jobs[name] = dataclasses.replace(plan.jobs[name], entries=[])
    return jobs


def records(prepared: Prepared) -> pl.DataFrame:
    """The records of the sweep's evaluations of the test part, with the arm they stand for here and their setting as columns.

    Where the hyper-parameters of an arm were selected, ``selection`` says so.
    """
    mine = prepared.plan.rows.filter((pl.col("phase") != "tuning").fill_null(True)).select("evaluation", "arm", "draw")
    found = prepared.store.records().drop("arm").join(mine, on="evaluation", how="inner", maintain_order="right")
    draws = prepared.sweep.tune.draws if prepared.sweep.tune else 0
    told = {rule: tunings.selected(rule, draws) for rule in found["selection"].unique()}
    tuned = pl.when(pl.col("draw").is_not_null()).then(pl.col("selection").replace(told)).otherwise("selection")
    return plans.flatten(found.with_columns(selection=tuned).drop("draw"))


def tuning(prepared: Prepared) -> pl.DataFrame:
    """What was tried, one row a fit that is tuned, by arm, fold and axes in the order of the draws.

    Returns:
        ``arm``, ``task``, ``protocol``, ``fold``, what else varies by its key, ``draw``, every value drawn by its key (null where an
        arm has no such key), ``score`` on the validation part, ``state`` (waiting, pending, running, done, stopped, failed), ``why`` it
        is left out, ``epochs`` that all its stages may have and ``epochs_spent``, ``seconds`` of all (null where one is not there),
        ``chosen``, ``fit`` (of its last stage; null of a draw that is not asked yet).
    """
    store, tries = prepared.store, prepared.plan.tries
    known = {fit: store.fit(fit) or {} for fit in {fit for fits in tries["fits"] for fit in fits}}
    seconds: dict[str, float | None] = {fit: one.get("seconds") for fit, one in known.items()}
    spent_epochs = epochs_spent(prepared)
    rows = []
    for row in tries.iter_rows(named=True):
        spent = [seconds[fit] for fit in row["fits"]]
        open_ = row["score"] is None and row["left_out"] is None
        states = {
            "waiting": not row["fits"],
            "done": row["score"] is not None,
            "stopped": row["stopped"] is not None,
            "failed": row["left_out"] is not None,
            "running": open_ and any(map(store.running, row["fits"])),
            "pending": True,
        }
        rows.append(
            {name: row[name] for name in ("arm", "task", "protocol", "fold")}
            | {f"axis {key}": value for key, value in json.loads(row["axes"]).items()}
            | {"draw": row["draw"]}
            | {f"value {key}": value for key, value in json.loads(row["values"] or "{}").items()}
            | {"score": row["score"], "state": next(state for state, holds in states.items() if holds), "why": row["left_out"]}
            | {"epochs": sum(row["epochs"]), "epochs_spent": sum(spent_epochs[fit] for fit in row["fits"])}
            | {"seconds": sum(filter(None, spent)) if spent and None not in spent else None, "chosen": row["chosen"]}
            | {"fit": row["fits"][-1] if row["fits"] else None}
        )
    fixed = {name: rounds.TRIES[name] for name in ("arm", "task", "protocol", "fold", "draw", "score", "chosen")}
    types = fixed | {"state": pl.String, "why": pl.String, "seconds": pl.Float64, "fit": pl.String}
    types |= {"epochs": pl.Int64, "epochs_spent": pl.Int64}
    axes, values = (
        [name for name in dict.fromkeys(key for row in rows for key in row) if name.startswith(kind)] for kind in ("axis ", "value ")
    )
    costs = ["epochs", "epochs_spent", "seconds"]
    order = ["arm", "task", "protocol", "fold", *axes, "draw", *values, "score", "state", "why", *costs, "chosen", "fit"]
    columns = [_column(name, [row.get(name) for row in rows], types.get(name)) for name in order]
    return pl.DataFrame(columns)


def _column(name: str, values: list[Any], dtype: Any) -> pl.Series:
    """A column by its key; where values of several kinds stand in it, all as text."""
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if dtype is None and not numbers and len(set(map(type, known))) > 1:
        values = [None if value is None else str(value) for value in values]
    return pl.Series(name.removeprefix("axis ").removeprefix("value "), values, dtype=dtype, strict=False)


def epochs_spent(prepared: Prepared) -> dict[str, int]:
    """Fit of a draw → the epochs it took: all of a finished one, of one that was stopped those before, of any other none yet."""
    tries = prepared.plan.tries
    spent = {}
    for row in tries.iter_rows(named=True):
        for fit, epochs in zip(row["fits"], row["epochs"], strict=False):
            if fit not in spent:
                finished = prepared.store.fit(fit)
                spent[fit] = int(finished.get("epochs", epochs)) if finished is not None else 0
        if row["stopped"] is not None:
            spent[row["fits"][-1]] = row["stopped"]
    return spent


def budget(prepared: Prepared) -> pl.DataFrame:
    """What every tuned arm may spend: ``arm``, ``draws``, ``tuning_fits`` and their ``tuning_epochs`` in all, ``refits``.

    A stage that several draws share (nothing of it is drawn) counts once. ``epochs_spent`` are those of the tuning fits so far.
    """
    tries = prepared.plan.tries
    asked = tries.select("arm", "fits", "epochs").filter(pl.col("fits").list.len() > 0)
    by_fit = asked.explode("fits", "epochs").unique(["arm", "fits"], maintain_order=True)
    spent = pl.DataFrame(list(epochs_spent(prepared).items()), {"fits": pl.String, "epochs_spent": pl.Int64}, orient="row")
    costs = by_fit.join(spent, on="fits", how="left", maintain_order="left").group_by("arm").agg(pl.col("epochs", "epochs_spent").sum())
    to_come = (pl.col("fits").list.len() == 0).fill_null(True)
    refits = prepared.plan.rows.filter(phase="refit").group_by("arm").agg(refits=pl.struct("fold", "seed", "task").n_unique())
    return (
        tries.group_by("arm", maintain_order=True)
        .agg(
            draws=pl.col("draw").n_unique(),
            tuning_fits=pl.col("fits").list.last().filter(~to_come).n_unique() + to_come.sum(),
            epochs_to_come=pl.col("epochs").filter(to_come).list.sum().sum(),
        )
        .join(costs, on="arm", maintain_order="left")
        .join(refits, on="arm", how="left", maintain_order="left")
        .with_columns(tuning_epochs=pl.col("epochs") + pl.col("epochs_to_come"))
        .select("arm", "draws", "tuning_fits", "tuning_epochs", "epochs_spent", "refits")
    )


def state(prepared: Prepared) -> pl.DataFrame:
    """The plan's rows with ``state`` (done, stale, running, pending, waiting, stopped, failed, impossible) and ``why``."""
    plan, store = prepared.plan, prepared.store
    known = store.records().select("evaluation", "provenance", "score")
    stale = stale_provenance(store, known["provenance"].unique())
    failures = pl.DataFrame(
        [(name, failed_ones.described(failure)) for name, failure in store.failures().items()],
        schema={"name": pl.String, "error": pl.String},
        orient="row",
    )
    running = [name for name in plan.jobs if store.running(name)]
    stopped = plan.tries.filter(pl.col("stopped").is_not_null()).select(pl.col("fits").list.last().alias("fit"), "left_out").unique("fit")
    return (
        plan.rows.join(known, on="evaluation", how="left", maintain_order="left")
        .join(failures.rename({"name": "evaluation"}), on="evaluation", how="left", maintain_order="left")
        .join(failures.rename({"name": "fit", "error": "fit_error"}), on="fit", how="left", maintain_order="left")
        .with_columns(error=pl.coalesce("error", "fit_error"))
        .join(stopped, on="fit", how="left", maintain_order="left")
        .with_columns(
            state=pl.when(pl.col("stand").is_not_null())
            .then("stand")
            .when(pl.col("provenance").is_in(stale))
            .then(pl.lit("stale"))
            .when(pl.col("provenance").is_not_null())
            .then(pl.lit("done"))
            .when(pl.col("left_out").is_not_null())
            .then(pl.lit("stopped"))
            .when(pl.col("fit").is_in(running))
            .then(pl.lit("running"))
            .when(pl.col("error").is_not_null())
            .then(pl.lit("failed"))
            .otherwise(pl.lit("pending"))
        )
        .with_columns(
            why=pl.coalesce(
                "why_not",
                pl.when(pl.col("state") == "failed").then("error"),
                pl.when(pl.col("state") == "stopped").then("left_out"),
            ).fill_null("")
        )
        .drop("why_not", "stand", "error", "fit_error", "provenance", "left_out")
    )


def summary(state: pl.DataFrame, fits: pl.Expr) -> pl.DataFrame:
    """The rows of :func:`state` counted, by arm and, where any is tuned, phase.

    Draws that failed stand together, with the first reason, and so do those that were stopped.
    """
    phases = ["phase"] if state["phase"].is_not_null().any() else []
    drawn = (pl.col("phase") == "tuning").fill_null(False) & pl.col("state").is_in(["failed", "stopped"])
    first = pl.when(drawn).then(pl.col("why").first().over("arm", "phase", "state")).otherwise("why")
    counted = state.with_columns(why=first, phase=pl.col("phase").fill_null("")).group_by(
        "arm", "phase", "state", "why", maintain_order=True
    )
    return counted.agg(evaluations=pl.len(), fits=fits).select("arm", *phases, "state", "evaluations", "fits", "why")


def forget_failures(prepared: Prepared) -> int:
    """Every fit and evaluation of a sweep that has failed is tried again by its next run; how many there were."""
    plan, store = prepared.plan, prepared.store
    mine = {*plan.rows["evaluation"], *plan.rows["fit"], *(spec.fit for job in plan.jobs.values() for spec in job.stages)}
    names = [name for name in store.failures() if name in mine]
    for name in names:
        store.forget_failure(name)
    return len(names)


def failed(state: pl.DataFrame) -> pl.DataFrame:
    """The rows of :func:`state` that failed, but for single draws: these are left out of the choice, and no failure of the sweep."""
    return state.filter(pl.col("state") == "failed", (pl.col("phase") != "tuning").fill_null(True))


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
        ``fits``, ``evaluations`` still to do, and ``seconds`` of one worker (None where no such fit was ever timed). Refits whose draw
        is not known yet are counted by the stages of their draws.
    """
    pending = prepared.plan.pending(prepared.store)
    jobs = missing_jobs(prepared.plan, pending, prepared.store)
    timed: dict[str, list[float]] = {}
    for known in prepared.store.fits():
        timed.setdefault(known["stage"], []).append(known["seconds"])
    todo = [job.stages[-1].name for job in jobs.values() if job.stages and prepared.store.fit(job.name) is None]
    waiting = prepared.plan.rows.filter(stand="waiting")
    asked = prepared.plan.tries.filter(pl.col("fits").list.len() > 0).unique("arm", keep="first", maintain_order=True)
    drawn = dict(asked.select("arm", pl.col("fits").list.last()).iter_rows())
    for (arm,) in waiting.select("arm", "fold", "seed", "task", "phase", "draw").unique(maintain_order=True).select("arm").iter_rows():
        todo += [spec.name for spec in prepared.plan.jobs[drawn[arm]].stages]
    left = pending.height + waiting.height
    seconds = [sorted(timed[name])[len(timed[name]) // 2] for name in todo if name in timed]
    whole = sum(seconds) if len(seconds) == len(todo) else None
    known_evaluations = prepared.store.records()["seconds"].median()
    if whole is not None and isinstance(known_evaluations, float):
        whole += known_evaluations * left
    return {"fits": len(todo), "evaluations": left, "seconds": whole}


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
    prepared = planned_again(prepared) if prepared.sweep.tune else prepared
    left = prepared.plan.pending(prepared.store).height + prepared.plan.rows.filter(stand="waiting").height
    return RequestError(f"stopped: {left} evaluations are left, all others are kept", remedy=f"go on with: {prepared.command}")
