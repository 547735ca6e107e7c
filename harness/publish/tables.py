"""One table in every format: for a person (table, markdown, latex) rounded and readable, for a program (csv, json, parquet) as it is.

``render_rows`` is all that a light verb needs and imports neither Polars nor Rich.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]
_SHORT = 32  # characters of a cell that is not folded


def render(
    frame: pl.DataFrame, format: str, *, title: str | None = None, notes: Sequence[str] = (), width: int | None = None
) -> str | bytes:
    """A frame in one of the formats table, markdown, csv, json, parquet, latex.

    Args:
        frame: Numbers as numbers; a leaderboard is made readable with :func:`readable` first where a person reads it.
        format: Which; parquet gives bytes.
        title: Above the table, in the formats for a person.
        notes: Below it, there too.
        width: Columns of the terminal that a ``table`` is for; without it the table is plain text, for a file or a pipe.

    Raises:
        RequestError: No such format.
    """
    if format == "parquet":
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        return buffer.getvalue()
    if format == "latex":
        return _latex(frame, title, notes)
    return render_rows(frame.to_dicts(), format, title=title, notes=notes, width=width)


def render_rows(rows: Sequence[Row], format: str, *, title: str | None = None, notes: Sequence[str] = (), width: int | None = None) -> str:
    """Rows in one of the formats table, markdown, csv, json. The columns are those of the first row.

    Raises:
        RequestError: No such format.
    """
    writers = {"table": _table, "markdown": _markdown, "csv": _csv, "json": _json}
    if format not in writers:
        raise RequestError(f"no format {format!r}", where="--format", remedy=did_you_mean(format, writers))
    if format == "table" and width is not None:
        return _terminal(rows, title, notes, width)
    return writers[format](rows, title, notes)


def number(value: float) -> str:
    """A number as a person reads it: three decimals, large ones without.

    >>> number(0.61249), number(12345.6), number(0.0), number(4.0), number(2e-5), number(float("nan"))
    ('0.612', '12346', '0', '4', '2e-05', '–')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value) or value == int(value) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.0005 else f"{value:.0e}"


def with_interval(value: float | None, lo: float | None, hi: float | None, *, sign: bool = False) -> str:
    """A score with its interval.

    >>> with_interval(0.6123, 0.5512, 0.661), with_interval(0.04, -0.01, 0.09, sign=True), with_interval(0.5, None, None)
    ('0.612 [0.55, 0.66]', '+0.040 [-0.01, +0.09]', '0.500')
    """
    if value is None:
        return "–"
    plus = "+" if sign else ""
    ends = f" [{lo:{plus}.2f}, {hi:{plus}.2f}]" if lo is not None and hi is not None else ""
    return f"{value:{plus}.3f}{ends}"


def p_value(p: float | None) -> str:
    """Of a test, short.

    >>> p_value(0.0004), p_value(0.031), p_value(None)
    ('<0.001', '0.031', '')
    """
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def readable(table: pl.DataFrame) -> pl.DataFrame:
    """A leaderboard as a person reads it: few columns of text, an interval beside its score, no column that says the same in every row.

    Args:
        table: What ``harness.leaderboard.leaderboard`` returned.

    Returns:
        ``#`` (``=`` after a rank that cannot be told from the leader), ``method``, the settings that vary, ``score``, ``pooled``, the
        standard errors, ``gain``, ``over``, ``p``, ``labels`` (given, a clip), ``selected``, ``records``, ``note``; all text.
        :func:`legend` says the rest.
    """
    import polars as pl

    versions = table.group_by("arm").agg(pl.col("baseline_version").n_unique())["baseline_version"].max()
    rows = [
        {"#": "" if row["rank"] is None else f"{row['rank']:.0f}{' =' if row['tie'] else ''}"}
        | {"method": row["arm"] + (f" v{row['baseline_version']}" if versions != 1 else "")}
        | {name.rsplit(".", 1)[-1]: row[name] for name in _settings(table)}
        | {"score": with_interval(row["score"], row["lo"], row["hi"])}
        | {"pooled": row["pooled"] is not None and number(row["pooled"])}
        | {name.replace("se_", "± "): row[name] and f"{row[name]:.3f}" for name in table.columns if name.startswith("se_")}
        | {"gain": row["gain"] is not None and with_interval(row["gain"], row["gain_lo"], row["gain_hi"], sign=True)}
        | {"over": row["best_control"], "p": p_value(row["gain_p"])}
        | {"labels": row["labels_per_clip"] is not None and f"{row['labels_per_clip']:.3g}"}
        | {"selected": row["selection"], "records": row["n_records"]}
        | {"note": "; ".join(filter(None, ("control" if row["control"] else "", row["note"])))}
        for row in table.to_dicts()
    ]
    frame = pl.DataFrame([{name: str(value or "") for name, value in row.items()} for row in rows])
    settings = [name.rsplit(".", 1)[-1] for name in _settings(table)]
    values = {name: set(frame[name]) - ({""} if name in settings else set()) for name in frame.columns}  # a setting one lacks is no value
    may_go = (*settings, "labels", "selected", "records")
    return frame.select(name for name, found in values.items() if found - {""} and (name not in may_go or len(found) > 1))


def _settings(table: pl.DataFrame) -> list[str]:
    return table.columns[table.columns.index("arm") + 1 : table.columns.index("baseline")]


def legend(table: pl.DataFrame, *, primary: str) -> tuple[str, ...]:
    """What the columns of :func:`readable` mean, and what is the same in all rows and so has none."""
    told = {name.rsplit(".", 1)[-1]: name for name in _settings(table)} | {"selected": "selection", "records": "n_records"}
    values = {short: table[name].drop_nulls().unique().to_list() for short, name in told.items()}
    same = [f"{short} {found[0]}" for short, found in values.items() if len(found) == 1]
    counts = {what: max(table[f"n_{what}"].to_list()) for what in ("subjects", "clips")}
    units = [f"{n} {what}" for what, n in counts.items() if n]
    over = "subjects" if counts["subjects"] else "clips (the data name no subjects)"
    return (
        f"score: {primary}, mean over folds and seeds; in brackets its 95 % interval by bootstrap over {over}: {', '.join(units)}.",
        *(["pooled: the same of all folds' frames put together."] if table["pooled"].is_not_null().any() else []),
        "± standard errors over folds, seeds or draws. = cannot be told from the leader (swaps inside subjects, Holm, 5 %).",
        "gain: over the best control at the same setting, which is named, with its paired interval and p (Holm over the table).",
        *([f"In every row that has it: {', '.join(same)}."] if same and table.height > 1 else []),
    )


# ── one writer a format ──────────────────────────────────────────────────────────────────────────────────────────────────────


def cell_text(value: object) -> str:
    """A cell on one line; control characters, which a terminal would obey, are made visible."""
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in str(value))


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(rows[0]) if rows else []


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    values = [row[name] for row in rows if row[name] is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _table(rows: Sequence[Row], title: str | None, notes: Sequence[str]) -> str:
    """Aligned columns; nothing is cut off."""
    names = _columns(rows)
    lines = [[cell_text(name) for name in names], *([cell_text(row[name]) for name in names] for row in rows)] if names else [["(no rows)"]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [_is_numeric(rows, name) for name in names] or [False]
    lines[1:1] = [["-" * width for width in widths]] if names else []
    body = ["  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip() for line in lines]
    return "\n".join([*([cell_text(title)] if title else []), *body, *map(cell_text, notes)]) + "\n"


def _terminal(rows: Sequence[Row], title: str | None, notes: Sequence[str], width: int) -> str:
    """The same for a terminal: long cells fold where it is too narrow; what is wider still is left to the terminal to wrap."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = _columns(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=bool(names))
    needed = 0
    for name in names:
        widest = max(len(cell_text(text)) for text in (name, *(row[name] for row in rows)))
        table.add_column(
            Text(cell_text(name)), justify="right" if _is_numeric(rows, name) else "left", overflow="fold", no_wrap=widest <= _SHORT
        )
        needed += min(widest, _SHORT) + 3
    for row in rows:
        table.add_row(*(Text(cell_text(row[name])) for name in names))
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=max(width, needed))
    if title:
        console.print(Text(cell_text(title), style="bold"))
    console.print(table if names else Text("(no rows)"))
    for note in notes:
        console.print(Text(cell_text(note), style="dim"))
    return out.getvalue()


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def _markdown(rows: Sequence[Row], title: str | None, notes: Sequence[str]) -> str:
    """A pipe table; whatever Markdown or HTML a cell holds is shown, not obeyed."""

    def cell(value: object) -> str:
        return cell_text(value).translate(_MARKDOWN)

    names = _columns(rows)
    lines = [f"### {cell(title)}", ""] if title else []
    lines += [
        "| " + " | ".join(map(cell, names)) + " |",
        "|" + "|".join("---:" if _is_numeric(rows, name) else "---" for name in names) + "|",
    ]
    lines += ["| " + " | ".join(cell(row[name]) for name in names) + " |" for row in rows]
    lines += [line for note in notes for line in ("", cell(note))]
    return "\n".join(lines if names else ["(no rows)"]) + "\n"


def _csv(rows: Sequence[Row], title: str | None, notes: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_columns(rows))
    for row in rows:
        writer.writerow(json.dumps(value) if isinstance(value, list | dict) else value for value in row.values())
    return out.getvalue()


def _json(rows: Sequence[Row], title: str | None, notes: Sequence[str]) -> str:
    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return (
        json.dumps([{name: plain(value) for name, value in row.items()} for row in rows], indent=1, ensure_ascii=False, default=str) + "\n"
    )


def _latex(frame: pl.DataFrame, title: str | None, notes: Sequence[str]) -> str:
    """A booktabs table to be pasted into a paper."""
    import great_tables
    import polars as pl

    numeric = [name for name, dtype in frame.schema.items() if dtype.is_numeric()]
    cells = pl.DataFrame(
        {name: [cell_text(value) for value in frame[name].to_list()] for name in frame.columns},
        schema=dict.fromkeys(frame.columns, pl.String),
    )
    table = great_tables.GT(cells).cols_align("left").cols_align("right", columns=numeric)
    table = table.tab_header(cell_text(title)) if title else table
    for note in notes:
        table = table.tab_source_note(cell_text(note))
    return str(table.as_latex()) + "\n"
