"""Tables for a repository and a paper: Markdown, Parquet and LaTeX in a stable order, figures as SVG and PDF.

What a rerun changes although nothing changed (times, memory) is in the figure of costs alone, so that a diff shows what did.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import polars as pl

from harness.publish import plots
from harness.publish.inventory import Shelf, Standing
from harness.publish.page import SYNTHETIC
from harness.publish.row_page import marked
from harness.publish.tables import cell_text, legend, readable, render

FIGURES = {"score_over_labels": plots.over_labels, "score_against_cost": plots.against_cost}
"""Of every table that has what they show, by the names of their files."""

_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
    "·": r"$\cdot$",
}


def files(shelf: Shelf, commands: Sequence[tuple[str, str]] = ()) -> dict[str, bytes]:
    """``TASK-HASH/table.md``, ``.parquet``, ``.tex`` and figures, a folder a table.

    Args:
        shelf: Of the store.
        commands: Task, and a command that made a part of its table.
    """
    out: dict[str, bytes] = {}
    for standing in shelf.standings:
        made = [command for task, command in commands if task == standing.same["task"]]
        out |= {f"{standing.name}/{name}": data for name, data in of_table(standing, made).items()}
    return out


def pictures(standing: Standing) -> dict[str, bytes]:
    """The figures of one table as PNG, by name."""
    drawn = {name: draw(standing, kinds=("png",), on_page=False) for name, draw in FIGURES.items()}
    return {name: figure["png"] for name, figure in drawn.items() if figure}


def of_table(standing: Standing, commands: Sequence[str] = ()) -> dict[str, bytes]:
    """The files of one table, by name."""
    shown = readable(standing.table).drop("note", strict=False)
    marks = [marked(row, brief=True).text for row in standing.rows]
    shown = shown.with_columns(pl.Series("marks", marks)) if any(marks) else shown
    notes = [*([SYNTHETIC] if standing.same["synthetic"] else []), *legend(standing.table, primary=standing.primary), *standing.notes]
    text = str(render(shown, "markdown", title=standing.title, notes=notes))
    text += "".join(f"\n    {cell_text(command)}\n" for command in commands)
    buffer = io.BytesIO()
    standing.table.with_columns(pl.Series("marks", [" ".join(row.marks) for row in standing.rows])).write_parquet(buffer)
    made = {"table.md": text.encode(), "table.parquet": buffer.getvalue(), "table.tex": latex(standing, shown, notes).encode()}
    for name, draw in FIGURES.items():
        figure = draw(standing, kinds=("svg", "pdf"), on_page=False)
        made |= {f"{name}.{kind}": data for kind, data in (figure or {}).items()}
    return made


def latex(standing: Standing, shown: pl.DataFrame, notes: Sequence[str]) -> str:
    """A booktabs table: leaders in bold, ``=`` where a row cannot be told from its leader, a rule between rankings."""
    numeric = [all(re.match(r"[<+-]?\d", cell) or not cell for cell in shown[name]) for name in shown.columns]
    firsts = {rows[0].name for _, rows in standing.rankings}
    lines = [f"% {cell_text(note)}" for note in (standing.title, *notes)]
    lines += [
        r"\begin{tabular}{" + "".join("r" if n else "l" for n in numeric) + "}",
        r"\toprule",
        " & ".join(_escaped(name.replace("_", " ")) for name in shown.columns) + r" \\",
        r"\midrule",
    ]
    for place, (row, cells) in enumerate(zip(standing.rows, shown.rows(), strict=True)):
        if place and row.name in firsts:
            lines.append(r"\addlinespace")
        leads = row.facts["rank"] == 1
        texts = [_escaped(cell) for cell in cells]
        lines.append(" & ".join(rf"\textbf{{{text}}}" if leads and text else text for text in texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: object) -> str:
    return "".join(_LATEX.get(c, c) for c in cell_text(text))
