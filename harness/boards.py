"""Records → ranked tables of a sweep or a task, kept so that a finished sweep is shown again at once."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness import identity, leaderboard, plan, reported, standing, sweep, tracking, tuning
from harness.config import instantiate
from harness.metrics import higher_is_better
from harness.publish.report import Board, Extra, Study
from harness.sealed import seal, sha256_of, unseal
from harness.store import Store, write_atomically
from harness.sweep import Prepared
from harness.task import TaskInfo

PARTS = "the score in parts"
"""The table of what stands beside the score; its columns are metrics (``harness.metrics``)."""

CHOSEN = "what was chosen"
"""The table of the draws that were fitted again, one row an arm, fold and value of what else varies."""

TRIED = "tried.csv"
"""The file with every draw."""

ELSEWHERE = "reported elsewhere"
"""The table of what papers say."""

REPLICATES = ("fold", "seed", "support.draw")


@dataclass(frozen=True)
class Gathered:
    """A table, what its report adds, and the files where both lie."""

    board: Board
    extra: Extra
    written: tuple[Path, ...]


def gather(prepared: Prepared) -> list[Gathered]:
    """The tables of a sweep, one a task, protocol and dataset; computed anew only when a record has changed."""
    found, made = sweep.records(prepared), prepared.plan
    pending = pl.concat([made.pending(prepared.store), made.rows.filter(stand="waiting")])
    out, pages = [], prepared.output.look(f"sweeps/{prepared.sweep.name}")
    for part in found.partition_by(leaderboard.SAME, maintain_order=True):
        task = next(task for task in made.tasks.values() if task.info.name == part["task"][0] and task.info.protocol == part["protocol"][0])
        shown = set(part["arm"])
        baselines = {arm: config for job in made.jobs.values() for config, arm, _ in job.entries if arm in shown}
        gaps = pending.filter(pl.col("task") == task.info.name, (pl.col("phase") != "tuning").fill_null(True))
        tries = made.tries.filter(task=task.info.name, protocol=task.info.protocol)
        notes = (
            *protocol(part, task.info.note),
            *_reconstructions(baselines),
            *_tuned(prepared, tries, task.info),
            *(f"{arm}: {n} evaluations are missing." for arm, n in gaps.group_by("arm", maintain_order=True).len().iter_rows()),
        )
        title = f"{prepared.sweep.name} on {task.info.name}"
        environment = prepared.store.provenance(part["provenance"][0]).get("environment", {})
        facts = {
            "question": prepared.sweep.question,
            "command": prepared.command,
            "synthetic": part["synthetic"][0],
            "provenance": {
                "data": part["data"][0],
                "licence": task.info.licence,
                "citation": task.info.citation,
                **{name: value for name, value in environment.items() if name != "packages"},
                **environment.get("packages", {}),
            },
        }
        folder = pages / (task.info.name if len(found.unique(leaderboard.SAME)) > 1 else "")
        out.append(_gathered(part, prepared, title, task.info, notes, facts, folder, tries))
    return out


def _tuned(prepared: Prepared, tries: pl.DataFrame, info: TaskInfo) -> list[str]:
    """What is said of a sweep that is tuned: how, at what budget, and what was left out of the choice."""
    tune = prepared.sweep.tune
    if tune is None or tries.is_empty():
        return []
    keys = [
        *(key for key, value in tune.space.items() if isinstance(value, Mapping)),
        *(["what an arm has of its own"] if tune.arms else []),
    ]
    drawn, what = "draws" if tune.search else "random draws", " and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]]))
    told = [
        f"Tuned: {tune.draws} {drawn} of {what} for every arm that trains, "
        f"on every fold and for every value of what else varies, fitted once each with seed {tune.seed}; the draw with the best "
        f"{info.primary} on the validation part is fitted anew with every seed and scored on the test part.",
        *_means(tune, tries),
        budgets(sweep.budget(prepared)),
    ]
    took = dict(sweep.budget(prepared).select("arm", "epochs_spent").iter_rows())
    for arm, n, of in tries.group_by("arm", maintain_order=True).agg(pl.col("stopped").count(), pl.len().alias("of")).iter_rows():
        told += [f"{arm}: {n} of {of} draws were stopped early; those that did not fail took {took[arm]} epochs."] if n else []
    failed = pl.col("left_out").filter(pl.col("stopped").is_null())
    for arm, n, of, why in (
        tries.group_by("arm", maintain_order=True)
        .agg(failed.count(), pl.len().alias("of"), failed.drop_nulls().first().alias("why"))
        .iter_rows()
    ):
        told += [f"{arm}: {n} of {of} draws are left out of the choice; the first: {why.rstrip('.')}."] if n else []
    return told


def _means(tune: tuning.Tune, tries: pl.DataFrame) -> list[str]:
    """What is said of a search and of early stopping."""
    told = []
    if tune.search:
        first, then = tune.search.startup, tune.search.at_once
        told.append(f"The first {first} draws are random and the same for all arms; Optuna's TPE asked for the others, {then} at once.")
    if tune.stop:
        fits = tries.filter(pl.col("fits").list.len() > 0)
        epochs = fits["epochs"].list.last().unique(maintain_order=True)
        rungs = [", ".join(map(str, tune.stop.rungs(each))) or "none" for each in epochs]
        told.append(
            f"Draws were stopped early by asynchronous successive halving (ASHA): of those of an arm and fold that come to epoch "
            f"{' or '.join(dict.fromkeys(rungs))}, about one in {tune.stop.factor} goes on. Which are stopped depends on which come first."
        )
    return told


def budgets(spent: pl.DataFrame) -> str:
    """One line on what ``sweep.budget`` gave: whether every arm may spend the same."""
    epochs = spent.group_by("tuning_epochs", maintain_order=True).agg("arm")
    if epochs.height == 1:
        return f"Budgets are equal: {epochs['tuning_epochs'][0]} epochs of tuning for every arm that trains."
    each = "; ".join(f"{n} for {', '.join(arms)}" for n, arms in epochs.iter_rows())
    return f"Budgets are equal in draws and differ in epochs of tuning: {each}."


def _chosen(tried: pl.DataFrame, tries: pl.DataFrame) -> pl.DataFrame:
    """A row for every choice: the draw, its values, its score on the validation part, those of the others, and what all cost."""
    by = ["arm", "fold", "axes"]
    of_all = (
        tries.with_columns(seconds=tried["seconds"])
        .group_by(by, maintain_order=True)
        .agg(
            pl.col("draw", "values", "score").filter("chosen").first(),
            median=pl.col("score").median(),
            worst=pl.col("score").min(),
            best=pl.col("score").max(),
            left_out=pl.col("left_out").count(),
            epochs=pl.col("epochs").list.sum().sum(),
            seconds=pl.col("seconds").sum(),
        )
    )
    chosen, best = pl.col("score"), pl.col("best")
    worst = pl.when((chosen < best).fill_null(False)).then("best").otherwise("worst")  # where a low score is good, the highest is the worst
    values = pl.Series("values", [None if text is None else _short_values(json.loads(text)) for text in of_all["values"]], dtype=pl.String)
    return of_all.with_columns(values, worst=worst).select(
        "arm", "fold", "draw", "values", pl.col("score").alias("validation"), "median", "worst", "left_out", "epochs", "seconds"
    )


def _short_values(values: Mapping[str, Any]) -> str:
    """``lr 0.00312, temperature 2.1``; keys by their last part where that says which."""
    last = [key.rpartition(".")[2] for key in values]
    names = [short if last.count(short) == 1 else key for key, short in zip(values, last, strict=True)]
    texts = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values.values()]
    return ", ".join(f"{name} {text}" for name, text in zip(names, texts, strict=True))


def tested(records: pl.DataFrame) -> pl.DataFrame:
    """The records without those of the validation part, which draws are chosen by."""
    return records.filter(~pl.col("protocol").fill_null("").str.ends_with(tuning.ON_VALIDATION))


def _reconstructions(baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is said of methods that are rebuilt from their papers, once for all arms of which it is true."""
    arms: dict[str, list[str]] = {}
    for arm, config in baselines.items():
        if config.get("reconstruction"):
            arms.setdefault(str(config["reconstruction"]).rstrip("."), []).append(arm)
    return [f"{', '.join(named)}: {text}." for text, named in arms.items()]


def reconstructions_of(records: pl.DataFrame, store: Store) -> list[str]:
    """The same of the arms of some records, from their provenance."""
    known = records.sort("arm", "evaluation").unique("arm", keep="first", maintain_order=True).select("arm", "provenance")
    return _reconstructions({arm: store.provenance(address).get("baseline", {}) for arm, address in known.iter_rows() if address})


def of_task(store: Store, name: str) -> list[Board]:
    """The tables of a task over everything in a store, one a protocol, version and dataset."""
    found = plan.flatten(tested(store.records().filter(task=name)))
    boards = []
    for part in found.partition_by(leaderboard.SAME, maintain_order=True):
        primary = part["primary"][0]
        table = rank(part, store.units(part["evaluation"]), primary=primary, higher_is_better=higher_is_better(primary))
        table = standing.marked(table, part, store)
        notes = (*protocol(part), *reconstructions_of(part, store), *standing.notes(part, store))
        boards.append(Board(f"{name} v{part['task_version'][0]}", table, primary, notes, {}))
    return boards


def rank(part: pl.DataFrame, units: pl.DataFrame | None, *, primary: str, higher_is_better: bool = True) -> pl.DataFrame:
    """The leaderboard of records that may share a table, ranked inside each support; without units no intervals and no tests."""
    settings = settings_of(part)
    within = [name for name in settings if name.startswith("support.")]
    return leaderboard.leaderboard(
        part, units, primary=primary, settings=settings, within=within, over=REPLICATES, higher_is_better=higher_is_better
    )


def rows(part: pl.DataFrame) -> pl.DataFrame:
    """The rows of the leaderboard of records that may share a table, in its order: ``arm``, the settings, ``score``, ``evaluations``."""
    table = rank(part, None, primary=part["primary"][0], higher_is_better=higher_is_better(part["primary"][0]))
    key = ["arm", *settings_of(part), "baseline", "baseline_version", "control", "selection"]
    named = part.sort("fold", "evaluation").group_by(key, maintain_order=True).agg(evaluations="evaluation")
    found = table.join(named, on=key, how="left", nulls_equal=True, maintain_order="left")
    return found.select("arm", *settings_of(part), "score", "evaluations")


def rankings(part: pl.DataFrame) -> list[dict[str, float]]:
    """Method → score, a mapping for each support in which records that may share a table are ranked; what is not ranked is left out.

    An arm with several rows at one support is several methods, told apart by their settings.
    """
    table = rank(part, None, primary=part["primary"][0], higher_is_better=higher_is_better(part["primary"][0])).filter(
        pl.col("rank").is_not_null()
    )
    settings = [name for name in settings_of(part) if name in table.columns]
    within = [name for name in settings if name.startswith("support.")]
    others = [
        name for name in settings if name not in within and table.group_by("arm", *within).agg(pl.col(name).n_unique())[name].max() != 1
    ]
    named = [pl.format("{}={}", pl.lit(_short(name)), name).fill_null("") for name in others]
    method = pl.concat_str("arm", *named, separator=" ").str.strip_chars()
    groups = table.with_columns(method=method).partition_by(within, maintain_order=True) if within else [table.with_columns(method=method)]
    return [dict(group.select("method", "score").iter_rows()) for group in groups]


def settings_of(part: pl.DataFrame) -> list[str]:
    """The columns that tell apart the rows of one arm."""
    from harness.store import RECORD

    return [name for name in part.columns if name not in RECORD and name not in REPLICATES]


def _short(column: str) -> str:
    return column.rsplit(".", 1)[-1]


def protocol(part: pl.DataFrame, note: str = "") -> Sequence[str]:
    """What is said of a table first: the dataset, whether it is synthetic, the protocol, and the task's own note."""
    kind = "SYNTHETIC faces in the layout of" if part["synthetic"][0] else "Dataset"
    return (
        f"{kind} {part['dataset'][0]}; protocol {part['protocol'][0]}, task version {part['task_version'][0]}.",
        *([note] if note else []),
    )


def _gathered(
    part: pl.DataFrame,
    prepared: Prepared,
    title: str,
    info: TaskInfo,
    notes: tuple[str, ...],
    facts: Mapping[str, Any],
    folder: Path,
    tries: pl.DataFrame,
) -> Gathered:
    report = prepared.sweep.report
    sources = [
        identity.source_of(f"harness.{name}")
        for name in (
            "metrics.units",
            "statistics.Panel",
            "leaderboard.rank",
            "publish.report.write",
            "publish.page.page",
            "publish.document.document",
            "publish.tables.render",
            "publish.curve.label_efficiency",
            "boards.gather",
        )
    ]
    sources.append(identity.source_of(report["_target_"]) if report else None)
    rows = part.select("evaluation", "arm", "written").rows()
    tried = tries.select("arm", "fold", "axes", "draw", "values", "score", "left_out", "stopped", "chosen").rows()
    elsewhere = reported.of_task(info.name)
    made_of = [rows, [s and s[1] for s in sources], title, notes, facts, report, info.parts, tried, elsewhere.rows()]
    key = identity.address(made_of)
    kept = folder / "kept.json"
    try:
        known = unseal(kept.read_bytes())
        if known["key"] == key and all(sha256_of(folder / name) == digest for name, digest in known["sha256"].items()):
            table = pl.read_parquet(folder / "table.parquet")
            extra = Extra({name: pl.read_parquet(folder / file) for name, file in known["tables"].items()}, {}, tuple(known["notes"]))
            return Gathered(Board(title, table, info.primary, notes, facts), extra, tuple(folder / name for name in known["files"]))
    except (OSError, ValueError, KeyError):
        pass
    from harness.publish import report as reports
    from harness.publish.tables import render

    units = prepared.store.units(part["evaluation"])
    table = rank(part, units, primary=info.primary, higher_is_better=info.higher_is_better)
    board = Board(title, table, info.primary, notes, facts)
    tuned = sweep.tuning(prepared).filter(task=info.name, protocol=info.protocol)
    study = Study(part, units, tuned, prepared.store)
    extra = instantiate(report, board=board, study=study) if report else Extra({}, {})
    if tuned.height:
        told = f"{CHOSEN}: score of the draw on the validation part, and of the median and the worst of all; every draw is in {TRIED}."
        extra = dataclasses.replace(extra, tables={**extra.tables, CHOSEN: _chosen(tuned, tries)}, notes=(*extra.notes, told))
    if info.parts:
        shown = leaderboard.parts(part, table, info.parts, settings=settings_of(part))
        told = f"{PARTS}: means over folds and seeds, as the score; empty where one of these is undefined."
        extra = dataclasses.replace(extra, tables={**extra.tables, PARTS: shown.rename(_short)}, notes=(*extra.notes, told))
    if elsewhere.height:
        told = f"{ELSEWHERE}: {reported.HEADING[0].lower()}{reported.HEADING[1:]}."
        extra = dataclasses.replace(extra, tables={**extra.tables, ELSEWHERE: elsewhere}, notes=(*extra.notes, told))
    files = reports.write(board, extra, folder)
    tables = {}
    for name, frame in extra.tables.items():
        tables[name] = f"{name.replace(' ', '_')}.parquet"
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        write_atomically(folder / tables[name], buffer.getvalue())
    if tuned.height:
        files.append(folder / TRIED)
        write_atomically(folder / TRIED, str(render(tuned, "csv")).encode())
    names = [path.name for path in files]
    known_by = {"title": title, "task": info.name, "command": facts["command"]}  # of no use here, and to who publishes this folder
    digests = {name: sha256_of(folder / name) for name in [*names, *tables.values()]}
    write_atomically(kept, seal({"key": key, "files": names, "tables": tables, "notes": extra.notes, "sha256": digests, **known_by}))
    prepared.output.keep(folder)
    mirror = tracking.open_run(
        prepared.config["tracker"],
        prepared.store,
        name=prepared.sweep.name,
        group=prepared.sweep.name,
        kind="leaderboard",
        config={"command": prepared.command},
    )
    mirror.table(f"{prepared.sweep.name}-leaderboard", table.to_dicts())
    mirror.finish()
    return Gathered(board, extra, tuple(files))
