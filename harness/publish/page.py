"""One static page of a leaderboard: the question, the table, the curve, and what one must know to believe them.

The page is one file, loads nothing from anywhere, works without its script (which only sorts), and is the same bytes for the same input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from harness.publish.tables import cell_text, legend, readable

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
        parts.append(f"<p class=banner role=note>{_SYNTHETIC}</p>")
    parts.append(_table(readable(table), "Leaderboard", muted=table["control"].to_list()))
    parts.append("<ul class=legend>" + "".join(f"<li>{escape(line)}</li>" for line in legend(table, primary=primary)) + "</ul>")
    for name, svg in (figures or {}).items():
        parts.append(f"<h2>{escape(name)}</h2><figure>{_inline(svg, name)}</figure>")
    for name, more in (tables or {}).items():
        heading = name[:1].upper() + name[1:]
        parts.append(f"<h2>{escape(heading)}</h2>{_table(more, heading)}")
    parts += ["<h2>How this was made</h2>", *(f"<p>{escape(note)}</p>" for note in notes)]
    parts.append(f"<p>The same table again:</p><pre><code>{escape(command)}</code></pre>")
    if provenance:
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in provenance.items())
        parts.append(f"<details><summary>Provenance</summary><dl>{rows}</dl></details>")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    head += f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="color-scheme" content="light dark">'
    body = "\n".join(parts)
    content = f"<body><main>\n{body}\n</main>\n<script>{_SCRIPT}</script></body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}\n<style>{_STYLE}</style></head>\n{content}</html>\n'


def _table(frame: pl.DataFrame, caption: str, *, muted: Sequence[bool] = ()) -> str:
    """A table whose headings are buttons that sort it; ``muted`` rows are the controls."""
    columns = {name.rsplit(".", 1)[-1].replace("_", " "): [cell_text(value) for value in frame[name].to_list()] for name in frame.columns}
    numeric = [all(_leading_number(cell) or not cell for cell in cells) and any(cells) for cells in columns.values()]
    head = "".join(
        f"<th scope=col{' class=n' if n else ''}><button type=button>{escape(name)}</button></th>"
        for name, n in zip(columns, numeric, strict=True)
    )
    body = ""
    for i, row in enumerate(zip(*columns.values(), strict=True)):
        cells = "".join(f"<td{' class=n' if n else ''}>{escape(cell)}</td>" for cell, n in zip(row, numeric, strict=True))
        body += f"<tr{' class=control' if muted and muted[i] else ''}>{cells}</tr>\n"
    return (
        f'<div class=wide tabindex=0 role=region aria-label="{escape(caption)}"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def _leading_number(cell: str) -> bool:
    return re.match(r"[<+-]?\d", cell) is not None


def _inline(svg: bytes, name: str) -> str:
    """An SVG document as an element of the page: without the XML prologue, as wide as there is room."""
    text = svg.decode()
    opening, rest = text[text.index("<svg") :].split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escape(name)}">{rest}'


_SYNTHETIC = "Synthetic data: these numbers say how the benchmark works, not how well a method labels real faces."

_STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --paper: #fff; --tint: #f4f6f8; --warn: #7a4b00; --warn-paper: #fff4d6 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b1; --line: #363d46; --paper: #0f1318; --tint: #181d24; --warn: #ffd479; --warn-paper: #3a2c08 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
.question { font-size: 1.1rem; color: var(--soft); margin: 0 0 1.25rem }
.banner { background: var(--warn-paper); color: var(--warn); padding: .6rem .9rem; border-radius: 6px; font-weight: 600 }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
.wide:focus-visible, button:focus-visible, summary:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
th, td { padding: .35rem .55rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
tbody tr:last-child td { border-bottom: 0 }
thead th { background: var(--tint); padding: 0 }
th button { all: unset; box-sizing: border-box; width: 100%; padding: .4rem .55rem; cursor: pointer; font-weight: 600 }
th.n button { text-align: right }
th button::after { content: "\\2195" / ""; opacity: .35; padding-left: .25em; font-size: .8em }
th[aria-sort=ascending] button::after { content: "\\2191" / ""; opacity: 1 }
th[aria-sort=descending] button::after { content: "\\2193" / ""; opacity: 1 }
td.n { text-align: right }
tr.control td { color: var(--soft); background: var(--tint) }
.legend { color: var(--soft); font-size: .85rem; padding-left: 1.1rem }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; overflow-x: auto }
figure svg { display: block; width: 100%; min-width: 30rem; height: auto }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem; overflow-x: auto }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .2rem 1rem; font-size: .85rem }
dt { color: var(--soft) } dd { margin: 0 }
@media print {
  body { font-size: 9pt } .wide, figure { border: 0; overflow: visible } figure svg { min-width: 0 }
  td, th button { padding: .15rem .35rem; white-space: normal } th button::after { content: "" }
}
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, place = head.cellIndex, body = head.closest("table").tBodies[0];
  const ascending = head.ariaSort === "descending" || (head.ariaSort === null && !head.classList.contains("n"));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.ariaSort = ascending ? "ascending" : "descending";
  const key = row => row.cells[place].textContent.trim().replace("<", "");
  const compare = (a, b) => head.classList.contains("n") ? parseFloat(a) - parseFloat(b) : a.localeCompare(b, "en", { numeric: true });
  const rows = [...body.rows].sort((a, b) => {
    const left = key(a), right = key(b);
    if (!left || !right) return !left - !right;  // empty cells stay last either way
    return ascending ? compare(left, right) : compare(right, left);
  });
  body.append(...rows);
});
"""
