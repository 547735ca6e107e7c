"""``harness compare``: two of anything in a store, on the same subjects."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Format, Output, OutputDir, check_format, say, show

if TYPE_CHECKING:
    import polars as pl

    from harness.comparison import Comparison

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_MOST = 5
_WHAT = "A baseline, an arm, an evaluation or a fit (or how its name begins); narrowed by @KEY=VALUE[,KEY=VALUE]."


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_WHAT)],
    b: Annotated[str, typer.Argument(metavar="B", help="The other.")],
    task: Annotated[str, typer.Option(help="Of which task.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="May be repeated; the first is that of subjects and clips.", show_default=False)
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="The difference in slices, too: length, a column of the samples …", show_default=False)
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="A picture, subject by subject: FILE.svg and FILE.png.", show_default=False)] = None,
    output_dir: OutputDir = "outputs",
    format: Format = "table",
    output: Output = None,
) -> None:
    """How far A is above B, metric by metric, with paired intervals and p; and where they differ most.

    KEY is a setting (support.size=4), version, seed, fold, selection, protocol, fit, or git (how a commit begins): mt_clar@git=abc123.
    """
    check_format(format)
    from harness import comparison, slices
    from harness import output as outputs
    from harness.publish.tables import render

    store = outputs.opened(output_dir).store
    found = comparison.compare(store, a, b, task=task, metrics=metric or ())
    person = format in ("table", "markdown", "latex")
    tables = {f"where {name} differ most ({found.primary})": _most(getattr(found, name), person) for name in ("subjects", "clips")}
    if by is not None:
        cut = slices.cut(store, [*found.a.evaluations, *found.b.evaluations], by, found.primary, cache=store.output / "cache")
        tables[f"by {by}"] = slices.differences(cut, found.a.evaluations, found.b.evaluations)
    title = f"{found.a.name} against {found.b.name} on {task}"
    if not person:
        show(tables[f"by {by}"] if by else found.metrics, format=format, output=output)
    elif output is not None:
        show(_readable(found), format=format, output=output, title=title, notes=_notes(found))
    else:
        show(_readable(found), format=format, output=None, title=title, notes=_notes(found))
        for name, frame in tables.items():
            sys.stdout.write("\n" + str(render(frame, format, title=name)))
    if figure is not None:
        _draw(found, figure)


def _readable(found: Comparison) -> pl.DataFrame:
    import polars as pl

    from harness.publish.tables import number, p_value, with_interval

    rows = [
        {"metric": row["metric"]}
        | {side: "undefined" if row[side] is None else number(row[side]) for side in ("a", "b")}
        | {"a - b": with_interval(row["difference"], row["lo"], row["hi"], sign=True), "p": p_value(row["p"])}
        | {"better": "undefined" if row["better"] is None else row["better"] or "cannot be told"}
        for row in found.metrics.to_dicts()
    ]
    return pl.DataFrame(rows).rename({"a": f"A {found.a.name}", "b": f"B {found.b.name}"})


def _notes(found: Comparison) -> tuple[str, ...]:
    n = found.subjects.height
    return (
        "a - b: of the metric, whatever its direction; in brackets its 95 % interval, paired, by bootstrap over subjects. "
        "p: swaps of the two inside subjects, with Holm's correction over the metrics shown.",
        f"{found.a.records.height} and {found.b.records.height} evaluations; {n} subjects where {found.primary} is defined for both.",
        *found.notes,
    )


def _most(places: pl.DataFrame, person: bool) -> pl.DataFrame:
    alone = places["fold"].n_unique() <= 1 and person
    return places.head(_MOST).drop("fold") if alone else places.head(_MOST)


def _draw(found: Comparison, figure: Path) -> None:
    from harness.metrics import higher_is_better
    from harness.publish.difference import by_subject
    from harness.store import write_atomically

    overall = found.metrics.filter(metric=found.primary).select(*(("difference", "lo", "hi"))).fill_null(float("nan")).row(0)
    drawn = by_subject(
        found.subjects,
        a=found.a.name,
        b=found.b.name,
        metric=found.primary,
        overall=overall,
        better="higher" if higher_is_better(found.primary) else "lower",
        note=found.notes[0],
    )
    for kind, data in drawn.items():
        path = figure.with_suffix(f".{kind}")
        write_atomically(path, data)
        say(f"written: {path}")
