"""``harness status``: where a sweep stands, or what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import ConfigDir, Format, Output, Overrides, say, show

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A sweep; without one, everything in the store.", show_default=False)] = None,
    overrides: Overrides = None,
    output_dir: Annotated[Path, typer.Option(help="Whose store, where no sweep is named.")] = Path("outputs"),
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> int:
    """Done, running, pending, failed (why) and stale evaluations; exit status 1 where something failed."""
    import polars as pl

    from harness import plan, sweep
    from harness.store import Store

    if name is None:
        store = Store(output_dir / "store")
        records = store.records()
        stale = sweep.stale_provenance(store, records["provenance"].unique())
        held = (
            records.with_columns(state=pl.when(pl.col("provenance").is_in(stale)).then(pl.lit("stale")).otherwise(pl.lit("done")))
            .group_by("task", "protocol", "arm", "state")
            .agg(evaluations=pl.len())
            .sort("task", "protocol", "arm", "state")
        )
        show(held, format=format, output=output)
        failures = store.failures()
        for failed, failure in failures.items():
            say(f"failed: {', '.join(failure.get('arms', []))} ({failed}): {failure.get('error')}")
        return 1 if failures else 0
    prepared = sweep.prepare(plan.load_sweep(name, overrides or [], config_dir or []), command="", extra=config_dir or [], say=say)
    state = sweep.state(prepared)
    if format != "table":
        show(plan.flatten(state), format=format, output=output)
    else:
        summary = state.group_by("arm", "state", "why", maintain_order=True).agg(evaluations=pl.len(), fits=pl.col("fit").n_unique())
        show(summary.select("arm", "state", "evaluations", "fits", "why"), format=format, output=output, title=f"Sweep {name}")
    return 1 if (state["state"] == "failed").any() else 0
