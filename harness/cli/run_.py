"""``harness run``: one baseline on one task, by its whole protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.experiment import OnError, carry_out
from harness.cli.options import ConfigDir, Format, Output, Overrides

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def run(
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and what it would cost; run nothing.")] = False,
    on_error: OnError = "continue",
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> None:
    """One baseline on all folds of one task, with your overrides (baseline=…, task=…, task.root=…, fold=0, seed=0,1,2 …)."""
    carry_out(None, overrides or [], extra=config_dir or [], dry_run=dry_run, format=format, output=output, on_error=on_error)
