"""Options that several verbs share, and where a table goes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

FORMATS = ("table", "markdown", "csv", "json", "parquet", "latex")

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides.", show_default=False)]
ConfigDir = Annotated[
    list[Path] | None, typer.Option("--config-dir", help="A folder of your own task/, baseline/, sweep/ YAMLs.", show_default=False)
]
Format = Annotated[str, typer.Option("--format", "-f", help=f"{', '.join(FORMATS)}.")]
OutputDir = Annotated[str, typer.Option(help="Whose store: a folder, or a URL such as s3://bucket/lab.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write the table to a file.", show_default=False)]


def check_format(name: str) -> str:
    """The same name, if there is such a format."""
    if name not in FORMATS:
        raise RequestError(f"no format is called {name!r}", where=f"--format {name}", remedy=did_you_mean(name, FORMATS))
    return name


def show(frame: pl.DataFrame, *, format: str, output: Path | None, title: str | None = None, notes: tuple[str, ...] = ()) -> None:
    """Print a table, or write it to a file."""
    from harness.publish.tables import render

    emit(render(frame, check_format(format), title=title, notes=notes, width=_width(output)), output)


def show_rows(rows: list[dict[str, Any]], *, format: str, output: Path | None) -> None:
    """Print rows without importing what a small table does not need."""
    if check_format(format) in ("parquet", "latex"):
        import polars

        show(polars.DataFrame(rows), format=format, output=output)
        return
    from harness.publish.tables import render_rows

    emit(render_rows(rows, format, width=_width(output)), output)


def _width(output: Path | None) -> int | None:
    """Columns of the terminal a table is for; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if output is None and sys.stdout.isatty() else None


def emit(text: str | bytes, output: Path | None) -> None:
    """Write to a file by rename, or to the standard output."""
    data = text if isinstance(text, bytes) else (text.rstrip("\n") + "\n").encode()
    if output is not None:
        from harness.store import write_atomically

        write_atomically(output, data)
        say(f"written to {output}")
    else:
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # `harness list … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """A line for the person, not for the pipe."""
    print(line, file=sys.stderr, flush=True)
