"""Somebody else's predictions: what is to be predicted, whether a file does so, and its entry beside the others. No model, no torch.

The columns of a file are those of an evaluation's predictions (``store.write_predictions``): ``sample``; ``valence_pred``,
``arousal_pred``; ``expression_pred`` and, all or none, ``expression_p_happy`` …; ``au12_pred``; ``au12_intensity_pred``; where it helps
``fold`` and ``seed``. Labels, ``clip``, ``frame``, ``subject`` and the like may be there and are not read. Metadata (of a Parquet file, or
``# key: value`` lines above a csv) may say ``task``, ``task_version``, ``protocol``, ``setting`` and ``data``, and must then be right.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from harness import config, identity, intake, plan, provenance, snapshot
from harness import frames as frame_cache
from harness.errors import RequestError, did_you_mean
from harness.leaderboard import SUBMITTED
from harness.provenance import now
from harness.rescoring import guarded_score, scored
from harness.samples import Problems, vote_columns
from harness.snapshot import Snapshot
from harness.store import Store
from harness.task import Score, Setting, Task, kind_of

FAULTS: dict[str, Any] = {
    "row": pl.Int64,  # line of a text file, row of a Parquet file; null where it is about the file, or about a row that is not there
    "sample": pl.String,
    "column": pl.String,
    "what": pl.String,
}
"""What is wrong with a file, one row a fault."""

SEEDS = 100
"""More seeds in one file are not read."""

TOLERANCE = 1e-3
"""How far the probabilities of a sample may be from a sum of 1."""

_SAMPLE = ("sample", "clip", "subject", "frame")
_CLAIMS = ("task", "task_version", "protocol", "setting", "data")


@dataclass(frozen=True)
class Wanted:
    """What a submission to a task must predict.

    Attributes:
        node: The task's config.
        folds: Which are entered; all of them unless somebody chose.
        setting: Canonical: the support, and the threshold of a detection.
        tests: Fold → its test part as an evaluation lays it out: ``sample``, ``clip``, ``subject``, ``frame``, ``support``, labels, votes.
        proofs: Fold → the guard's proof.
    """

    task: Task
    node: config.Config
    snapshot: Snapshot
    folds: tuple[int, ...]
    setting: Setting
    tests: Mapping[int, pl.DataFrame]
    proofs: Mapping[int, Mapping[str, Any]]

    @property
    def rows(self) -> pl.DataFrame:
        """What to predict: ``fold``, ``sample``, ``clip``, ``subject``, ``frame``; no support frame, unless the protocol scores it."""
        kept = pl.lit(True) if self.task.scores_support else ~pl.col("support")
        return pl.concat(
            self.tests[fold].filter(kept).select(pl.lit(fold, pl.Int64).alias("fold"), *_SAMPLE).rechunk() for fold in self.folds
        )

    @property
    def facts(self) -> dict[str, str]:
        """What a file says of itself, and a template carries."""
        info = self.task.info
        said = (info.name, str(info.version), info.protocol, identity.canonical(self.setting), self.snapshot.fingerprint)
        return dict(zip(_CLAIMS, said, strict=True))


def wanted(
    task: str, overrides: Sequence[str], *, extra: Sequence[Path] = (), cache: Path, progress: snapshot.Progress | None = None
) -> Wanted:
    """What a submission to a task must predict, by the very splits, support frames and labels that a run has.

    Args:
        task: Its name.
        overrides: As of ``harness run``: ``task.root=…``, ``evaluate.support.size=4``, ``fold=0``; all folds by default.
        extra: The user's config folders.
        cache: Of frames and snapshots.
        progress: As of ``snapshot.take``.

    Raises:
        RequestError: As of ``plan``; or more than one setting.
    """
    sweep = plan.single([f"task={task}", *overrides], extra)
    for key, values in sweep.axes.items():
        if key != "fold" and (key == "seed" or len(values) > 1):
            remedy = "a file says its seeds in a column" if key == "seed" else "submit one setting at a time"
            raise RequestError(f"{key} is {values}", where=f"{key}=", remedy=remedy)
    shared = [*sweep.overrides, *next(iter(sweep.arms.values()))]
    composed = config.compose(shared, extra)
    for key, values in sweep.axes.items():
        if key != "fold":
            config.place(composed, key, values[0])
    given = [item.partition("=")[0].lstrip("+") for item in shared]
    node = plan.measured(composed, given)
    made = plan.make_task(node)
    setting = {key: value for key, value in made.setting(composed.get("evaluate") or {}).items() if key in ("support", "threshold")}
    if setting.get("threshold", "0.5") != "0.5":
        remedy = "probabilities are taken as they are: move them so that 0.5 is your threshold"
        raise RequestError("a submission has no validation part", where="evaluate.threshold", remedy=remedy)
    taken = snapshot.take(node, cache, progress)
    folds = tuple(dict.fromkeys(sweep.axes["fold"]))
    if not folds or any(type(fold) is not int for fold in folds):
        raise RequestError(f"folds {list(folds)}", where="fold=", remedy=f"{made.info.name} has folds 0 to {made.folds - 1}")
    tests, proofs = {}, {}
    for fold in folds:
        rows, split, proof = plan.selected(made, node, taken, fold)
        test = rows[split.test].sort("clip", "frame", "sample")
        by_looks = setting.get("support", {}).get("selection") == "kmeans"
        looks = frame_cache.thumbnails(taken.frames.take(test["row"].to_numpy())) if by_looks else np.zeros((test.height, 0), np.float32)
        support = pl.Series("support", made.support(test.select(_SAMPLE), setting, looks))
        tests[fold] = test.select(*_SAMPLE, support, *made.info.targets, *vote_columns(test))
        proofs[fold] = proof
    return Wanted(made, node, taken, folds, setting, tests, proofs)


# ── the template ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def template(asked: Wanted, *, parquet: bool) -> bytes:
    """A file to fill in: the samples to predict and empty columns for what is predicted. It holds no label.

    Frames of a clip that are not in it are its support, whose labels a method may use. The person of a sample is left out where telling
    people apart is measured.
    """
    info = asked.task.info
    texts = ("expression_pred",)
    empty = [pl.lit(None, pl.String if name in texts else pl.Float64).alias(name) for name in _columns(asked.task)]
    shown = [name for name in ("sample", "fold", *_SAMPLE[1:]) if not (name == "subject" and info.retrieval)]
    rows = asked.rows.select(*shown, *empty)
    buffer = io.BytesIO()
    if parquet:
        rows.write_parquet(buffer, metadata=asked.facts)
    else:
        buffer.write("".join(f"# {key}: {value}\n" for key, value in asked.facts.items()).encode())
        rows.write_csv(buffer)
    return buffer.getvalue()


def _columns(task: Task) -> list[str]:
    """What is predicted, in the order of an evaluation's predictions."""
    found = []
    for target in task.info.targets:
        found.append(f"{target}_pred")
        found += [f"expression_p_{name}" for name in task.classes] if target == "expression" else []
    return found


# ── the check ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Faults:
    """Gathers what is wrong, to be shown all at once."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []

    def file(self, what: str, column: str | None = None) -> None:
        """Something about the whole file."""
        self._frames.append(pl.DataFrame([(None, None, column, what)], schema=FAULTS, orient="row"))

    def rows(self, rows: pl.DataFrame, what: str | pl.Expr, column: str | None = None) -> None:
        """The same fault of some rows (columns ``sample`` and, where they are in the file, ``row``)."""
        if rows.height:
            row = pl.col("row") if "row" in rows.columns else pl.lit(None, pl.Int64).alias("row")
            said = pl.lit(what) if isinstance(what, str) else what
            frame = rows.rechunk().select(row, pl.col("sample").str.slice(0, 200), column=pl.lit(column, pl.String), what=said)
            self._frames.append(frame.cast(FAULTS))  # type: ignore[arg-type]

    def frame(self) -> pl.DataFrame:
        found = pl.concat([pl.DataFrame(schema=FAULTS), *self._frames])
        return found.sort("row", "sample", "column", "what", nulls_last=False, maintain_order=True)


def read(
    path: Path, asked: Wanted, *, claims: Mapping[str, str | None] | None = None
) -> tuple[dict[tuple[int, int], pl.DataFrame], pl.DataFrame]:
    """The predictions in a file, and everything that is wrong with them.

    Args:
        path: A Parquet file, a csv, or what the task's challenge takes (``Task.read_submission``).
        asked: What it must predict.
        claims: ``protocol`` and ``task_version``, where they are said beside the file.

    Returns:
        Fold and seed → the predictions as an evaluation writes them (empty where anything is wrong), and the columns of :data:`FAULTS`.

    Raises:
        RequestError: It cannot be read at all, or is beyond a bound of ``harness.intake``.
    """
    intake.weigh(path)
    columns, faults = _columns(asked.task), _Faults()
    said: dict[str, str | None] = dict(claims or {})
    if not path.is_dir() and intake.is_parquet(path):
        table = intake.read_parquet(path, {"sample", "fold", "seed", *columns})
    elif _is_csv(path):
        table = intake.read_csv(path, {"sample", "fold", "seed", *columns})
    else:
        table = _of_challenge(path, asked, faults)
    for name, value in said.items():
        if value is not None and table.metadata.get(name, value) != value:
            faults.file(f"the file says {intake.shown(table.metadata[name])}, and beside it {intake.shown(value)} is said", name)
    _check_claims({**table.metadata, **{name: value for name, value in said.items() if value is not None}}, asked, faults)
    present = _check_columns(table.names, asked.task, faults)
    if "sample" not in table.names:
        return {}, faults.frame()
    rows = _check_places(_check_rows(table, faults), asked, faults)
    for name in present:
        rows = _check_values(rows, name, asked.task, faults)
    rows = _check_sums(rows, present, asked.task, faults)
    found = faults.frame()
    return ({} if found.height else _laid_out(rows, present, asked)), found


def _is_csv(path: Path) -> bool:
    """Whether the first line that is no comment names the column ``sample``; or it is called a csv."""
    if path.is_dir():
        return False
    if path.suffix.lower() == ".csv":
        return True
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for _ in range(100):
            line = file.readline(intake.LINE)
            if not line.lstrip('"').startswith("#"):
                return "sample" in [cell.strip(' "\r\n') for cell in line.split(",")]
    return False


def _of_challenge(path: Path, asked: Wanted, faults: _Faults) -> intake.Table:
    """A challenge's own text file as a table of ours; its rows are found by clip and frame."""
    intake.weigh_lines(path)
    problems = Problems()
    found = asked.task.read_submission(path, problems)
    for kind, file, line, sample, detail in problems.frame().head(intake.FILES).iter_rows():
        several = f"{Path(file).name}: " if path.is_dir() else ""
        faults.rows(pl.DataFrame({"row": [line], "sample": [sample]}, {"row": pl.Int64, "sample": pl.String}), f"{several}{kind}: {detail}")
    names = asked.rows.select("sample", "clip", pl.col("frame").cast(pl.Int64))
    support = pl.concat(test.select("sample", "clip", pl.col("frame").cast(pl.Int64)) for test in asked.tests.values())
    known = pl.concat([names, support]).unique(["clip", "frame"], keep="first", maintain_order=True)
    rows = found.with_columns(pl.col("frame").cast(pl.Int64)).join(known, on=["clip", "frame"], how="left", maintain_order="left")
    predicted = [name for name in _columns(asked.task) if name in found.columns]
    named = pl.coalesce("sample", "image").alias("sample")
    rows = rows.select(pl.col("line").cast(pl.Int64).alias("row"), pl.lit(None, pl.Int64).alias("cells"), named, *predicted)
    return intake.Table(rows, ("sample", *predicted), {})


def _check_claims(claims: Mapping[str, str], asked: Wanted, faults: _Faults) -> None:
    remedies = {
        "task": "give the task it is for",
        "task_version": "predict the version that is here, by a new template",
        "protocol": "set what the protocol needs, as task.folds=…, or predict by a new template",
        "setting": "set what it is for, as --set support.size=4",
        "data": "these are other images or labels; predict by a new template",
    }
    for name, value in asked.facts.items():
        if name in claims and claims[name] != value:
            faults.file(f"it is for {intake.shown(claims[name], 200)}, and here is {value!r}: {remedies[name]}", name)


def _check_columns(names: Sequence[str], task: Task, faults: _Faults) -> list[str]:
    """The columns of predictions that are there; others must be known ones."""
    columns = _columns(task)
    chances = [name for name in columns if name.startswith("expression_p_")]
    some = any(name in names for name in chances)
    needed = [name for name in columns if name not in chances and not (name == "expression_pred" and some)]
    needed += chances if some or task.needs_probabilities else []
    for name in ("sample", *needed):
        if name not in names:
            faults.file("the column is missing", name)
    idle = {"sample", "fold", "seed", "support", "clip", "subject", "frame", "nearest_subject", *task.info.targets, *columns}
    for name in names:
        if name not in idle and not name.startswith("votes_"):
            faults.file(f"no such column; {did_you_mean(name[:80], columns)}", intake.shown(name)[1:-1])
    return [name for name in columns if name in names]


def _check_rows(table: intake.Table, faults: _Faults) -> pl.DataFrame:
    """Rows with ``sample`` as text, ``fold`` and ``seed`` as whole numbers (null where the file has none)."""
    rows = table.rows
    broken = rows.filter(pl.col("cells").is_not_null()).with_columns(pl.col("sample").cast(pl.String))
    faults.rows(broken, pl.format(f"{{}} cells, where {len(table.names)} belong", "cells"))
    rows = rows.filter(pl.col("cells").is_null()).with_columns(pl.col("sample").cast(pl.String).replace("", None))
    faults.rows(rows.filter(pl.col("sample").is_null()), "no sample is named", "sample")
    for name in ("fold", "seed"):
        if name not in rows.columns:
            rows = rows.with_columns(pl.lit(None, pl.Int64).alias(name))
            continue
        number = pl.col(name).cast(pl.Float64, strict=False)
        whole = number.is_finite() & (number == number.floor()) & number.is_between(0, 2**31)
        wrong = rows.filter(~whole.fill_null(False))
        faults.rows(wrong, pl.format("{} is no whole number from 0 on", _quoted(name)), name)
        rows = rows.filter(whole.fill_null(False)).with_columns(number.cast(pl.Int64).alias(name))
    return rows.filter(pl.col("sample").is_not_null())


def _check_places(rows: pl.DataFrame, asked: Wanted, faults: _Faults) -> pl.DataFrame:
    """The rows that are wanted, once each, with their ``fold`` and ``seed``."""
    wanted_rows = asked.rows.select("fold", "sample")
    everywhere = pl.concat(
        test.select(pl.lit(fold, pl.Int64).alias("fold"), "sample", "support").rechunk() for fold, test in asked.tests.items()
    )
    if rows["fold"].is_null().all():  # each sample is tested in one fold
        own = everywhere.unique("sample", keep="none")
        if own.height < everywhere.height:
            faults.file("samples are tested in several folds: say which", "fold")
        rows = rows.drop("fold").join(own.select("sample", "fold"), on="sample", how="left", maintain_order="left")
        unknown = rows.filter(pl.col("fold").is_null())
    else:
        unknown = rows.join(everywhere, on=["fold", "sample"], how="anti", maintain_order="left")
    tested = unknown.join(everywhere.select("sample", other="fold").unique("sample"), on="sample", how="left", maintain_order="left")
    where = pl.format("it is tested in fold {}, not in fold {}", "other", "fold")
    faults.rows(tested.filter(pl.col("other").is_not_null()), where, "fold")
    strange = tested.filter(pl.col("other").is_null())
    faults.rows(strange, f"no sample of the test part ({'fold ' if len(asked.folds) == 1 else 'folds '}{', '.join(map(str, asked.folds))})")
    rows = rows.filter(pl.col("fold").is_not_null()).join(everywhere, on=["fold", "sample"], how="inner", maintain_order="left")
    rows = rows.with_columns(pl.col("seed").fill_null(0))
    given = pl.lit(False) if asked.task.scores_support else pl.col("support")
    faults.rows(rows.filter(given), "a support frame: its label was given, so it is not predicted")
    rows = rows.filter(~given)
    key = ["seed", "fold", "sample"]
    twice = rows.filter(pl.struct(key).is_duplicated())
    first = pl.col("row").first().over(key)
    faults.rows(
        twice.with_columns(first=first).filter(pl.col("row") != pl.col("first")), pl.format("stands twice: first in row {}", "first")
    )
    rows = rows.unique(key, keep="first", maintain_order=True)
    seeds = rows["seed"].unique().sort().to_list() or [0]
    if len(seeds) > SEEDS:
        faults.file(f"{len(seeds)} seeds, at most {SEEDS} are read", "seed")
        return rows
    for seed in seeds:
        missing = wanted_rows.join(rows.filter(seed=seed), on=["fold", "sample"], how="anti", maintain_order="left")
        of_seed = f" with seed {seed}" if len(seeds) > 1 else ""
        faults.rows(missing, pl.format("is not predicted{} (fold {})", pl.lit(of_seed), "fold"))
    return rows


def _check_values(rows: pl.DataFrame, name: str, task: Task, faults: _Faults) -> pl.DataFrame:
    """The column as it is scored, null where it cannot be."""
    if name == "expression_pred":
        text = pl.col(name).cast(pl.String).replace("", None)
        faults.rows(rows.filter(text.is_null()), "is empty", name)
        known = pl.when(text.is_in(task.classes)).then(text).alias(name)
        wrong = rows.filter(text.is_not_null() & ~text.is_in(task.classes))
        faults.rows(wrong, pl.format("{} is none of the classes: {}", _quoted(name), pl.lit(", ".join(task.classes))), name)
        return rows.with_columns(known)
    low, high = _range(name)
    empty = pl.col(name).is_null() | (pl.col(name).cast(pl.String).str.strip_chars() == "")
    number = (
        pl.col(name).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False) if rows.schema[name] == pl.String else pl.col(name)
    )
    number = number.cast(pl.Float64)
    faults.rows(rows.filter(empty), "is empty", name)
    faults.rows(rows.filter(~empty & number.is_null()), pl.format("{} is no number", _quoted(name)), name)
    faults.rows(rows.filter(~number.is_finite()), pl.format("{} is not finite", number), name)
    outside = number.is_finite() & ~number.is_between(low, high)
    faults.rows(rows.filter(outside), pl.format(f"{{}} is outside {low:g}..{high:g}", number), name)
    return rows.with_columns(number.alias(name))


def _range(name: str) -> tuple[float, float]:
    if name.startswith("expression_p_"):
        return 0, 1
    kind = kind_of(name.removesuffix("_pred"))
    return {"affect": (-1.0, 1.0), "occurrence": (0.0, 1.0), "intensity": (0.0, 5.0)}[kind]


def _check_sums(rows: pl.DataFrame, present: Sequence[str], task: Task, faults: _Faults) -> pl.DataFrame:
    """Adds ``expression_pred``, the likeliest class and of equals the first, where only the probabilities are there."""
    chances = [name for name in present if name.startswith("expression_p_")]
    if not chances or len(chances) < len(task.classes):
        return rows
    total = pl.sum_horizontal(chances)
    fine = pl.all_horizontal(pl.col(name).is_finite() & pl.col(name).is_between(0, 1) for name in chances).fill_null(False)
    wrong = rows.filter(fine & ((total - 1).abs() > TOLERANCE))
    faults.rows(wrong, pl.format("the probabilities sum to {}, not 1", total.round(4)), "expression_p_…")
    if "expression_pred" in present:
        return rows
    highest = pl.max_horizontal(chances)
    likeliest = pl.coalesce(pl.when(pl.col(f"expression_p_{name}") == highest).then(pl.lit(name)) for name in task.classes)
    return rows.with_columns(likeliest.alias("expression_pred"))


def _quoted(name: str) -> pl.Expr:
    return "'" + pl.col(name).cast(pl.String).fill_null("").str.slice(0, 40) + "'"


def _laid_out(rows: pl.DataFrame, present: Sequence[str], asked: Wanted) -> dict[tuple[int, int], pl.DataFrame]:
    """Fold and seed → predictions as ``evaluation.Ready.predict`` lays them out; support frames have none."""
    columns = [name for name in _columns(asked.task) if name in present or (name == "expression_pred" and name in rows.columns)]
    out = {}
    for seed in rows["seed"].unique().sort().to_list():
        for fold in asked.folds:
            own = rows.filter(seed=seed, fold=fold).select("sample", *columns)
            frame = asked.tests[fold].join(own, on="sample", how="left", maintain_order="left")
            if asked.task.info.retrieval:  # asks for embeddings, which nobody sends
                frame = frame.with_columns(nearest_subject=pl.lit(None, pl.String))
            out[fold, seed] = frame
    return out


# ── the entry ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Entered:
    """What became of a submission: the scores by fold and seed, whether it was there already, and how many records it replaced."""

    scores: dict[tuple[int, int], Score]
    known: bool
    replaced: int


def check_name(name: str, taken: Sequence[str]) -> str:
    """The name as it is shown; it is never part of a path.

    Raises:
        RequestError: It is empty, longer than 100 characters, no text, or that of a baseline.
    """
    shown = name.strip()
    if not shown or len(shown) > 100 or shown != shown.encode("utf-8", "replace").decode():
        raise RequestError(f"the name {intake.shown(name)}", where="--name", remedy="give 1 to 100 characters of text")
    if shown in taken:
        raise RequestError(f"{intake.shown(shown)} is the name of a baseline", where="--name", remedy="give it one of its own")
    return shown


def check_paper(url: str | None) -> str | None:
    """The address of a paper.

    Raises:
        RequestError: It is no plain http or https address, or holds a user or password.
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        fine = False
    if not fine or len(url) > 500 or not url.isprintable() or set(url) & set(" <>\"'\\`"):
        raise RequestError(f"no address of a paper: {intake.shown(url)}", where="--paper", remedy="give one that begins with https://")
    return url


def address_of(folder: Path) -> str:
    """The SHA-256 of a folder's files, as of the list of theirs."""
    listed = "".join(f"{identity.address_of_file(file)}  {file.name}\n" for file in sorted(folder.iterdir()))
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


def enter(
    predictions: Mapping[tuple[int, int], pl.DataFrame],
    asked: Wanted,
    store: Store,
    *,
    name: str,
    sha256: str,
    paper: str | None = None,
    by: str | None = None,
    replace: bool = False,
) -> Entered:
    """Score checked predictions and write a record for each fold and seed, marked as submitted.

    Args:
        predictions: Of :func:`read`.
        asked: What they are of.
        store: Where they go.
        name: Of the method, as of :func:`check_name`.
        sha256: Of the file.
        paper, by: An address, and who sent it.
        replace: Put it in the place of another file of the same name, task, protocol, data and setting.

    Raises:
        RequestError: No sample is labelled here, the name stands for something else, or the task cannot score them.
    """
    info = asked.task.info
    if all(test[target].is_null().all() for test in asked.tests.values() for target in info.targets):
        raise RequestError(f"no label of the test part of {info.name} is here", where="task.root", remedy="its keepers can score it")
    setting = identity.canonical(asked.setting)
    standing = store.records().filter(
        arm=name, task=info.name, task_version=info.version, protocol=info.protocol, data=asked.snapshot.fingerprint
    )
    if (others := standing.filter(pl.col("selection") != SUBMITTED)).height:
        raise RequestError(f"{intake.shown(name)} was run here ({others['evaluation'][0]})", where="--name", remedy="choose another name")
    standing = standing.filter(setting=setting)
    entered = {"name": name, "version": 1, "sha256": sha256}
    arguments = {key: value for key, value in entered.items() if key not in plan.BASELINE_FACTS}
    names = {}
    for fold, seed in predictions:
        test = asked.proofs[fold]["parts"]["test"]["sha256"]
        fit = identity.address({"submission": sha256, "data": asked.snapshot.fingerprint, "test": test, "fold": fold, "seed": seed})
        names[fold, seed] = fit, plan.evaluation_identity(plan.entry_identity(fit, [name, 1, arguments], info), setting)
    evaluations = {evaluation for _, evaluation in names.values()}
    old = set(standing["evaluation"]) - evaluations
    stranger = standing.filter(pl.col("evaluation").is_in(sorted(old))).sort("written", "evaluation")
    if not replace and any(_file_of(store, record) != sha256 for record in stranger.iter_rows(named=True)):
        first = stranger.row(0, named=True)
        what = f"{intake.shown(name)} stands already: another file (sha256 {_file_of(store, first)[:12]}), entered {first['written']}"
        raise RequestError(what, where="--name", remedy="choose another name, or give --replace")
    scores = {key: guarded_score(asked.task, frame) for key, frame in predictions.items()}
    if evaluations <= store.done(evaluations) and not (replace and old):
        return Entered(scores, True, 0)
    kept = store.put(
        {
            "environment": provenance.software(),
            "sources": provenance.sources(asked.node["_target_"]),
            "guard": {str(fold): proof for fold, proof in asked.proofs.items()},
            "problems": asked.snapshot.problem_counts(),
            "versions": {"task": info.version, "baseline": 1},
            "baseline": entered,
            "submission": {"by": by, "paper": paper, "sha256": sha256, "entered": now()},
            "task": {key: value for key, value in asked.node.items() if key != "root"},
        }
    )
    for key, frame in predictions.items():
        fit, evaluation = names[key]
        path, digest = store.write_predictions(evaluation, frame)
        record = {
            "evaluation": evaluation,
            "fit": fit,
            "task": info.name,
            "task_version": info.version,
            "protocol": info.protocol,
            "dataset": info.dataset,
            "synthetic": asked.snapshot.synthetic,
            "data": asked.snapshot.fingerprint,
            "primary": info.primary,
            "baseline": name,
            "baseline_version": 1,
            "arm": name,
            "control": False,
            "fold": key[0],
            "seed": key[1],
            "setting": setting,
            **scored(scores[key].metrics, info.primary),
            "labels_used": int(frame["support"].sum()),
            "n_samples": frame.height,
            "n_clips": frame["clip"].n_unique(),
            "n_subjects": frame["subject"].drop_nulls().n_unique(),
            "selection": SUBMITTED,
            "predictions": path,
            "sha256": digest,
            "provenance": kept,
            "written": now(),
        }
        store.write_record(record, scores[key].units)
    if replace and old:
        store.forget(old)
    return Entered(scores, False, len(old) if replace else 0)


def _file_of(store: Store, record: Mapping[str, Any]) -> str:
    """The SHA-256 of the file that a submitted record is of."""
    return str(store.provenance(record["provenance"]).get("submission", {}).get("sha256", "unknown"))
