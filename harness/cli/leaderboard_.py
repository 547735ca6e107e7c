"""``harness leaderboard``: the ranked tables of what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Format, Output, OutputDir, show
from harness.errors import RequestError, did_you_mean

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def leaderboard(
    task: Annotated[str | None, typer.Argument(help="One task; all by default.", show_default=False)] = None,
    more: Annotated[list[str] | None, typer.Argument(help="More tasks, with --across.", show_default=False)] = None,
    across: Annotated[bool, typer.Option("--across", help="Average ranks over the tasks, and how far apart they have to be.")] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Scores in slices: worst (subject), subject, clip, length, expression, au, a column of the samples.", show_default=False
        ),
    ] = None,
    least: Annotated[int, typer.Option(help="Frames that a subject must have to be the worst.")] = 30,
    figure: Annotated[Path | None, typer.Option(help="The ranks as a picture: FILE.svg and FILE.png.", show_default=False)] = None,
    output_dir: OutputDir = "outputs",
    format: Format = "table",
    output: Output = None,
) -> None:
    """Rank everything the store holds of a task. Different protocols, versions or data never share a table."""
    from harness import boards, reported
    from harness import output as outputs
    from harness.cli import sliced
    from harness.publish.tables import readable

    store = outputs.opened(output_dir).store
    known = sorted(set(boards.tested(store.records())["task"]))
    if not known:
        raise RequestError(f"no records in {store}", where="--output-dir", remedy="run a sweep first, or name another folder")
    if task is not None and task not in known:
        raise RequestError(f"no records of {task!r}", where=str(store), remedy=did_you_mean(task, known))
    if across:
        sliced.show_ranks(store, [*([task] if task else []), *(more or [])], figure=figure, format=format, output=output)
        return
    if more or figure is not None:
        raise RequestError(
            "several tasks and --figure go with --across", where="harness leaderboard", remedy="add --across, or name one task"
        )
    if by is not None:
        if task is None:
            raise RequestError("--by wants one task", where="harness leaderboard", remedy=f"name one of {', '.join(known)}")
        sliced.show_slices(store, task, by, least=least, cache=store.output / "cache", format=format, output=output)
        return
    for name in [task] if task else known:
        for board in boards.of_task(store, name):
            person = format in ("table", "markdown", "latex")
            show(readable(board.table) if person else board.table, format=format, output=output, title=board.title, notes=board.legend)
        elsewhere = reported.of_task(name)
        if elsewhere.height and output is None and format in ("table", "markdown", "latex"):  # a program's table holds ours only
            show(elsewhere, format=format, output=None, title=reported.HEADING)
