"""One static page of a leaderboard: the question, the table, the curve, and what one must know to believe them.

The page is one file, loads nothing from anywhere, works without its script (which only sorts), and is the same bytes for the same input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from harness.publish.document import document, inline, sortable
from harness.publish.tables import legend, readable

if TYPE_CHECKING:
    import polars as pl


def page(
    table: pl.DataFrame,
    *,
    title: str,
    question: str,
    primary: str,
    command: str,
    synthetic: bool,
    figures: Mapping[str, bytes] | None = None,
    tables: Mapping[str, pl.DataFrame] | None = None,
    notes: Sequence[str] = (),
    provenance: Mapping[str, object] | None = None,
) -> str:
    """A page as HTML.

    Args:
        table: What ``harness.leaderboard.leaderboard`` returned.
        title: Of the sweep or task.
        question: What it answers, in a sentence.
        primary: The metric that ranks.
        command: What one types to make the same table.
        synthetic: Says so above everything where the data are made up.
        figures: SVGs, by their headings.
        tables: More tables, by their headings.
        notes: Protocol, dataset, licence, what the columns of the tables mean: a paragraph each.
        provenance: Commit, versions, hardware: name → value.
    """
    parts = [f"<h1>{escape(title)}</h1>", f"<p class=question>{escape(question)}</p>"]
    if synthetic:
        parts.append(f"<p class=banner role=note>{SYNTHETIC}</p>")
    parts.append(sortable(readable(table), "Leaderboard", muted=table["control"].to_list()))
    parts.append("<ul class=legend>" + "".join(f"<li>{escape(line)}</li>" for line in legend(table, primary=primary)) + "</ul>")
    for name, svg in (figures or {}).items():
        parts.append(f"<h2>{escape(name)}</h2><figure>{inline(svg, name)}</figure>")
    for name, more in (tables or {}).items():
        heading = name[:1].upper() + name[1:]
        parts.append(f"<h2>{escape(heading)}</h2>{sortable(more, heading)}")
    parts += ["<h2>How this was made</h2>", *(f"<p>{escape(note)}</p>" for note in notes)]
    parts.append(f"<p>The same table again:</p><pre><code>{escape(command)}</code></pre>")
    if provenance:
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in provenance.items())
        parts.append(f"<details><summary>Provenance</summary><dl>{rows}</dl></details>")
    return document(title, parts)


SYNTHETIC = "Synthetic data: these numbers say how the benchmark works, not how well a method labels real faces."
"""Said above everything where the data are made up."""
