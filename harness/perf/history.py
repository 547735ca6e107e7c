"""What was measured, one JSON a machine and revision: ``results/perf/MACHINE/COMMIT.json``. Data only; nothing in it is evaluated."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.perf import checkout
from harness.store import write_atomically

FORMAT = 1
LARGEST = 4 * 2**20
"""Bytes of a file that is read."""


@dataclass(frozen=True)
class Kept:
    """One revision on one machine.

    Attributes:
        machine: Fingerprint.
        commit: Full name.
        dirty: Whether there were changes beyond it.
        committed: When, ISO 8601 with offset.
        facts: Of the machine.
        versions: Of Python and packages.
        load: Before and after, as of :func:`harness.perf.machine.load`, of the last run.
        benchmarks: Name → what was measured; ``median_s``, ``least_s``, ``iqr_s``, ``rounds`` at least.
        scores: Rows of :func:`harness.perf.accuracy.of_store`.
    """

    machine: str
    commit: str
    dirty: bool
    committed: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    load: Sequence[Sequence[float]] = ()
    benchmarks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scores: Sequence[Mapping[str, Any]] = ()

    @property
    def label(self) -> str:
        """Short, for a person."""
        return self.commit[:12] + (" with changes" if self.dirty else "")

    @property
    def place(self) -> str:
        """Where it is kept, below the folder of the history."""
        return f"{self.machine}/{self.commit[:12]}{'-dirty' if self.dirty else ''}.json"


def write(folder: Path, kept: Kept) -> Path:
    """Write or replace a file, with what it holds of other benchmarks, and other scores, kept."""
    path = folder / kept.place
    before = _read(path)
    benchmarks = {**(before.benchmarks if before else {}), **kept.benchmarks}
    scores = list(kept.scores or (before.scores if before else ()))
    known = {**vars(kept), "benchmarks": dict(sorted(benchmarks.items())), "scores": scores, "format": FORMAT}
    write_atomically(path, (json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return path


def read(folder: Path, repository: Path) -> tuple[list[Kept], list[str]]:
    """Everything kept, in the order of the revisions, and what is to be known: files that are damaged.

    The order is that of git's history; where a revision is not in it (a shallow clone, another branch), of the time of commits.
    """
    found, notes = [], []
    for path in sorted(folder.glob("*/*.json")):
        kept = _read(path)
        if kept is None:
            notes.append(f"{path.relative_to(folder)} is no measurement and is left out")
        else:
            found.append(kept)
    order = _order(repository)
    if all(kept.commit in order for kept in found):
        found.sort(key=lambda kept: (order[kept.commit], kept.dirty))
    else:
        found.sort(key=lambda kept: (kept.committed, kept.commit, kept.dirty))
    return found, notes


def _order(repository: Path) -> dict[str, int]:
    try:
        listed = checkout.git(repository, "rev-list", "--topo-order", "--reverse", "HEAD").split()
    except RequestError:
        return {}
    return {commit: place for place, commit in enumerate(listed)}


def _read(path: Path) -> Kept | None:
    """What a file holds, if it holds what it should: names are short texts, numbers are finite."""
    try:
        if path.stat().st_size > LARGEST:
            return None
        known = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_a_number)
        names = {name: known[name] for name in ("machine", "commit", "dirty", "committed")}
        benchmarks = {str(name): _entry(entry) for name, entry in known["benchmarks"].items()}
        scores = [dict(row) for row in known.get("scores", ())]
        if not re.fullmatch(r"[0-9a-f]{7,64}", names["commit"]) or not re.fullmatch(r"[0-9a-z]{4,64}", names["machine"]):
            return None
        return Kept(
            machine=names["machine"],
            commit=names["commit"],
            dirty=bool(names["dirty"]),
            committed=str(names["committed"]),
            facts=dict(known.get("facts") or {}),
            versions=dict(known.get("versions") or {}),
            load=[[float(value) for value in one] for one in known.get("load") or ()],
            benchmarks=benchmarks,
            scores=scores,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("median_s", "least_s", "iqr_s"):
        if not isinstance(entry[name], int | float) or not 0 <= entry[name] < math.inf:
            raise ValueError(name)
    if not isinstance(entry["rounds"], int):
        raise TypeError("rounds")
    return dict(entry)


def _not_a_number(text: str) -> Any:
    raise ValueError(text)
