"""One sweep's results as files: the table in every format, its picture, and a page that needs no server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from harness.leaderboard import efficiency
from harness.publish.tables import legend, number, readable, render
from harness.store import Store, write_atomically


@dataclass(frozen=True)
class Board:
    """One ranked table and what must be said with it.

    Attributes:
        title: Task and sweep.
        table: What ``leaderboard.leaderboard`` returned.
        primary: The metric in ``score``.
        notes: Protocol, dataset, reconstructions, gaps.
        facts: For the page: ``question``, ``command``, ``synthetic``, ``provenance``.
    """

    title: str
    table: pl.DataFrame
    primary: str
    notes: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def legend(self) -> tuple[str, ...]:
        """What the columns mean, then the notes."""
        return (*legend(self.table, primary=self.primary), *self.notes)


@dataclass(frozen=True)
class Study:
    """What a report may look into beside the table.

    Attributes:
        records: Of the table's evaluations, columns as in ``store.RECORD``, and their settings as columns; ``arm`` as in the table.
        units: Their sums (``store.units``).
        tuning: What was tried for these arms (``sweep.tuning``); empty where nothing is tuned.
        store: Where their fits are.
    """

    records: pl.DataFrame
    units: pl.DataFrame
    tuning: pl.DataFrame
    store: Store

    def fit(self, fit: str) -> dict[str, Any]:
        """What is known of a fit (``fit.json``: ``config``, ``weighting``, ``trainer``, ``previous`` …); empty where nothing is trained."""
        return self.store.fit(fit) or {}

    def history(self, fit: str) -> list[dict[str, Any]]:
        """What a fit reported, one entry an epoch; empty where nothing is trained, or its file is gone or damaged."""
        return self.store.history(fit)


@dataclass(frozen=True)
class Extra:
    """What a report adds to the table.

    Attributes:
        tables: By their names.
        figures: By file name; every SVG is on the page.
        notes: Below the table.
        headings: File name of an SVG → its heading on the page; without one, its file name in words.
    """

    tables: Mapping[str, pl.DataFrame]
    figures: Mapping[str, bytes]
    notes: tuple[str, ...] = ()
    headings: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> dict[str, bytes]:
        """The figures of the page by their headings."""
        words = {name: name.rpartition(".")[0].replace("_", " ") for name in self.figures if name.endswith(".svg")}
        return {self.headings.get(name, text[:1].upper() + text[1:]): self.figures[name] for name, text in words.items()}


def label_efficiency(board: Board, study: Study) -> Extra:
    """Score against labelled frames: the curve, the area under it, and the budget at which it meets the fully labelled control.

    That control is the best one without support: a linear probe, say, trained on every label of the training clips and on none of
    the clip itself.
    """
    from harness.publish.curve import label_efficiency as draw

    table = every_anchor(board.table)
    free = table.filter(pl.col("control") & (pl.col("labels_per_clip") == 0) & pl.col("score").is_not_null()).sort(
        "score", "arm", descending=[True, False]
    )
    reference, name = (free["score"][0], free["arm"][0]) if free.height else (None, None)
    apart = [setting for setting in ("support.selection", "anchor") if setting in table.columns]
    by = ["arm", *(setting for setting in apart if setting == "support.selection" or table[setting].drop_nulls().n_unique() > 1)]
    areas = efficiency(table, by=by, reference=reference)
    series = tuple(column for column in by if column != "support.selection")
    note = f"Bands: 95 % interval over subjects. {' '.join(board.notes[:1])}"
    figures = draw(table, title=board.title, score=board.primary, series=series, reference=reference, note=note)
    told: tuple[str, ...] = ()
    if reference is not None:
        level = f"{name} without support ({number(reference)}), which is trained on every label of the training clips"
        told = (f"meets: the share of a clip's frames to label at which a method first reaches {level}.",)
    area = "area: mean score over log2 of the labelled frames a clip, by trapezoids."
    headings = {"label_efficiency.svg": "Score over labelled frames"}
    return Extra({"label efficiency": areas}, {f"label_efficiency.{kind}": data for kind, data in figures.items()}, (area, *told), headings)


def every_anchor(table: pl.DataFrame) -> pl.DataFrame:
    """The same table, in which a row that no anchor changes (one support frame, or none) stands once for each anchor of its arm."""
    if "anchor" not in table.columns:
        return table
    known = table.select("arm", "anchor").drop_nulls().unique(maintain_order=True)
    without = table.filter(pl.col("anchor").is_null()).drop("anchor").join(known, on="arm", how="left", maintain_order="left")
    return pl.concat([table.filter(pl.col("anchor").is_not_null()), without.select(table.columns)])


def write(board: Board, extra: Extra, folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv``, ``table.parquet``, the extra tables and figures, and ``index.html`` into a folder."""
    from harness.publish.page import page

    shown = readable(board.table)
    notes = (*board.legend, *extra.notes)
    text = str(render(shown, "markdown", title=board.title, notes=notes))
    for name, frame in extra.tables.items():
        text += "\n" + str(render(frame, "markdown", title=name))
    files: dict[str, bytes | str] = {
        "table.md": text,
        "table.csv": render(board.table, "csv"),
        "table.tex": render(shown, "latex", title=board.title),
        **{f"{name.replace(' ', '_')}.csv": render(frame, "csv") for name, frame in extra.tables.items()},
        **extra.figures,
        "index.html": page(
            board.table,
            title=board.title,
            question=board.facts["question"],
            primary=board.primary,
            command=board.facts["command"],
            synthetic=board.facts["synthetic"],
            figures=extra.shown(),
            tables=extra.tables,
            notes=(*board.notes, *extra.notes),
            provenance=board.facts["provenance"],
        ),
        "table.parquet": render(board.table, "parquet"),
    }
    for name, data in files.items():
        write_atomically(folder / name, data if isinstance(data, bytes) else data.encode())
    return [folder / name for name in files]
