"""A revision against the working tree: both checked out, measured in turns, judged."""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RequestError, did_you_mean
from harness.perf import checkout, turns
from harness.perf.verdict import Finding, Rule, judge

MORE_MEMORY, LEAST_MEMORY = 0.10, 32.0
"""Share and MiB by which a peak of memory must differ to be said."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        old, new: What was compared, for a person.
        findings: Of each benchmark that ran on both sides, by quantity.
        appeared: Benchmarks of this side alone → what the old side said.
        vanished: Benchmarks of the old side's own suite that are no more.
        broken: Benchmarks that run on neither side, or not on this one → why.
        memory: Benchmark → peaks of old and new, MiB, where they differ.
        notes: What is to be known.
    """

    old: str
    new: str
    findings: list[Finding]
    appeared: dict[str, str]
    vanished: list[str]
    broken: dict[str, str]
    memory: dict[str, tuple[float, float]]
    notes: list[str]

    def of(self, verdict: str) -> list[Finding]:
        """Findings of one verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]


def compare(
    revision: str,
    *,
    only: Sequence[str] = (),
    rule: Rule | None = None,
    size: str = "modest",
    seconds: float = turns.SECONDS,
    repository: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Measure a revision and the working tree in turns.

    Args:
        revision: The old side.
        only: Patterns of benchmarks; any of them. All without one.
        rule: What counts as slower.
        size: Of the benchmarks: ``tiny``, ``modest`` or ``full``.
        seconds: For a benchmark in each pair of processes.
        repository: A folder in it; the working directory by default.
        say: Told what is done.

    Raises:
        RequestError: No such revision, no such benchmark, or nothing can be measured.
    """
    repository = checkout.root(repository)
    with checkout.sides(repository, revision) as (old, new, notes):
        kept = old.folder.parent / "made"
        say(f"old: {old.label}; new: {new.label}")
        here = turns.collect(new)
        names = chosen(here, only)
        duel = turns.Duel((old, new), kept, size, say, seconds)
        findings = judge(duel, names, rule, say)
        own = [] if checkout.same_suite(repository, old.commit) else _own_suite(repository, old, kept)
        vanished = [name for name in chosen(own, only, strict=False) if name not in here]
    appeared = {name: reason for name, (side, reason) in duel.alone.items() if side == "new"}
    broken = {name: reason for name, (side, reason) in duel.alone.items() if side != "new" and not reason.startswith("skipped")}
    skipped = sorted(turns.short(name) for name, (_, reason) in duel.alone.items() if reason.startswith("skipped"))
    if skipped:
        notes.append(f"skipped on both sides: {', '.join(skipped)}")
    memory = {}
    for name, peaks in duel.memory.items():
        before, after = (statistics.median(peak[which] for peak in peaks) for which in (0, 1))
        if abs(after - before) > max(LEAST_MEMORY, MORE_MEMORY * before):
            memory[name] = (before, after)
    return Comparison(
        old.label, new.label, findings, {n: r for n, r in appeared.items() if not r.startswith("skipped")}, vanished, broken, memory, notes
    )


def chosen(names: Sequence[str], only: Sequence[str], *, strict: bool = True) -> list[str]:
    """The benchmarks that a pattern fits: a part of the name, or with ``*`` and ``?``, of any case.

    >>> chosen(["tests/perf/test_plan.py::test_composing", "tests/perf/test_site.py::test_x[1]"], ["PLAN"])
    ['tests/perf/test_plan.py::test_composing']
    """
    found = [name for name in names if not only or any(_fits(turns.short(name), pattern) for pattern in only)]
    if strict and not found:
        options = [turns.short(name) for name in names]
        where = " ".join(f"--only {pattern}" for pattern in only)
        raise RequestError("no benchmark has such a name", where=where or turns.TESTS, remedy=did_you_mean(" ".join(only), options))
    return found


def _fits(name: str, pattern: str) -> bool:
    escaped = pattern.lower().replace("[", "[[]")
    return fnmatch.fnmatchcase(name.lower(), f"*{escaped}*")


def _own_suite(repository: Path, old: checkout.Side, kept: Path) -> list[str]:
    """What the old side's own suite measured: its ``tests`` as they were, beside its code."""
    folder = kept / "own"
    archive = kept / "own.tar"
    try:
        checkout.git(repository, "archive", "--output", str(archive), old.commit, "tests", "pyproject.toml")
    except RequestError:
        return []
    import tarfile

    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    if not (folder / "tests" / "perf").is_dir():
        return []
    for path in old.folder.iterdir():
        if path.name not in ("tests", "pyproject.toml", ".git"):
            (folder / path.name).symlink_to(path)
    try:
        return turns.collect(checkout.Side("own", old.commit, False, folder))
    except RequestError:
        return []
