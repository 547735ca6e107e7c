"""The page of one table: ranked, with intervals in its cells, curves, what failed, and what may not be compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from harness.config import leaves
from harness.publish import plots
from harness.publish.document import Html, badge, document, facts, folded, short, sortable, themed
from harness.publish.inventory import Row, Standing
from harness.publish.page import SYNTHETIC
from harness.publish.row_page import linked, marked
from harness.publish.tables import cell_text, legend, readable
from harness.reported import HEADING

GROUPS = ("methods", "controls", "submitted", "stale", "partial", "failed", "oracle")


def page(
    standing: Standing,
    *,
    linked_rows: Mapping[str, str],
    others: Sequence[tuple[Standing, str]],
    sweeps: Mapping[str, tuple[str, str]],
    reported: str = "",
) -> str:
    """A table's page.

    Args:
        standing: The table.
        linked_rows: Row → address of its page; rows without one have no link.
        others: Other tables of the same task, and their addresses.
        sweeps: Title of a sweep on the task → address and command.
        reported: The block of numbers from papers.
    """
    same = standing.same
    parts = [f"<h1>{escape(short(standing.title, 160))}</h1>"]
    parts.append(f"<p class=question>{escape(short(standing.notes[0], 300))}</p>")
    if same["synthetic"]:
        parts.append(f"<p class=banner role=note>{SYNTHETIC}</p>")
    parts.append(board(standing, linked_rows))
    told = [*legend(standing.table, primary=standing.primary)]
    told.append("In the cells: the interval on one scale for all rows; dashed: the best control at the same setting.")
    if len(linked_rows) < len(standing.rows):
        told.append(f"{len(linked_rows)} of {len(standing.rows)} rows have a page of their own: the best, and the controls.")
    parts.append("<ul class=legend>" + "".join(f"<li>{escape(line)}</li>" for line in told) + "</ul>")
    if curve := plots.over_labels(standing, kinds=("svg",), on_page=True):
        parts.append(
            _figure(
                "Score over labelled frames",
                curve["svg"],
                "Bands are 95 % intervals; the controls are dashed. Point at a mark, or tab to it, to read it.",
            )
        )
    if cost := plots.against_cost(standing, kinds=("svg",), on_page=True):
        told_of = (
            "Wall time, of a machine that may have trained others beside. What is not fitted has no point; the line is the best control."
        )
        parts.append(_figure("Score against cost", cost["svg"], told_of))
    parts.append(_failures(standing.failures))
    parts.append(reported)
    if others:
        parts.append(_others(standing, others))
    parts.append("<h2>How this was made</h2>")
    parts += [f"<p>{escape(note)}</p>" for note in standing.notes]
    for title, (address, command) in sweeps.items():
        code = f"<pre class=wrap><code>{escape(command)}</code></pre>" if command else ""
        parts.append(f'<p>Sweep <a href="{escape(address)}">{escape(short(title))}</a></p>{code}')
    dataset = standing.task.get("dataset") or {}
    known = {
        "dataset": dataset.get("title") or same["dataset"],
        "licence": dataset.get("licence"),
        "citation": dataset.get("citation"),
        "protocol": same["protocol"],
        "task version": same["task_version"],
        "fingerprint of the data": same["data"],
        "primary metric": standing.primary,
    }
    parts.append(folded("The task", facts({name: value for name, value in known.items() if value is not None})))
    return document(short(standing.title), list(filter(None, parts)), crumbs={"All leaderboards": "../index.html"})


def board(standing: Standing, linked_rows: Mapping[str, str]) -> str:
    """The ranked table."""
    shown = readable(standing.table).drop("note", strict=False)
    costs = [plots.cost_of(row) for row in standing.rows]
    if any(cost["fit s"] for cost in costs):
        shown = shown.with_columns(pl.Series("fit s", [f"{cost['fit s']:.3g}" if cost["fit s"] else "" for cost in costs]))
    if any(cost["GPU s"] for cost in costs):
        shown = shown.with_columns(pl.Series("GPU s", [f"{cost['GPU s']:.3g}" if cost["GPU s"] else "" for cost in costs]))
    marks = [marked(row, brief=True) for row in standing.rows]
    shown = shown.with_columns(pl.Series("marks", [mark.text for mark in marks])) if any(mark.text for mark in marks) else shown
    first = ["#", "method", "score", "marks"]  # what is seen without scrolling
    shown = shown.select(*(name for name in first if name in shown.columns), pl.exclude(first))
    low, high = _scale(standing.rows)
    scores = [
        Html(f"{escape(text)}{plots.interval(row, low, high)}", text) for text, row in zip(shown["score"], standing.rows, strict=True)
    ]
    methods = [_method(text, row, linked_rows) for text, row in zip(shown["method"], standing.rows, strict=True)]
    firsts = {rows[0].name for _, rows in standing.rankings}
    groups = [group for group in GROUPS if any(group in row.marks for row in standing.rows)]
    return sortable(
        shown,
        f"Leaderboard of {short(standing.title)}",
        muted=["controls" in row.marks for row in standing.rows],
        marks=[" ".join(row.marks) for row in standing.rows],
        groups=groups,
        breaks=[row.name in firsts for row in standing.rows] if len(firsts) > 1 else (),
        cells={"method": methods, "score": scores, "marks": marks},
    )


def _method(text: str, row: Row, linked_rows: Mapping[str, str]) -> Html:
    name = f'<span class=name title="{escape(text)}">{escape(text)}</span>' if len(text) > 40 else escape(text)
    address = linked_rows.get(row.name)
    return Html(f'<a href="{escape(address)}">{name}</a>' if address else name, text)


def _scale(rows: Sequence[Row]) -> tuple[float, float]:
    """Ends of the scale that all cells share."""
    values = [row.facts[name] for row in rows for name in ("lo", "score", "hi") if row.facts[name] is not None]
    values += [row.level for row in rows if row.level is not None]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _figure(heading: str, svg: bytes, caption: str) -> str:
    return f"<h2>{escape(heading)}</h2><figure>{themed(svg, heading)}<figcaption>{escape(caption)}</figcaption></figure>"


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    """What went wrong and would again."""
    return f"<h2>Failed</h2>{failed(failures)}" if failures else ""


def failed(failures: Sequence[Mapping[str, Any]]) -> str:
    """A table of failures, one line a reason."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for failure in ({**one, "error": str(one.get("error", "")).replace(str(Path.home()), "~")} for one in failures):
        found.setdefault(
            (", ".join(map(str, failure.get("arms") or [failure.get("arm") or "?"])), str(failure.get("error", ""))), []
        ).append(failure)
    lines = [
        {"arm": short(arm), "failed": str(len(of)), "folds": _several(of, "fold"), "seeds": _several(of, "seed"), "why": short(why, 400)}
        for (arm, why), of in sorted(found.items())
    ]
    whys = [Html(f"<div class=fold>{escape(line['why'])}</div>", line["why"]) for line in lines]
    return sortable(pl.DataFrame(lines), "Failed", cells={"why": whys})


def _several(failures: Sequence[Mapping[str, Any]], key: str) -> str:
    return ", ".join(map(str, sorted({failure[key] for failure in failures if failure.get(key) is not None})))


def _others(standing: Standing, others: Sequence[tuple[Standing, str]]) -> str:
    """Tables of the task that may not be compared with this one, and in what they differ."""
    items = []
    for other, address in others:
        same = [name for name in standing.same if standing.same[name] != other.same[name]]
        differs = [f"{name.replace('_', ' ')} {cell_text(other.same[name])}, not {cell_text(standing.same[name])}" for name in same]
        here, there = dict(leaves(standing.task)), dict(leaves(other.task))
        keys = [
            key
            for key in sorted({*here, *there})
            if here.get(key) != there.get(key) and key.split(".")[0] not in ("overrides", "protocol", "version")
        ]
        differs += [f"{key}: {short(str(there.get(key)))}, not {short(str(here.get(key)))}" for key in keys[:12]]
        listed = "".join(f"<li>{escape(short(text, 300))}</li>" for text in differs)
        heading = f"{other.title}, {other.same['protocol']}"
        items.append(f'<li><a href="{escape(address)}">{escape(short(heading, 120))}</a><ul class=legend>{listed}</ul></li>')
    told = "Other tables of this task, which may not be compared with this one, and what is different there:"
    return f"<h2>Not comparable</h2><p>{told}</p><ul>{''.join(items)}</ul>"


def reported_block(rows: Sequence[Mapping[str, Any]]) -> str:
    """Numbers from papers: a table of their own, never ranked.

    Args:
        rows: Of ``reported.of_task``: what a row says, by name (``method``, ``score``, ``source``, ``protocol`` …). Addresses
            of the web become links.
    """
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [{name: cell_text(row.get(name)) for name in names} for row in rows]
    cells = {name: [_reported_cell(line[name]) for line in lines] for name in names}
    told = "Copied from papers, not measured here: other protocols, splits and data, so they are not ranked and not compared."
    table = sortable(pl.DataFrame(lines), HEADING, cells=cells)
    return f"<h2>{escape(HEADING)}</h2><p class=soft>{told} {badge('reported')}</p>{table}"


def _reported_cell(text: str) -> Html:
    link = linked(text)
    return Html(f"<div class=fold>{link.markup}</div>", text) if len(text) > 40 else link
