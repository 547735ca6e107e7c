"""A store as a static site: an index, a page a table, a page a row, a page a sweep. No server, no clock, nothing from elsewhere.

    index.html
    speed.html                how long what takes, where that is kept
    tasks/TASK-HASH.html      one a task, version, protocol, dataset and data
    rows/HASH.html            one a row: a method under a setting
    sweeps/NAME-HASH/         what a sweep wrote: its page, figures, tables
    manifest.json             what was written, so that the next time knows what is gone

The same store gives the same bytes, for the same sources of tasks and baselines: whether a row is stale depends on them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from harness import reported
from harness.publish import row_page, task_page
from harness.publish.document import Html, badge, document, short, sortable
from harness.publish.inventory import Row, Shelf, Standing, slug
from harness.publish.page import SYNTHETIC
from harness.publish.tables import cell_text, with_interval
from harness.reproducing import Reproducer
from harness.store import Store

PAGES = 400
"""Rows of one table that have a page of their own, unless somebody asks for more: the best, and controls before methods."""

KINDS = (".csv", ".md", ".tex", ".parquet", ".svg", ".png")
"""What is taken from the folder of a sweep."""

LARGEST = 32 * 2**20
"""Bytes of a file that is taken from there."""


@dataclass(frozen=True)
class SweepPage:
    """What a sweep wrote.

    Attributes:
        name: Of its folder in the site.
        title: Of its table.
        task: Which it is of, where it is known.
        command: What made it, where it is known.
        arms: Of its table.
        files: By name.
    """

    name: str
    title: str
    task: str
    command: str
    arms: frozenset[str]
    files: Mapping[str, bytes]


def pages(
    shelf: Shelf, output: Path, *, extra: Sequence[Path] = (), most: int = PAGES, more: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """The files of the site.

    Args:
        shelf: Of the store.
        output: Its folder, where the sweeps are.
        extra: The user's config folders.
        most: Rows of a table that have pages.
        more: Further pages, linked from the index by their names.

    Returns:
        Relative path → bytes.
    """
    made = sweeps(output)
    files: dict[str, bytes] = {"index.html": _index(shelf, made, [*(more or {})]).encode(), **(more or {})}
    for sweep in made:
        files |= {f"sweeps/{sweep.name}/{name}": data for name, data in sweep.files.items()}
    reproducer = Reproducer(shelf.store, extra)
    for standing in shelf.standings:
        own = [sweep for sweep in made if sweep.task == standing.same["task"]]
        shown = _with_pages(standing, most)
        files[f"tasks/{standing.name}.html"] = task_page.page(
            standing,
            linked_rows={row.name: f"../rows/{row.name}.html" for row in shown},
            others=[
                (other, f"{other.name}.html")
                for other in shelf.standings
                if other.same["task"] == standing.same["task"] and other is not standing
            ],
            sweeps={sweep.title: (f"../sweeps/{sweep.name}/index.html", sweep.command) for sweep in own},
            reported=task_page.reported_block(reported.of_task(str(standing.same["task"])).to_dicts()),
        ).encode()
        for row, units in _with_units(shelf.store, shown):
            again = reproducer.again(row.records.to_dicts())
            files[f"rows/{row.name}.html"] = row_page.page(
                row,
                standing,
                shelf.store,
                units=units,
                table=f"../tasks/{standing.name}.html",
                again=again,
                sweeps={s.command: f"../sweeps/{s.name}/index.html" for s in own if s.command and row.facts["arm"] in s.arms},
                stale=shelf.stale,
            ).encode()
    return files


def _with_units(store: Store, rows: Sequence[Row]) -> Iterator[tuple[Row, pl.DataFrame | None]]:
    """Rows with their sums, read for a hundred rows at a time."""
    for start in range(0, len(rows), 100):
        some = rows[start : start + 100]
        sums = store.units(name for row in some for name in row.records["evaluation"])
        parts = {part["evaluation"][0]: part for part in sums.partition_by("evaluation", maintain_order=True)} if sums.height else {}
        for row in some:
            mine = [parts[name] for name in row.records["evaluation"] if name in parts]
            yield row, pl.concat(mine) if mine else None


def _with_pages(standing: Standing, most: int) -> list[Row]:
    """The rows that have a page, in the order of the table."""
    order = sorted(standing.rows, key=lambda row: ("controls" not in row.marks, row.facts["rank"] is None, row.facts["rank"] or 0))
    controls = [row for row in order if "controls" in row.marks][: most // 2]
    others = [row for row in order if "controls" not in row.marks][: most - len(controls)]
    kept = {row.name for row in (*controls, *others)}
    return [row for row in standing.rows if row.name in kept]


def sweeps(output: Path) -> list[SweepPage]:
    """The folders of sweeps below ``OUTPUT/sweeps``, sorted: their files, with a way back to the index on their pages."""
    root = output / "sweeps"
    found = []
    for page in sorted([*root.glob("*/index.html"), *root.glob("*/*/index.html")]):
        folder = page.parent
        told = _told(folder)
        names = sorted(
            path.name
            for path in folder.iterdir()
            if path.suffix in KINDS and path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST
        )
        relative = folder.relative_to(root).as_posix()
        title = str(told.get("title") or relative.replace("/", " on "))
        arms: frozenset[str] = frozenset()
        task = str(told.get("task") or "")
        table = folder / "table.parquet"
        if table.is_file():
            try:
                arms = frozenset(pl.read_parquet(table, columns=["arm"])["arm"].cast(pl.String))
            except (OSError, pl.exceptions.PolarsError):
                arms = frozenset()
        files = {name: (folder / name).read_bytes() for name in names}
        command = str(told.get("command") or "")
        text = page.read_text(encoding="utf-8", errors="replace")
        if command:
            text = text.replace(escape(command), escape(public(command)))
        files["index.html"] = _with_way_back(text, [*files]).encode()
        found.append(SweepPage(slug(relative), title, task, public(command), arms, files))
    return found


def public(command: str) -> str:
    """A command without where things lie on somebody's machine.

    >>> public("harness sweep x output_dir=/home/me/out task.root=/data/x --config-dir /home/me/mine")
    'harness sweep x task.root=FOLDER --config-dir mine'
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    kept = []
    for word in words:
        key, equals, value = word.partition("=")
        if key == "output_dir":
            continue
        if equals and value.startswith(("/", "~")):
            word = f"{key}=FOLDER"
        kept.append(PurePath(word).name if word.startswith(("/", "~")) else word)
    return " ".join(map(shlex.quote, kept))


def _told(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "kept.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _with_way_back(text: str, names: Sequence[str]) -> str:
    """A sweep's own page with a way to the index, and its files to take away."""
    back = '<nav aria-label=Breadcrumb><a href="../../index.html">All leaderboards</a></nav>'
    listed = " · ".join(
        f'<a href="{escape(name)}">{escape(name)}</a>' for name in names if name.replace("_", "").replace(".", "").isalnum()
    )
    taken = f"<p class=soft>Files: {listed}</p>" if listed else ""
    return text.replace("<body><main>", f"<body><main>\n{back}", 1).replace("</main>", f"{taken}\n</main>", 1)


def _index(shelf: Shelf, made: Sequence[SweepPage], more: Sequence[str] = ()) -> str:
    parts = [
        "<h1>Leaderboards</h1>",
        "<p class=question>Which method labels faces best, from how few labels, at what cost, and how sure are we?</p>",
    ]
    if shelf.standings and all(standing.same["synthetic"] for standing in shelf.standings):
        parts.append(f"<p class=banner role=note>{SYNTHETIC}</p>")
    lines, cells = [], []
    for standing in shelf.standings:
        same = standing.same
        methods = {(row.facts["arm"], row.facts["baseline_version"]) for row in standing.rows if "methods" in row.marks}
        controls = {(row.facts["arm"], row.facts["baseline_version"]) for row in standing.rows if "controls" in row.marks}
        leads, said = _leaders(standing)
        lines.append(
            {
                "task": standing.title,
                "leader": said,
                "data": "synthetic" if same["synthetic"] else "real",
                "dataset": short(str(same["dataset"]), 40),
                "metric": standing.primary,
                "methods": str(len(methods)),
                "controls": str(len(controls)),
                "records": str(sum(row.records.height for row in standing.rows)),
                "protocol": short(str(same["protocol"]), 60),
                "fingerprint": str(same["data"])[:8],
                "last record": max((str(row.records["written"].max() or "") for row in standing.rows), default="")[:10],
            }
        )
        stale = sum("stale" in row.marks for row in standing.rows)
        marks = [badge(f"{stale} stale", "stale")] if stale else []
        link = f'<a href="tasks/{standing.name}.html">{escape(short(standing.title, 60))}</a>'
        data = badge("synthetic", "stale") if same["synthetic"] else "real"
        cells.append(
            (
                Html(" ".join([link, *marks]), standing.title),
                Html(data, str(lines[-1]["data"])),
                Html(f"<div class=fold>{leads}</div>", said),
            )
        )
    if lines:
        columns = {name: [cell[place] for cell in cells] for place, name in enumerate(("task", "data", "leader"))}
        parts.append("<h2>Tasks</h2>" + sortable(pl.DataFrame(lines), "Tasks", cells=columns))
        told = (
            "A row is a table of its own: rows of different protocol, version or data are not compared.",
            "Leader: its score, its 95 % interval over subjects, and how many are tied, which cannot be told from it (paired, Holm, 5 %).",
        )
        parts.append("<ul class=legend>" + "".join(f"<li>{escape(line)}</li>" for line in told) + "</ul>")
    else:
        parts.append("<p>The store holds no record of a test part yet.</p>")
    if made:
        items = [
            f'<li><a href="sweeps/{sweep.name}/index.html">{escape(short(sweep.title))}</a>'
            + (f"<pre class=wrap><code>{escape(sweep.command)}</code></pre>" if sweep.command else "")
            + "</li>"
            for sweep in made
        ]
        parts.append(f"<h2>Sweeps</h2><ul>{''.join(items)}</ul>")
    if shelf.failures:
        parts.append(f"<h2>Failed, of no table above</h2>{task_page.failed(shelf.failures)}")
    if more:
        links = "".join(f'<li><a href="{escape(name)}">{escape(PurePath(name).stem.capitalize())}</a></li>' for name in more)
        parts.append(f"<h2>More</h2><ul>{links}</ul>")
    return document("Leaderboards", parts)


def _leaders(standing: Standing) -> tuple[str, str]:
    """Markup and text: who leads, with the fewest and the most labels where there are several rankings."""
    shown: list[tuple[str, str]] = []
    rankings = [(setting, rows) for setting, rows in standing.rankings if any(row.facts["rank"] is not None for row in rows)]
    for _, rows in rankings[:1] + (rankings[-1:] if len(rankings) > 1 else []):
        ranked = [row for row in rows if row.facts["rank"] is not None]
        leader, ties = ranked[0], sum(bool(row.facts["tie"]) for row in ranked)
        facts = leader.facts
        score = with_interval(facts["score"], facts["lo"], facts["hi"])
        where = f"labels {facts['labels_per_clip']:.3g}: " if len(rankings) > 1 and facts["labels_per_clip"] is not None else ""
        tied = f"{ties} tied" if ties else "no tie" if facts["lo"] is not None else "untested"
        name = short(facts["arm"], 40) + (" (control)" if "controls" in leader.marks else "")
        shown.append((f"{escape(where)}<b>{escape(name)}</b> {score}, {tied}", f"{where}{name} {score}, {tied}"))
    if len(rankings) > 2:
        shown.append((f"{len(rankings) - 2} more rankings between",) * 2)
    if not shown:
        return "nothing is ranked", "nothing is ranked"
    return "<br>".join(markup for markup, _ in shown), "; ".join(cell_text(text) for _, text in shown)
