"""``harness status``: where a sweep stands, or what a store holds."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import ConfigDir, Format, Output, Overrides, check_format, say, show
from harness.errors import RequestError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A sweep; without one, everything in the store.", show_default=False)] = None,
    overrides: Overrides = None,
    output_dir: Annotated[str | None, typer.Option(help="Whose store, a folder or a URL; outputs by default.", show_default=False)] = None,
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> int:
    """Done, running, pending, failed (why) and stale evaluations; exit status 1 where something failed."""
    check_format(format)
    import polars as pl

    from harness import output as outputs
    from harness import plan, sweep
    from harness.leaderboard import SUBMITTED

    if name is None:
        store = outputs.opened(output_dir or "outputs").store
        records = store.records()
        stale = sweep.stale_provenance(store, records["provenance"].unique())
        held = (
            records.with_columns(
                state=pl.when(pl.col("provenance").is_in(stale))
                .then(pl.lit("stale"))
                .when(pl.col("selection") == SUBMITTED)
                .then(pl.lit(SUBMITTED))
                .otherwise(pl.lit("done"))
            )
            .group_by("task", "protocol", "arm", "state")
            .agg(evaluations=pl.len())
            .sort("task", "protocol", "arm", "state")
        )
        show(held, format=format, output=output)
        failures = store.failures()
        for failed, failure in failures.items():
            say(f"failed: {', '.join(failure.get('arms', []))} ({failed}): {failure.get('error')}")
        return 1 if failures else 0
    if "=" in name:
        raise RequestError(f"{name!r} is no sweep", where="harness status", remedy="name the sweep first, or give --output-dir alone")
    given = [*(overrides or []), *([f"output_dir={output_dir}"] if output_dir else [])]
    prepared = sweep.prepare(plan.load_sweep(name, given, config_dir or []), command="", extra=config_dir or [], say=say)
    state = sweep.state(prepared)
    if format != "table":
        show(plan.flatten(state), format=format, output=output)
    else:
        fits = pl.col("fit").drop_nulls().n_unique()
        show(sweep.summary(state, fits), format=format, output=output, title=f"Sweep {name}")
    return 1 if sweep.failed(state).height else 0
