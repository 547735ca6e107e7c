"""The page of speed: every benchmark's history on every machine, drawn, with its steps; budgets; scores."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import polars as pl

from harness.perf import budgets
from harness.perf.history import Kept
from harness.perf.steps import Series
from harness.perf.turns import short
from harness.publish.document import document, sortable
from harness.publish.tables import cell_text

PAGE = "speed.html"
"""Its file in a site."""

WIDTH, HEIGHT, EDGE = 240, 110, 16
"""Of a picture, and its margin, in units of the SVG."""

MOST = 600
"""Pictures on the page; the table has all."""


def files(kept: Sequence[Kept], series: Sequence[Series], notes: Sequence[str] = ()) -> dict[str, bytes]:
    """The page as a file of a site: relative path → bytes.

    Args:
        kept: Everything that was measured.
        series: Its histories.
        notes: What is to be known.
    """
    return {PAGE: page(kept, series, notes).encode()}


def page(kept: Sequence[Kept], series: Sequence[Series], notes: Sequence[str] = ()) -> str:
    """As HTML; all text is escaped."""
    parts = [
        "<h1>Speed</h1>",
        "<p class=question>How long does what take, on which machine, and when did that change?</p>",
        *(f"<p class=banner role=note>{escape(note)}</p>" for note in notes),
    ]
    facts: dict[str, Kept] = {one.machine: one for one in kept}
    for machine, latest in sorted(facts.items()):
        mine = [one for one in series if one.machine == machine]
        heading = f"{latest.facts.get('processor', 'unknown processor')}, {latest.facts.get('cores', '?')} cores"
        parts.append(f"<h2>{escape(cell_text(heading))}</h2>{_about(latest)}")
        if (held := _budgets(latest)) is not None:
            parts.append(f"<h3>Budgets, at {escape(latest.label)}</h3>{sortable(held, 'Budgets')}")
        stepped = [one for one in mine if one.steps]
        if stepped:
            items = "".join(
                f"<li>{escape(cell_text(f'{one.name}, {one.quantity}: {step.text}'))}</li>" for one in stepped for step in one.steps
            )
            parts.append(f"<h3>Steps</h3><ul>{items}</ul>")
        if mine:
            parts.append(f"<h3>Histories</h3>{sortable(_table(mine), 'Histories')}")
            shown = [one for one in mine if len(one.values) > 1][:MOST]
            parts.append(f"<div class=panels>{''.join(map(_picture, shown))}</div>")
    told = (
        "Only times of one machine are compared. elapsed: median of the rounds; processor: the least of the rounds.",
        "A step is where two levels differ by more than 5 %, found by PELT with the noise of the history; one revision alone makes none.",
        "A score is exact: a change beyond rounding is a step, whatever its interval.",
    )
    parts.append("<ul class=legend>" + "".join(f"<li>{escape(line)}</li>" for line in told) + "</ul>")
    return document("Speed", parts, crumbs={"All leaderboards": "index.html"})


def _about(latest: Kept) -> str:
    facts: dict[str, Any] = {**latest.facts, **{f"version of {name}": version for name, version in latest.versions.items()}}
    facts["load before and after the last run"] = "; ".join(str(list(load)) for load in latest.load)
    rows = "".join(f"<dt>{escape(cell_text(name))}</dt><dd>{escape(cell_text(str(value)))}</dd>" for name, value in facts.items())
    return f"<details><summary>{escape(latest.machine)}</summary><dl>{rows}</dl></details>"


def _budgets(latest: Kept) -> pl.DataFrame | None:
    rows = [
        {"benchmark": short(name), "budget": budget.text, "measured": budgets.shown(budget, value), "within": "yes" if within else "NO"}
        for name, entry in latest.benchmarks.items()
        for budget, value, within in budgets.judge(name, entry)
    ]
    return pl.DataFrame(rows) if rows else None


def _table(series: Sequence[Series]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "name": one.name,
                "quantity": one.quantity,
                "revisions": str(len(one.values)),
                "first": one.text(one.values[0]),
                "last": one.text(one.values[-1]),
                "last revision": one.commits[-1][:8],
                "steps": "; ".join(step.text for step in one.steps),
            }
            for one in series
        ]
    )


def _picture(one: Series) -> str:
    """A history as a small SVG: a line through the values, quartiles or intervals as bars, steps as upright lines."""
    low, high = min(one.lo), max(one.hi)
    span = (high - low) or abs(high) or 1.0
    last = max(1, len(one.values) - 1)

    def x(place: float) -> str:
        return f"{EDGE + place / last * (WIDTH - 2 * EDGE):.1f}"

    def y(value: float) -> str:
        return f"{HEIGHT - EDGE - (value - low) / span * (HEIGHT - 3 * EDGE):.1f}"

    line = " ".join(f"{x(place)},{y(value)}" for place, value in enumerate(one.values))
    bars = "".join(f'<path d="M{x(p)} {y(a)}V{y(b)}"/>' for p, (a, b) in enumerate(zip(one.lo, one.hi, strict=True)) if a != b)
    marks = "".join(f'<path class=level d="M{x(step.place - 0.5)} {1.5 * EDGE}V{HEIGHT - EDGE}"/>' for step in one.steps)
    points = "".join(
        f'<circle class=point tabindex=0 r=2.5 cx="{x(place)}" cy="{y(value)}" aria-label="{escape(said)}">'
        f"<title>{escape(said)}</title></circle>"
        for place, value in enumerate(one.values)
        for said in [f"{one.commits[place][:8]}: {one.text(value)}"]
    )
    name = escape(cell_text(f"{one.name}, {one.quantity}"))
    text = (
        f'<text class=head x="2" y="12">{name}</text><text x="2" y="{HEIGHT - 2}">{escape(one.text(low))} … {escape(one.text(high))}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=group aria-label="{name}">{text}{bars}{marks}<polyline points="{line}"/>{points}</svg>\n'
    )
