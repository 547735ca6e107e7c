"""Folds by group, and the guard: nothing that was trained on may be tested on.

Groups are the values of one column, ``subject`` most often; a sample without one belongs to the group of its clip.
Which group goes where depends on the set of groups and the seed, not on the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RequestError
from harness.task import Split

PARTS = ("train", "validation", "test")
"""In the order in which an image that is in two of them is given up: training first, the test never."""


def by_group(samples: pl.DataFrame, *, folds: int, group: str, seed: int, validation: float) -> list[Split]:
    """K-fold cross-validation in which no group is on both sides.

    Args:
        samples: Columns ``sample``, ``clip`` and ``group``.
        folds: At least 2; each group is tested in exactly one.
        group: The column.
        seed: Of the folds and of the validation parts.
        validation: Share of the training groups of each fold that validate instead, in [0, 1).

    Raises:
        RequestError: Fewer groups than parts to fill, or a share out of range.
    """
    from sklearn.model_selection import GroupKFold

    groups = _groups(samples, group, None)
    count = len(np.unique(groups))
    if folds < 2:
        raise RequestError(f"{folds} folds", where="task.folds", remedy="choose 2 or more")
    if count < folds:
        raise RequestError(f"{folds} folds of {count} {group} groups", where="task.folds", remedy=f"choose {count} or fewer, or add data")
    splits = []
    for fold, (rest, test) in enumerate(GroupKFold(folds, shuffle=True, random_state=seed).split(groups, groups=groups)):
        train, held_out = _hold_out(rest, groups[rest], validation, seed + fold)
        splits.append(Split(f"fold{fold}", train, held_out, test))
    return splits


def by_lists(samples: pl.DataFrame, lists: Sequence[Sequence[str]], *, group: str, seed: int, validation: float) -> list[Split]:
    """Cross-validation by published lists: each list of groups is tested once, with all the others to train on.

    Args:
        samples: Columns ``sample``, ``clip`` and ``group``.
        lists: The groups of each fold.
        group: The column.
        seed: Of the validation parts.
        validation: Share of the training groups of each fold that validate instead, in [0, 1).

    Raises:
        RequestError: A group of the samples is in no list or in two, or a list has none of them.
    """
    fold_of: dict[str, int] = {}
    for fold, names in enumerate(lists):
        for name in names:
            if fold_of.setdefault(str(name), fold) != fold:
                raise RequestError(f"{group} {name!r} is in two folds", where="task.folds", remedy="each belongs to one")
    own = samples[group].cast(pl.String)
    strangers = own.filter(~own.is_in(list(fold_of))).unique().sort().to_list() + ["null"] * own.has_nulls()
    if strangers:
        shown = ", ".join(strangers[:3]) + (" …" if len(strangers) > 3 else "")
        remedy = f"set task.folds={len(lists)} for folds by {group}, or give lists that name all"
        raise RequestError(f"{group} {shown} is in none of the {len(lists)} published folds", where="task.folds", remedy=remedy)
    part = own.replace_strict(fold_of, return_dtype=pl.Int64).to_numpy()
    groups = _groups(samples, group, None)
    splits = []
    for fold, names in enumerate(lists):
        test, rest = np.flatnonzero(part == fold), np.flatnonzero(part != fold)
        if not len(test):
            remedy = "add data, or set task.folds to a number"
            raise RequestError(f"fold {fold} ({', '.join(map(str, names[:3]))} …) has no sample", where="task.root", remedy=remedy)
        train, held_out = _hold_out(rest, groups[rest], validation, seed + fold)
        splits.append(Split(f"fold{fold}", train, held_out, test))
    return splits


def check_settings(*, folds: Any, seed: Any, validation: Any, least_folds: int) -> None:
    """Refuse settings of a split that cannot be, before any data are read.

    Raises:
        RequestError: ``folds`` is no whole number from ``least_folds`` on and no list of two or more lists, ``seed`` no whole number from 0
            on, or ``validation`` no share in [0, 1) and no official part.
    """
    listed = isinstance(folds, Sequence) and not isinstance(folds, str)
    if listed and (len(folds) < 2 or not all(isinstance(names, Sequence) and not isinstance(names, str) and names for names in folds)):
        raise RequestError("folds are no lists", where="task.folds", remedy="give a number, or two or more lists of groups")
    for name, value, least in (("folds", least_folds if listed else folds, least_folds), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise RequestError(f"{name} is {value!r}", where=f"task.{name}", remedy=f"give a whole number from {least} on")
    if validation in PARTS and folds != 1:
        raise RequestError(f"validation is {validation!r}", where="task.validation", remedy="folds have no official part: give a share")
    if validation not in PARTS and (isinstance(validation, str) or not isinstance(validation, int | float) or not 0 <= validation < 1):
        raise RequestError(f"validation is {validation!r}", where="task.validation", remedy="give a share from 0 to below 1")


def official(
    samples: pl.DataFrame,
    *,
    train: str = "train",
    test: str = "validation",
    validation: float | str,
    seed: int,
    group: str = "subject",
    digests: np.ndarray | None = None,
) -> Split:
    """The dataset's own split, with a validation part of its own or one carved out of its training part.

    Args:
        samples: Columns ``sample``, ``clip``, ``split`` and ``group``.
        train: Name of the official part to train on.
        test: Name of the official part to test on (for datasets that keep their test labels, the validation part).
        validation: Share of the training groups that validate instead, in [0, 1), or the name of the official part that does.
        seed: Of the validation part.
        group: The column whose values stay together.
        digests: As ``Frames.digests``; identical images stay together too.

    Raises:
        RequestError: The dataset has no such part, or the share is out of range.
    """
    parts = samples["split"]
    own = isinstance(validation, str)
    if own and validation in (train, test):
        remedy = "give another part, or a share of the training part"
        raise RequestError(f"validation is the {validation} part, which is used already", where="task.validation", remedy=remedy)
    for name in (train, test, *([validation] if own else [])):
        if not (parts == name).any():
            there = ", ".join(parts.drop_nulls().unique().sort()) or "none"
            raise RequestError(f"the samples have no official part {name!r}", remedy=f"the parts are: {there}; check the dataset's folder")
    rest = np.flatnonzero(parts == train)
    if isinstance(validation, str):
        return Split("official", rest, np.flatnonzero(parts == validation), np.flatnonzero(parts == test))
    groups = _groups(samples[rest], group, None if digests is None else digests[rest])
    fit, held_out = _hold_out(rest, groups, validation, seed)
    return Split("official", fit, held_out, np.flatnonzero(parts == test))


def guard(
    samples: pl.DataFrame, digests: np.ndarray, split: Split, *, group: str, duplicates: str = "refuse"
) -> tuple[Split, dict[str, Any]]:
    """The same split, shown to leak nothing: no row, group, clip or identical image stands in two parts.

    Args:
        samples: Columns ``sample``, ``clip`` and ``group``.
        digests: ``(n,)`` str, a hash of each image's bytes, as ``Frames.digests``; empty ones are not compared.
        split: Row numbers into ``samples``.
        group: The column whose values must not stand in two parts.
        duplicates: What to do about an identical image in two parts: ``refuse``, or ``drop`` it from the training part (or
            from the validation part, where the other is in the test).

    Returns:
        The split, less what was dropped, and the proof for the record: for each part the numbers of samples, clips and groups and
        the SHA-256 of its sample names (sorted, one a line), and how many identical images were dropped from it.

    Raises:
        RequestError: Something stands in two parts, or the training or test part is empty.
    """
    if duplicates not in ("refuse", "drop"):
        raise RequestError(f"no rule {duplicates!r} for duplicates", where="duplicates", remedy="choose from: refuse, drop")
    rows = np.concatenate([getattr(split, part) for part in PARTS]).astype(np.int64)
    outside = rows[(rows < 0) | (rows >= samples.height)]
    if len(outside):
        raise RequestError(f"split {split.name!r} names row {outside[0]} of {samples.height} samples")
    table = pl.DataFrame(
        {
            "row": rows,
            "rank": np.repeat(np.arange(3), [len(getattr(split, part)) for part in PARTS]),
            "sample": samples["sample"].gather(rows),
            "clip": samples["clip"].gather(rows),
            "group": _names(samples, group).gather(rows),
            "digest": pl.Series(digests, dtype=pl.String).gather(rows).replace("", None),
        }
    )
    if table["row"].is_duplicated().any():
        raise RequestError(f"split {split.name!r} uses a sample twice: {_pair(table, 'row')}")
    for column, what in {"group": group, "clip": "clip"}.items():
        if _leaks(table, column).any():
            raise RequestError(f"split {split.name!r} has one {what} in two parts: {_pair(table.filter(_leaks(table, column)), column)}")
    identical = _leaks(table, "digest")
    if duplicates == "refuse" and identical.any():
        what = f"split {split.name!r} has one image in two parts: {_pair(table.filter(identical), 'digest')}"
        raise RequestError(what, remedy="remove one, or set duplicates=drop")
    dropped = identical & table.select(pl.col("rank") < pl.col("rank").max().over("digest")).to_series()
    kept = table.filter(~dropped)
    proof: dict[str, Any] = {"group": group, "duplicates": duplicates, "parts": {}}
    for rank, part in enumerate(PARTS):
        inside = kept.filter(rank=rank)
        if not inside.height and part != "validation":
            raise RequestError(f"the {part} part of split {split.name!r} is empty", remedy="use fewer folds, or add data")
        names = "\n".join(inside["sample"].sort())
        proof["parts"][part] = {
            "samples": inside.height,
            "clips": inside["clip"].n_unique(),
            "groups": inside["group"].n_unique(),
            "dropped": int((dropped & (table["rank"] == rank)).sum()),
            "sha256": hashlib.sha256(names.encode()).hexdigest(),
        }
    return Split(split.name, *(kept.filter(rank=rank)["row"].to_numpy() for rank in range(3))), proof


def guard_support(predictions: pl.DataFrame, units: pl.DataFrame) -> None:
    """Shows that no frame whose label was given is among the scored ones: no clip has more scored frames than frames without.

    Args:
        predictions: Columns ``subject``, ``clip`` and ``support``.
        units: What was scored, one row a subject and clip: ``frames`` of ``metrics.units``.

    Raises:
        RequestError: A clip has too many.
    """
    by = ["subject", "clip"]
    free = predictions.group_by(by).agg(free=(~pl.col("support")).sum())
    over = units.join(free, on=by, how="left", nulls_equal=True).filter(pl.col("frames") > pl.col("free").fill_null(0)).sort(by)
    if over.height:
        first = over.row(0, named=True)
        what = f"{first['frames']} frames of clip {first['clip']!r} are scored, and {first['free'] or 0} have no support label"
        raise RequestError(what, remedy="leave support frames out of the score")


def _names(samples: pl.DataFrame, group: str) -> pl.Series:
    """The group of each sample; a clip's own where there is none, marked so that no group has the same name."""
    if group not in samples.columns:
        raise RequestError(f"the samples have no column {group!r} to group by", where="task.group")
    return samples.select(pl.coalesce("g:" + pl.col(group).cast(pl.String), "clip:" + pl.col("clip"))).to_series()


def _groups(samples: pl.DataFrame, group: str, digests: np.ndarray | None) -> np.ndarray:
    """``(n,)`` int, the number of each sample's group in alphabetical order; groups that share an image are one."""
    numbers: np.ndarray = np.unique(_names(samples, group).to_numpy(), return_inverse=True)[1]
    if digests is None:
        return numbers
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known = np.flatnonzero(digests != "")
    images = np.unique(digests[known], return_inverse=True)[1] + samples.height  # numbered after every group
    links = coo_array((np.ones(len(known), bool), (numbers[known], images)), shape=(2 * samples.height,) * 2)
    merged: np.ndarray = connected_components(links, directed=False)[1][numbers]
    return merged


def _hold_out(rows: np.ndarray, groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of most groups, and those of a share of the groups (rounded up)."""
    from sklearn.model_selection import GroupShuffleSplit

    if not 0 <= share < 1:
        raise RequestError(f"a validation share of {share}", where="task.validation", remedy="choose 0 or more, less than 1")
    if share == 0:
        return rows, rows[:0]
    count = len(np.unique(groups))
    if int(np.ceil(share * count)) >= count:
        what = f"a validation share of {share:g} leaves none of {count} groups to train on"
        raise RequestError(what, where="task.validation", remedy="choose a smaller share or fewer folds, or add data")
    train, held_out = next(GroupShuffleSplit(1, test_size=share, random_state=seed).split(rows, groups=groups))
    return rows[train], rows[held_out]


def _leaks(table: pl.DataFrame, column: str) -> pl.Series:
    """Which rows share a value of the column with a row of another part."""
    return table.select(pl.col(column).is_not_null() & (pl.col("rank").n_unique().over(column) > 1)).to_series()


def _pair(table: pl.DataFrame, column: str) -> str:
    """The first two rows at fault, of two parts where there are two."""
    first = table.filter(pl.col(column).is_duplicated()).sort(column, "rank", maintain_order=True)
    group = first.filter(pl.col(column) == first[column][0])
    places = [group.row(0, named=True), group.row(-1, named=True)]
    return " and ".join(f"{place['sample']!r} ({PARTS[place['rank']]})" for place in places)
