"""``harness publish``: what a store holds as a static site, as files for a repository, and as a run of W&B."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import ConfigDir, OutputDir, say
from harness.errors import RequestError

if TYPE_CHECKING:
    from harness.publish.folder import Changed

LISTED = 12
"""Files that are named; more are counted."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def publish(
    to: Annotated[Path | None, typer.Option(help="A folder for the site; it can be put on any static host.", show_default=False)] = None,
    results: Annotated[
        Path | None, typer.Option(help="A folder for Markdown, Parquet, LaTeX, SVG and PDF, a table each.", show_default=False)
    ] = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="Mirror tables and figures as one run of W&B, offline.")] = False,
    online: Annotated[bool, typer.Option("--online", help="With --wandb: send it now.")] = False,
    output_dir: OutputDir = "outputs",
    rows: Annotated[int, typer.Option(min=0, help="Rows of a table that have a page of their own.")] = 400,
    speed: Annotated[Path, typer.Option(help="Where `harness perf run` keeps what it measured; a page of it, if there is any.")] = Path(
        "results/perf"
    ),
    config_dir: ConfigDir = None,
) -> None:
    """Publish the leaderboards of a store. Only what changed is written, only what was published before is removed.

    At least one of --to, --results and --wandb.
    """
    from harness import output as outputs

    if to is None and results is None and not wandb:
        raise RequestError("nowhere to publish to", where="harness publish", remedy="give --to DIR, --results DIR or --wandb")
    if online and not wandb:
        raise RequestError("only W&B can be online", where="--online", remedy="give --wandb, too")
    opened = outputs.opened(output_dir)
    if not (opened.look("sweeps").parent / "store").is_dir() and opened.copy is None:
        raise RequestError(f"no store in {output_dir}", where="--output-dir", remedy="run a sweep first, or name another folder")
    from harness import config
    from harness.publish import folder, inventory, site
    from harness.publish import results as tables

    extra = config_dir or []
    config.use(extra)
    shelf = inventory.read(output_dir)
    if to is not None:
        _tell(to, folder.replace(to, site.pages(shelf, opened.folder, extra=extra, most=rows, more=_speed(speed))))
    if results is not None or wandb:
        commands = [(sweep.task, sweep.command) for sweep in site.sweeps(opened.folder) if sweep.command]
        files = tables.files(shelf, commands)
        if results is not None:
            _tell(results, folder.replace(results, files))
        if wandb:
            from harness import tracking

            tracker = config.compose([f"tracker={'online' if online else 'offline'}"], extra)["tracker"]
            boards = {standing.name: standing.table.to_dicts() for standing in shelf.standings}
            drawn = {f"{table.name}/{name}": data for table in shelf.standings for name, data in tables.pictures(table).items()}
            tracking.publish(tracker, opened.store, boards, files, drawn)
            say(f"mirrored: {len(boards)} tables, {'sent' if online else f'in {output_dir}/wandb; `wandb sync` sends them'}")


def _speed(history: Path) -> dict[str, bytes]:
    """The page of speed, where anything was measured."""
    from harness.perf.history import read

    kept, notes = read(history, Path.cwd())
    if not kept:
        return {}
    from harness.perf.steps import series_of
    from harness.publish.speed import files

    return files(kept, series_of(kept), notes)


def _tell(where: Path, changed: Changed) -> None:
    for name in (*changed.written, *changed.removed)[:LISTED]:
        say(f"{'removed' if name in changed.removed else 'written'}: {where / name}")
    say(f"{where}: {len(changed.written)} files written, {changed.same} as they were, {len(changed.removed)} removed")
