"""``harness perf``: speed measured, compared with a git revision, and its history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Format, Output, check_format, say, show
from harness.errors import RequestError

if TYPE_CHECKING:
    from harness.perf.comparing import Comparison

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Only = Annotated[
    list[str] | None, typer.Option("--only", help="Benchmarks whose name has this in it; may be repeated.", show_default=False)
]
History = Annotated[Path, typer.Option("--history", help="Where measurements are kept.")]


@app.callback()
def perf() -> None:
    """Speed over time, of the checkout in the working directory (docs/speed.md)."""


@app.command()
def run(
    only: Only = None,
    quick: Annotated[bool, typer.Option("--quick", help="At a tenth of the size or less; not held against budgets.")] = False,
    accuracy: Annotated[
        Path | None, typer.Option(help="Keep the scores of the store in this folder, too; by default outputs, if it is of this revision.")
    ] = None,
    history: History = Path("results/perf"),
    format: Format = "table",
    output: Output = None,
) -> int:
    """Measure the suite; keep it under the machine and the revision; print it beside its budgets."""
    check_format(format)
    from harness.perf import checkout, suite, tables

    repository = checkout.root()
    measured = suite.run(repository, only or [], quick=quick, accuracy=accuracy, folder=repository / history, say=say)
    show(tables.of_run(measured.kept, measured.names), format=format, output=output, title=f"{measured.kept.label}", notes=measured.notes)
    return 1 if measured.failed else 0


@app.command()
def compare(
    revision: Annotated[str, typer.Argument(metavar="REV", help="A commit, branch or tag: the old side. The new one is the working tree.")],
    threshold: Annotated[float, typer.Option(min=0.5, max=500, help="Percent by which something must surely be slower.")] = 5.0,
    least: Annotated[float, typer.Option(min=0, help="Milliseconds a call by which it must be slower, too.")] = 0.5,
    only: Only = None,
    rounds: Annotated[int, typer.Option(min=3, max=50, help="Pairs of processes that everything is screened in.")] = 5,
    full: Annotated[bool, typer.Option("--full", help="At the size of the budgets; hours.")] = False,
    history: History = Path("results/perf"),
    format: Format = "table",
    output: Output = None,
) -> int:
    """Say whether the working tree is slower than a revision: both measured in turns; exit status 1 if anything is."""
    check_format(format)
    from harness.perf import checkout, tables, verdict
    from harness.perf.comparing import compare as measure

    repository = checkout.root()
    rule = verdict.Rule(threshold=threshold / 100, least=least / 1000, screen=rounds)
    found = measure(revision, only=only or [], rule=rule, size="full" if full else "modest", repository=repository, say=_say)
    changes = _changes(repository, revision, history)
    show(tables.of_comparison(found), format=format, output=output, title=f"{found.new} against {found.old}", notes=_notes(found))
    return _tell(found, changes, threshold)


@app.command()
def report(
    to: Annotated[Path | None, typer.Option(help="A folder for the page speed.html.", show_default=False)] = None,
    only: Only = None,
    history: History = Path("results/perf"),
    format: Format = "table",
    output: Output = None,
) -> None:
    """The history of every benchmark on every machine, with the revisions at which it stepped, and of the scores."""
    check_format(format)
    from harness.perf import checkout, tables
    from harness.perf.history import read
    from harness.perf.steps import series_of

    repository = checkout.root()
    kept, notes = read(repository / history, repository)
    if not kept:
        raise RequestError(f"nothing was measured in {history}", where="--history", remedy="run `harness perf run` first")
    series = series_of(kept, only or [])
    if to is not None:
        from harness.publish import folder, speed

        changed = folder.replace(to, speed.files(kept, series, notes))
        say(f"{to}: {len(changed.written)} files written, {changed.same} as they were")
    show(tables.of_series(series), format=format, output=output, title="Speed", notes=tuple(notes))


def _say(line: str) -> None:
    say(line.replace("tests/perf/", ""))


def _notes(found: Comparison) -> tuple[str, ...]:
    from harness.perf.turns import short

    memory = [f"memory of {short(name)}: {old:.0f} MiB → {new:.0f} MiB" for name, (old, new) in found.memory.items()]
    return (*found.notes, *memory)


def _changes(repository: Path, revision: str, history: Path) -> list[str]:
    """Scores that changed though no version did, as far as both revisions' scores are kept."""
    from harness.perf import checkout
    from harness.perf.accuracy import changed
    from harness.perf.history import read

    kept, _ = read(repository / history, repository)
    old, new = checkout.resolve(repository, revision), checkout.resolve(repository, "HEAD")
    return changed(kept, old, new)


def _tell(found: Comparison, changes: list[str], threshold: float) -> int:
    from harness.perf.turns import short

    for name, reason in found.appeared.items():
        say(f"appeared: {short(name)}" + (f" (old side: {reason})" if reason else ""))
    for name in found.vanished:
        say(f"vanished: {short(name)}")
    for name, reason in found.broken.items():
        say(f"broken: {short(name)}: {reason or 'it did not run'}")
    for finding in found.of("faster"):
        say(f"faster: {short(finding.benchmark)}, {finding.quantity}: {finding.ratio:.3f} [{finding.lo:.3f}, {finding.hi:.3f}]")
    for line in changes:
        say(f"changed: {line}")
    slower = found.of("slower")
    for finding in slower:
        line = f"slower: {short(finding.benchmark)}, {finding.quantity}: {finding.ratio:.3f} [{finding.lo:.3f}, {finding.hi:.3f}]"
        say(f"{line}, {(finding.new - finding.old) * 1000:+.1f} ms a call")
    measured = len({finding.benchmark for finding in found.findings})
    say(f"{measured} benchmarks measured; {len({f.benchmark for f in slower}) or 'none'} slower by more than {threshold:g} %")
    sys.stderr.flush()
    return 1 if slower or changes or found.broken else 0
