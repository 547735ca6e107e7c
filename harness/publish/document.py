"""What every page of HTML is made of: one shell, tables that sort, figures inline, one style and one script.

A page loads nothing from anywhere, is whole without its script (which sorts, filters, hides columns and shows what a point is), and is
the same bytes for the same input. All text goes through :func:`html.escape`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from harness.publish.tables import cell_text

if TYPE_CHECKING:
    import polars as pl

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The Content-Security-Policy of every page."""

INK, SOFT, LINE = "#1b1f24", "#57606a", "#d0d7de"
"""Colours of text and lines in figures; in a page they follow its theme."""


@dataclass(frozen=True)
class Html:
    """A cell that is markup already, and the text it sorts and is found by.

    Attributes:
        markup: Escaped by whoever made it.
        text: Plain.
    """

    markup: str
    text: str


def document(title: str, parts: Sequence[str], *, crumbs: Mapping[str, str] | None = None) -> str:
    """A whole page.

    Args:
        title: Plain.
        parts: Markup, one element each.
        crumbs: Where one came from: text → relative address.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    head += f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="color-scheme" content="light dark">'
    way = " › ".join(f'<a href="{escape(to)}">{escape(short(text))}</a>' for text, to in (crumbs or {}).items())
    body = "\n".join([*([f"<nav aria-label=Breadcrumb>{way}</nav>"] if way else []), *parts])
    content = f"<body><main>\n{body}\n</main>\n<script>{_SCRIPT}</script></body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}\n<style>{_STYLE}</style></head>\n{content}</html>\n'


def sortable(
    frame: pl.DataFrame,
    caption: str,
    *,
    muted: Sequence[bool] = (),
    marks: Sequence[str] = (),
    groups: Sequence[str] = (),
    breaks: Sequence[bool] = (),
    cells: Mapping[str, Sequence[Html]] | None = None,
    fit: bool = False,
) -> str:
    """A table whose headings are buttons that sort it.

    Args:
        frame: What is shown.
        caption: For who does not see it.
        muted: Rows that are controls.
        marks: A row each: the groups it is in, separated by blanks, by which rows are filtered.
        groups: The groups one may filter by; with any, the table has a tool bar.
        breaks: Rows that begin a ranking.
        cells: Columns of markup in the place of those of the frame.
        fit: As wide as it needs to be, not as wide as the page.
    """
    names = [name.rsplit(".", 1)[-1].replace("_", " ") for name in frame.columns]
    columns = [
        list(cells[name]) if cells and name in cells else [Html(escape(text), text) for text in map(cell_text, frame[name].to_list())]
        for name in frame.columns
    ]
    numeric = [all(_leading_number(cell.text) or not cell.text for cell in column) and any(c.text for c in column) for column in columns]
    head = "".join(
        f"<th scope=col{' class=n' if n else ''}><button type=button>{escape(name)}</button></th>"
        for name, n in zip(names, numeric, strict=True)
    )
    body = []
    for i, row in enumerate(zip(*columns, strict=True)):
        classes = ["control"] * bool(muted and muted[i]) + ["first"] * bool(breaks and breaks[i])
        told = f' class="{" ".join(classes)}"' if classes else ""
        told += f' data-in="{escape(marks[i])}"' if marks else ""
        line = "".join(f"<td{' class=n' if n else ''}>{cell.markup}</td>" for cell, n in zip(row, numeric, strict=True))
        body.append(f"<tr{told}>{line}</tr>\n")
    said = escape(caption)
    table = (
        f'<div class="wide{" fit" if fit else ""}" tabindex=0 role=region aria-label="{said}"><table><caption>{said}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody></table></div>"
    )
    return f"<div class=board>{_tools(groups)}{table}</div>" if groups else table


def _tools(groups: Sequence[str]) -> str:
    """What filters and hides; of no use without the script, and so shown by it."""
    boxes = "".join(f'<label><input type=checkbox value="{escape(name)}" checked> {escape(name)}</label>' for name in groups)
    return (
        "<div class=tools hidden><label>Find <input type=search autocomplete=off></label>"
        f"<fieldset class=groups><legend>Show</legend>{boxes}</fieldset>"
        "<details class=columns><summary>Columns</summary><div></div></details><output aria-live=polite></output></div>"
    )


def _leading_number(cell: str) -> bool:
    return re.match(r"[<+-]?\d", cell) is not None


def inline(svg: bytes, name: str) -> str:
    """An SVG document as an element of the page: without the XML prologue, as wide as there is room."""
    text = svg.decode()
    opening, rest = text[text.index("<svg") :].split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    role = "group" if 'class="point"' in rest else "img"
    return f'{opening} role="{role}" aria-label="{escape(name)}">{rest}'


def themed(svg: bytes, name: str) -> str:
    """The same, on the paper of the page: text and lines follow its theme, and it is no larger than half as large again as it was drawn."""
    width = re.search(rb'<svg[^>]* width="([0-9.]+)pt"', svg)
    most = f' style="max-width: {float(width[1]) * 1.9:.0f}px"' if width else ""
    text = inline(svg, name).replace("<svg", f"<svg class=themed{most}", 1)
    for colour, variable in (
        (INK, "--ink"),
        (SOFT, "--soft"),
        (LINE, "--line"),
        *((grey, "--soft") for grey in ("#4d4d4d", "#595959", "#666666")),
    ):
        text = text.replace(colour, f"var({variable})")
    return text


def described(svg: bytes, texts: Mapping[str, str]) -> bytes:
    """Points of a figure with what they are: seen when pointed at, and when reached by the keyboard.

    Args:
        svg: By matplotlib, artists with a ``gid``.
        texts: Gid → what it says.
    """
    text = svg.decode()
    for gid, said in texts.items():
        safe = escape(cell_text(said))
        marked = f'<g id="{gid}" class="point" tabindex="0" role="img" aria-label="{safe}"><title>{safe}</title>'
        text = text.replace(f'<g id="{gid}">', marked, 1)
    return text.encode()


def facts(rows: Mapping[str, object]) -> str:
    """Names and what they are, below each other; what is :class:`Html` stays as it is."""
    shown = {name: value.markup if isinstance(value, Html) else escape(cell_text(value)) for name, value in rows.items()}
    return "<dl>" + "".join(f"<dt>{escape(cell_text(name))}</dt><dd>{value}</dd>" for name, value in shown.items()) + "</dl>"


def folded(summary: str, content: str, *, open: bool = False) -> str:
    """What is shown when asked for."""
    return f"<details{' open' if open else ''}><summary>{escape(summary)}</summary>{content}</details>"


def badge(text: str, kind: str = "") -> str:
    """A short mark beside a name."""
    return f'<span class="badge {escape(kind)}">{escape(text)}</span>'


def short(text: str, most: int = 80) -> str:
    """A name that may be very long, cut where it no longer says anything.

    >>> short("a" * 90)[-3:]
    'aa…'
    """
    text = cell_text(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


_STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --paper: #fff; --tint: #f4f6f8; --warn: #7a4b00; --warn-paper: #fff4d6;
  --mark: #0072b2; --bad: #a3220e; --link: #0a5a93 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b1; --line: #363d46; --paper: #0f1318; --tint: #181d24; --warn: #ffd479; --warn-paper: #3a2c08;
    --mark: #56b4e9; --bad: #ff9d8a; --link: #7cc4f2 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem }
a { color: var(--link) }
nav { font-size: .85rem; color: var(--soft) }
.question { font-size: 1.1rem; color: var(--soft); margin: 0 0 1.25rem }
.soft { color: var(--soft); font-size: .85rem }
.banner { background: var(--warn-paper); color: var(--warn); padding: .6rem .9rem; border-radius: 6px; font-weight: 600 }
.wide.fit { width: fit-content; max-width: 100% }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
:is(.wide, button, summary, a, input, .point):focus-visible { outline: 2px solid #0072b2; outline-offset: 2px }
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
.fold { white-space: normal; min-width: min(27rem, 55vw) }
tr.control td { color: var(--soft); background: var(--tint) }
table:not(.sorted) tr.first:not(:first-child) td { border-top: 2px solid var(--soft) }
.name { display: inline-block; max-width: 22rem; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; white-space: nowrap }
.bar { display: block; width: 9rem; height: .8rem; margin: .1rem 0 0 auto; overflow: visible }
.bar line { stroke: var(--soft); stroke-width: 2 } .bar .level { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 3 2 }
.bar circle { fill: var(--mark) } tr.control .bar circle { fill: var(--soft) }
.badge { display: inline-block; font-size: .72rem; line-height: 1.3; padding: .05rem .4rem; border-radius: 1rem;
  border: 1px solid var(--line); color: var(--soft); background: var(--paper); white-space: nowrap }
.badge.stale, .badge.oracle, .badge.partial, .badge.failed { color: var(--warn); background: var(--warn-paper); border-color: currentColor }
.badge.submitted { color: var(--link); border-color: currentColor }
.tools { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center; font-size: .85rem; margin: .75rem 0 }
.tools[hidden] { display: none }
.tools fieldset { border: 0; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: .2rem .8rem }
.tools legend { float: left; padding: 0 .5rem 0 0; color: var(--soft) }
.tools input[type=search] { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: 6px;
  padding: .25rem .5rem; max-width: 60vw }
.columns div { display: flex; flex-wrap: wrap; gap: .2rem .8rem; padding: .3rem 0 }
.legend { color: var(--soft); font-size: .85rem; padding-left: 1.1rem }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; overflow-x: auto }
figure svg { display: block; width: 100%; min-width: 30rem; height: auto }
figure:has(.themed) { background: var(--paper) }
figcaption { color: var(--soft); font-size: .85rem; padding: .3rem .2rem 0 }
.point { cursor: help; outline-offset: 4px }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .6rem }
.panels svg { width: 100%; height: auto; display: block }
.panels polyline { fill: none; stroke: var(--mark); stroke-width: 1.4; opacity: .8 } .panels .val { stroke: #d55e00; stroke-dasharray: 4 2 }
.panels text { fill: var(--soft); font-size: 10px } .panels .head { fill: var(--ink); font-size: 11px; font-weight: 600 }
.panels path { stroke: var(--line); fill: none }
.tip { position: absolute; z-index: 2; max-width: min(22rem, 90vw); background: var(--ink); color: var(--paper); font-size: .8rem;
  padding: .3rem .6rem; border-radius: 6px; pointer-events: none; white-space: pre-line; overflow-wrap: anywhere }
.tip[hidden] { display: none }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem; overflow-x: auto;
  font-size: .85rem }
pre.wrap { white-space: pre-wrap }
summary { cursor: pointer }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .2rem 1rem; font-size: .85rem }
dt { color: var(--soft); max-width: 16rem } dd { margin: 0; min-width: 0 }
@media print {
  @page { size: landscape; margin: 1cm }
  table { font-size: 6.5pt } .bar { width: 5rem; height: .5rem } .badge { font-size: 6pt; padding: 0 .25rem }
  body { font-size: 9pt } .wide, figure { border: 0; overflow: visible } figure svg { min-width: 0 } .tools, nav, .tip { display: none }
  td, th button { padding: .1rem .25rem; white-space: normal; overflow-wrap: anywhere; min-width: 1.8rem }
  th button::after { content: "" } tr, figure { break-inside: avoid }
}
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, place = head.cellIndex, body = head.closest("table").tBodies[0];
  const ascending = head.ariaSort === "descending" || (head.ariaSort === null && !head.classList.contains("n"));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.ariaSort = ascending ? "ascending" : "descending";
  head.closest("table").classList.add("sorted");
  const key = row => row.cells[place].textContent.trim().replace("<", "");
  const compare = (a, b) => head.classList.contains("n") ? parseFloat(a) - parseFloat(b) : a.localeCompare(b, "en", { numeric: true });
  const rows = [...body.rows].sort((a, b) => {
    const left = key(a), right = key(b);
    if (!left || !right) return !left - !right;  // empty cells stay last either way
    return ascending ? compare(left, right) : compare(right, left);
  });
  body.append(...rows);
});
for (const board of document.querySelectorAll(".board")) {
  const tools = board.querySelector(".tools"), table = board.querySelector("table"), body = table.tBodies[0];
  const search = tools.querySelector("input[type=search]"), boxes = [...tools.querySelectorAll(".groups input")];
  const told = tools.querySelector("output"), columns = tools.querySelector(".columns div");
  const words_of = row => [...row.cells].flatMap(cell => cell.textContent.toLowerCase().split(/\\s+/));
  const texts = new Map([...body.rows].map(row => [row, words_of(row)]));
  // a number is looked for as a cell begins, so that 16 is no part of 0.160
  const has = (row, word) => texts.get(row).some(text => text.startsWith(word) || (isNaN(word) && text.includes(word)));
  const filter = () => {
    const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean), off = boxes.filter(box => !box.checked).map(box => box.value);
    let shown = 0;
    for (const row of body.rows) {
      const into = row.dataset.in.split(" ");
      row.hidden = !words.every(word => has(row, word)) || off.some(name => into.includes(name));
      shown += !row.hidden;
    }
    told.textContent = shown === body.rows.length ? `${shown} rows` : `${shown} of ${body.rows.length} rows`;
  };
  for (const head of table.tHead.rows[0].cells) {
    const label = document.createElement("label"), box = document.createElement("input"), place = head.cellIndex;
    box.type = "checkbox"; box.checked = true;
    box.addEventListener("change", () => { for (const row of table.rows) row.cells[place].hidden = !box.checked; });
    label.append(box, " " + head.textContent);
    columns.append(label);
  }
  search.addEventListener("input", filter);
  for (const box of boxes) box.addEventListener("change", filter);
  tools.hidden = false;
  filter();
}
const points = document.querySelectorAll(".point");
if (points.length) {
  const tip = document.createElement("div");
  tip.className = "tip"; tip.hidden = true;
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  for (const point of points) {
    point.querySelector("title")?.remove();  // else it would be shown twice
    const show = () => {
      const box = point.getBoundingClientRect();
      tip.textContent = point.getAttribute("aria-label"); tip.hidden = false;
      const left = Math.min(box.right + 8, innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${scrollX + Math.max(8, left)}px`;
      tip.style.top = `${scrollY + Math.max(8, box.top - tip.offsetHeight - 6)}px`;
    };
    for (const event of ["pointerenter", "focus"]) point.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) point.addEventListener(event, hide);
  }
  addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
}
"""
