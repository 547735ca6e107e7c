"""``harness sweep NAME``: the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.experiment import OnError, carry_out
from harness.cli.options import ConfigDir, Format, Output, Overrides

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="A sweep; see `harness list sweeps`.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and what it would cost; run nothing.")] = False,
    on_error: OnError = "continue",
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> None:
    """Plan a sweep, run what is missing, print the table.

    An axis of the sweep takes several values (seed=0,1,2), arms=a,b keeps some arms, scale=NAME chooses its size.
    """
    carry_out(name, overrides or [], extra=config_dir or [], dry_run=dry_run, format=format, output=output, on_error=on_error)
