"""``harness leaderboard``: the ranked tables of what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Format, Output, show
from harness.errors import RequestError, did_you_mean

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def leaderboard(
    task: Annotated[str | None, typer.Argument(help="One task; all by default.", show_default=False)] = None,
    output_dir: Annotated[Path, typer.Option(help="Whose store.")] = Path("outputs"),
    format: Format = "table",
    output: Output = None,
) -> None:
    """Rank everything the store holds of a task. Different protocols, versions or data never share a table."""
    from harness import boards, reported
    from harness.publish.tables import readable
    from harness.store import Store

    store = Store(output_dir / "store")
    known = sorted(set(boards.tested(store.records())["task"]))
    if not known:
        raise RequestError(f"no records in {store.root}", where="--output-dir", remedy="run a sweep first, or name another folder")
    if task is not None and task not in known:
        raise RequestError(f"no records of {task!r}", where=str(store.root), remedy=did_you_mean(task, known))
    for name in [task] if task else known:
        for board in boards.of_task(store, name):
            person = format in ("table", "markdown", "latex")
            show(readable(board.table) if person else board.table, format=format, output=output, title=board.title, notes=board.legend)
        elsewhere = reported.of_task(name)
        if elsewhere.height and output is None and format in ("table", "markdown", "latex"):  # a program's table holds ours only
            show(elsewhere, format=format, output=None, title=reported.HEADING)
