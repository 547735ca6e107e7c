"""The page of one row of a table: what it scored and where, how it was trained, where it came from, how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import polars as pl
import yaml

from harness import identity
from harness.errors import RequestError
from harness.metrics import statistic
from harness.publish import plots
from harness.publish.document import Html, badge, document, facts, folded, short, sortable
from harness.publish.inventory import Row, Standing
from harness.publish.page import SYNTHETIC
from harness.publish.tables import number, p_value, with_interval
from harness.reproducing import Again
from harness.store import Store

UNITS = 60
"""Subjects, or clips, of one page: the worst."""

LISTED = 60
"""Evaluations, and provenances read, of one page."""


def page(
    row: Row,
    standing: Standing,
    store: Store,
    *,
    units: pl.DataFrame | None,
    table: str,
    again: Again,
    sweeps: Mapping[str, str],
    stale: frozenset[str],
) -> str:
    """A row's page.

    Args:
        row: It.
        standing: Its table.
        store: Where its fits are.
        units: Its sums (``store.units``).
        table: Address of the table's page.
        again: The command, or why there is none.
        sweeps: Command → address of the page of sweeps that hold the row.
        stale: Provenances whose source has changed.
    """
    known = {name: store.provenance(name) for name in row.records["provenance"].unique().sort().drop_nulls().head(LISTED)}
    settings = {name.rsplit(".", 1)[-1]: row.facts[name] for name in standing.settings if row.facts[name] is not None}
    said = ", ".join(f"{name} {value}" for name, value in settings.items())
    parts = [f"<h1>{escape(short(row.facts['arm'], 160))}</h1>"]
    parts.append(f"<p class=question>{escape(short(standing.title))}{escape(f': {said}' if said else '')}</p>")
    if standing.same["synthetic"]:
        parts.append(f"<p class=banner role=note>{SYNTHETIC}</p>")
    if (marks := marked(row)).markup:
        parts.append(f"<p>{marks.markup}</p>")
    parts.append(_score(row, standing))
    parts.append(_made_again(again, sweeps, row, known))
    parts.append(_by_fold(row))
    parts.append("" if units is None else _by_unit(units, standing))
    parts.append(_metrics(row))
    parts.append(_training(row, known, store))
    parts.append(_configs(row, known, store))
    parts.append(_provenance(row, standing, known, stale))
    crumbs = {"All leaderboards": "../index.html", standing.title: table}
    return document(f"{short(row.facts['arm'])} · {short(standing.title)}", list(filter(None, parts)), crumbs=crumbs)


SAID = {
    "controls": "control",
    "submitted": "submitted",
    "stale": "stale: its source has changed since",
    "partial": "partial",
    "failed": "some of it failed",
    "oracle": "test (oracle): not ranked",
}


def marked(row: Row, *, brief: bool = False) -> Html:
    """The marks of a row, and why it is not ranked."""
    shown = [(mark, SAID[mark].split(":")[0] if brief else SAID[mark]) for mark in row.marks if mark in SAID]
    note = row.facts["note"] or ""
    rest = [] if note in ("", *(text for _, text in shown)) else [note]
    markup = " ".join([*(badge(text, mark) for mark, text in shown), *map(escape, rest)])
    return Html(markup, " ".join([*(text for _, text in shown), *rest]))


def _score(row: Row, standing: Standing) -> str:
    own = row.facts
    rank = "not ranked" if own["rank"] is None else f"{own['rank']:.0f}" + (" (cannot be told from the leader)" if own["tie"] else "")
    rows: dict[str, object] = {
        f"score ({standing.primary})": f"{with_interval(own['score'], own['lo'], own['hi'])}, 95 % interval"
        if own["lo"] is not None
        else with_interval(own["score"], None, None),
        "rank": rank,
    }
    if own["gain"] is not None:
        over = with_interval(own["gain"], own["gain_lo"], own["gain_hi"], sign=True)
        rows["gain over the best control"] = f"{over} over {own['best_control']}" + (
            f", p {p_value(own['gain_p'])}" if own["gain_p"] else ""
        )
    if own["pooled"] is not None:
        rows["of all folds' frames together"] = number(own["pooled"])
    rows |= {f"± over {name.removeprefix('se_')}s": f"{own[name]:.3f}" for name in own if name.startswith("se_") and own[name] is not None}
    rows["selected by"] = own["selection"]
    rows["labels given, a clip"] = (
        "" if own["labels_per_clip"] is None else f"{own['labels_per_clip']:.3g} ({100 * own['labelled']:.3g} % of the frames)"
    )
    rows["scored on"] = f"{own['n_subjects'] or 'unnamed'} subjects, {own['n_clips']} clips, in {own['n_records']} records"
    cost = plots.cost_of(row)
    rows["fits under a record"] = (
        "none"
        if not cost["fit s"]
        else f"{cost['fit s']:.3g} s of wall time" + (f", {cost['GPU s']:.3g} GPU-seconds" if cost["GPU s"] else ", no GPU")
    )
    if cost["memory"]:
        rows["most memory"] = f"{cost['memory'] / 2**20:.0f} MiB"
    return facts(rows)


def _made_again(again: Again, sweeps: Mapping[str, str], row: Row, known: Mapping[str, Mapping[str, Any]]) -> str:
    parts = ["<h2>Made again</h2>"]
    if again.command:
        parts.append(
            "<p>This command gives these very evaluations: what it composes to was compared with their identities.</p>"
            f"<pre class=wrap><code>{escape(again.command)}</code></pre>"
        )
        commits = sorted({_commit(kept.get("environment", {})) for kept in known.values()} - {""})
        needs = [again.needs] if again.needs else []
        needs += [f"Made at commit {', '.join(commits)}"] if commits else []
        if "stale" in row.marks:
            needs.append("the source has changed since, while the version has not: the scores may be others now")
        parts.append(f"<p class=soft>{escape('; '.join(needs))}.</p>" if needs else "")
    else:
        parts.append(f"<p>There is no single command for it: {escape(again.why_not)}.</p>")
    for command, address in sweeps.items():
        parts.append(f'<p>The sweep <a href="{escape(address)}">that made it</a>:</p><pre class=wrap><code>{escape(command)}</code></pre>')
    submissions = [kept["submission"] for kept in known.values() if kept.get("submission")]
    parts += [facts({name: linked(str(value)) for name, value in sorted(sent.items()) if value}) for sent in submissions[:1]]
    return "".join(parts)


def _commit(environment: Mapping[str, Any]) -> str:
    return str(environment.get("commit") or "")[:12]


def linked(text: str) -> Html:
    """A text; a link where it is an address of the web and nothing else."""
    if text.startswith(("https://", "http://")) and not any(c.isspace() or c in "\"'<>" for c in text):
        return Html(f'<a href="{escape(text)}" rel="nofollow noopener noreferrer">{escape(short(text))}</a>', text)
    return Html(escape(text), text)


def _by_fold(row: Row) -> str:
    """Scores, a fold a row and a seed a column; means over draws of the support."""
    seeds = row.records["seed"].unique().sort().to_list()
    means = row.records.group_by("fold", "seed").agg(pl.col("score").mean(), pl.len()).sort("fold", "seed")
    cells = {(fold, seed): score for fold, seed, score, _ in means.iter_rows()}
    folds = row.records["fold"].unique().sort().to_list()
    lines = [{"fold": str(fold)} | {f"seed {seed}": _cell(cells.get((fold, seed))) for seed in seeds[:50]} for fold in folds[:200]]
    return "<h2>By fold and seed</h2>" + sortable(pl.DataFrame(lines), "By fold and seed", fit=True)


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _by_unit(units: pl.DataFrame, standing: Standing) -> str:
    """Scores by subject, or by clip where the data name none: each over its own frames, a fold's records having equal shares."""
    try:
        made = statistic(units, standing.primary)
    except (RequestError, ValueError, pl.exceptions.PolarsError):
        return ""
    by = "subject" if units["subject"].is_not_null().any() else "clip"
    names = units[by].fill_null("(unnamed)")
    order = names.unique().sort().to_list()
    index = np.searchsorted(np.array(order, dtype=object), names.to_numpy()) if order else np.zeros(0, int)
    sums = np.zeros((len(order), made.sums.shape[1]))
    np.add.at(sums, index, made.sums)
    values = made.value(sums)
    counts = units.group_by(by).agg(clips=pl.col("clip").n_unique())
    clips = {(name if name is not None else "(unnamed)"): n for name, n in counts.iter_rows()}
    found = [(name, float(value)) for name, value in zip(order, values, strict=True) if np.isfinite(value)]
    found.sort(key=lambda item: (item[1] if standing.higher_is_better else -item[1], item[0]))
    if not found:
        return f"<h2>By {by}</h2><p>The score is undefined for every single {by}.</p>"
    low, high = min(v for _, v in found), max(v for _, v in found)
    lines, pictures = [], []
    for name, value in found[:UNITS]:
        lines.append({by: short(str(name)), "score": f"{value:.3f}", "clips": clips[name]})
        share = 100 * (value - low) / (high - low) if high > low else 50
        pictures.append(
            Html(f'{value:.3f}<svg class=bar aria-hidden=true><circle cx="{share:.1f}%" cy="50%" r="3.5"/></svg>', f"{value:.3f}")
        )
    told = f"The worst {UNITS} of {len(found)}." if len(found) > UNITS else f"All {len(found)}, the worst first."
    undefined = len(order) - len(found)
    told += f" {undefined} more have no score of their own." if undefined else ""
    told += f" The score of one {by} is over its own frames only, and so no part of the mean above."
    table = sortable(pl.DataFrame(lines), f"By {by}", cells={"score": pictures}, fit=True)
    return f"<h2>By {by}</h2><p class=soft>{told}</p>{table}"


def _metrics(row: Row) -> str:
    known = [json.loads(text) for text in row.records["metrics"] if text]
    values: dict[str, list[float]] = {}
    for metrics in known:
        for name, value in metrics.items():
            values.setdefault(name, [])
            if isinstance(value, int | float):
                values[name].append(float(value))
    lines = [
        {"metric": name, "mean": number(sum(v) / len(v)), "least": number(min(v)), "most": number(max(v)), "records": str(len(v))}
        for name, v in sorted(values.items())
        if v
    ]
    if not lines:
        return ""
    return "<h2>All metrics</h2>" + folded(
        f"{len(lines)} metrics: mean, least and most of its records", sortable(pl.DataFrame(lines), "All metrics", fit=True)
    )


def _fits(row: Row, known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The fits under the row, all stages, in the order of its records."""
    listed = [fit for kept in known.values() for fit in kept.get("fits", [])]
    return list(dict.fromkeys(listed))[:LISTED]


def _training(row: Row, known: Mapping[str, Mapping[str, Any]], store: Store) -> str:
    by_stage: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for fit in _fits(row, known):
        if history := store.history(fit):
            by_stage.setdefault(str((store.fit(fit) or {}).get("stage", "")), {})[fit] = [*history]
    if not by_stage:
        return ""
    panels = "".join(
        (f"<h3>Stage {escape(short(stage))}</h3>" if len(by_stage) > 1 else "") + plots.losses(histories)
        for stage, histories in by_stage.items()
    )
    fits = sum(map(len, by_stage.values()))
    return f"<h2>Learning curves</h2><p class=soft>A line a fit, {fits} in all; dashed: on the validation part.</p>{panels}"


def _configs(row: Row, known: Mapping[str, Mapping[str, Any]], store: Store) -> str:
    shown: dict[str, Any] = {}
    for kept in known.values():
        shown.setdefault("Baseline", kept.get("baseline"))
        shown.setdefault("Task", kept.get("task"))
        break
    for fit in _fits(row, known):
        made = store.fit(fit)
        if made and f"Training of stage {made['stage']}" not in shown:
            shown[f"Training of stage {made['stage']}"] = {key: made[key] for key in ("trainer", "weighting") if key in made}
    shown["Setting"] = json.loads(row.records["setting"][0] or "{}")
    blocks = [
        folded(name, f"<pre><code>{escape(yaml.safe_dump(value, sort_keys=True, allow_unicode=True, width=100))}</code></pre>")
        for name, value in shown.items()
        if value
    ]
    return f"<h2>Config</h2>{''.join(blocks)}" if blocks else ""


def _provenance(row: Row, standing: Standing, known: Mapping[str, Mapping[str, Any]], stale: frozenset[str]) -> str:
    environments = {identity.canonical(kept.get("environment", {})): kept.get("environment", {}) for kept in known.values()}
    parts = ["<h2>Where it came from</h2>"]
    shared = {
        "data": f"{standing.same['dataset']}, fingerprint {standing.same['data']}",
        "protocol": f"{standing.same['protocol']}, task version {standing.same['task_version']}",
        "baseline": f"{row.facts['baseline']}, version {row.facts['baseline_version']}",
        "records written": " to ".join(dict.fromkeys(str(row.records["written"].drop_nulls().sort()[at]) for at in (0, -1)))
        if row.records["written"].is_not_null().any()
        else "",
    }
    parts.append(facts(shared))
    for environment in environments.values():
        packages = environment.get("packages", {})
        hardware = {name: value for name, value in environment.items() if name != "packages"}
        hardware["packages"] = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
        dirty = " (with changes that were not committed)" if environment.get("dirty") else ""
        parts.append(folded(f"Made at commit {_commit(environment) or 'unknown'}{dirty}", facts(hardware), open=len(environments) == 1))
    guards = {identity.canonical(kept["guard"]): kept["guard"] for kept in known.values() if kept.get("guard")}
    lines = []
    for guard in guards.values():
        of_folds = guard if "parts" not in guard else {"": guard}
        for proof in of_folds.values():
            for part, counted in (proof.get("parts") or {}).items():
                counts = {key: str(counted.get(key, "")) for key in ("samples", "clips", "groups", "dropped")}
                lines.append({"part": str(part), **counts, "sha256 of its samples": str(counted.get("sha256", ""))[:16]})
    if lines:
        groups = sorted({str(guard.get("group")) for guard in guards.values() if guard.get("group")})
        told = f"Checked before a fit started: no {' or '.join(groups) or 'clip'} and no identical image on both sides of a split."
        parts.append(
            folded("Proof of the guard", f"<p class=soft>{told}</p>" + sortable(pl.DataFrame(lines), "Proof of the guard", fit=True))
        )
    sources = {target: digest for kept in known.values() for target, digest in (kept.get("sources") or {}).items()}
    if sources:
        old = " (changed since)" if not stale.isdisjoint(known) else ""
        parts.append(folded(f"Sources, by SHA-256{old}", facts(sources)))
    problems = {kind: count for kept in known.values() for kind, count in (kept.get("problems") or {}).items()}
    if problems:
        parts.append(folded("Problems of the data", facts(problems)))
    columns = ("evaluation", "fold", "seed", "setting", "score", "sha256")
    listed = row.records.select(columns).head(LISTED).with_columns(pl.col("sha256").str.slice(0, 16).alias("sha256"))
    told = f"{row.records.height} evaluations" + (f", the first {LISTED}" if row.records.height > LISTED else "")
    parts.append(folded(told, sortable(listed.with_columns(pl.col("fold", "seed").cast(pl.String)), "Evaluations", fit=True)))
    return "".join(parts)
