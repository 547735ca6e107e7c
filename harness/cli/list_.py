"""``harness list``: names and one line each; of the store, what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import config
from harness.cli.options import ConfigDir, Format, Output, OutputDir, check_format, show, show_rows
from harness.errors import RequestError, did_you_mean

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
GROUPS = {"tasks": "task", "baselines": "baseline", "sweeps": "sweep", "datasets": "dataset"}
KINDS = (*GROUPS, "fits", "evaluations")


def names(kind: str, extra: Sequence[Path] = (), format: str = "table", output: Path | None = None) -> None:
    """Names of a config group with a line of description each."""
    found = config.available(GROUPS[kind], extra)
    show_rows([{"name": name, "description": text} for name, text in found.items()], format=format, output=output)


@app.command()
def list_(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))],
    output_dir: OutputDir = "outputs",
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> None:
    """List tasks, baselines, sweeps, datasets, fits or evaluations (with the path of their predictions)."""
    check_format(format)
    if kind in GROUPS:
        names(kind, config_dir or (), format, output)
        return
    if kind not in KINDS:
        raise RequestError(f"nothing is called {kind!r}", where="harness list", remedy=did_you_mean(kind, KINDS))
    from harness import output as outputs

    store = outputs.opened(output_dir).store
    if kind == "fits":
        facts = ("fit", "stage", "task", "fold", "seed", "epochs", "selection", "seconds", "world_size", "written")
        rows: list[dict[str, Any]] = [{name: known.get(name) for name in facts} for known in store.fits()]
        show_rows(rows, format=format, output=output)
        return
    records = store.records()
    shown = ("evaluation", "task", "arm", "fold", "seed", "setting", "score", "predictions")
    show(records.select(shown), format=format, output=output)
