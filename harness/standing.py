"""What must be said of a leaderboard's rows besides their rank: what is stale, what failed, and what somebody sent in."""

from __future__ import annotations

import polars as pl

from harness.leaderboard import SUBMITTED
from harness.publish.tables import cell_text
from harness.store import Store
from harness.sweep import stale_provenance


def marked(table: pl.DataFrame, records: pl.DataFrame, store: Store) -> pl.DataFrame:
    """The leaderboard with what is stale and what failed in ``note``, too.

    Args:
        table: Of ``leaderboard.leaderboard``.
        records: What it was made of.
        store: Whose.
    """
    stale = stale_provenance(store, records["provenance"].drop_nulls().unique())
    key = ["arm", *table.columns[table.columns.index("arm") + 1 : table.columns.index("baseline")]]
    of_row = records.filter(pl.col("provenance").is_in(stale)).group_by(key).agg(stale=pl.len())
    failed = _failed(records["task"][0], store).group_by("arm").agg(failed=pl.len())
    told = table.join(of_row, on=key, how="left", nulls_equal=True, maintain_order="left").join(
        failed, on="arm", how="left", maintain_order="left"
    )
    notes = [
        pl.when(pl.col("note") != "").then("note"),
        pl.when(pl.col("stale").is_not_null()).then(pl.format("stale: {} of {} records", "stale", "n_records")),
        pl.when(pl.col("failed").is_not_null()).then(pl.format("{} failed", "failed")),
    ]
    return told.with_columns(note=pl.concat_list(notes).list.drop_nulls().list.join("; ")).drop("stale", "failed")


def notes(records: pl.DataFrame, store: Store) -> list[str]:
    """A line for each submitted method and each arm that failed, and what stale means where there is any."""
    lines = []
    submitted = records.filter(selection=SUBMITTED).sort("arm", "written").unique(["arm", "setting"], keep="last", maintain_order=True)
    for record in submitted.iter_rows(named=True):
        sent = store.provenance(record["provenance"]).get("submission", {})
        by = f" by {sent['by']}" if sent.get("by") else ""
        paper = f"; {sent['paper']}" if sent.get("paper") else ""
        digest = str(sent.get("sha256", "unknown"))[:12]
        lines.append(f"{cell_text(record['arm'])}: predictions sent in{by}, scored here {record['written'][:10]} (sha256 {digest}){paper}.")
    for (arm, why), rows in _failed(records["task"][0], store).group_by("arm", "why", maintain_order=True):
        lines.append(f"{arm}: {rows.height} failed: {why}.")
    if stale_provenance(store, records["provenance"].drop_nulls().unique()):
        lines.append("stale: the source of the task or baseline has changed since, and its version has not.")
    return lines


def _failed(task: str, store: Store) -> pl.DataFrame:
    """What failed of a task: ``arm`` and ``why``, a row a failure and arm."""
    rows = [
        (str(arm), str(failure.get("error", "")))
        for failure in store.failures().values()
        if failure.get("task") == task
        for arm in ([failure["arm"]] if "arm" in failure else failure.get("arms", []))
    ]
    return pl.DataFrame(rows, schema={"arm": pl.String, "why": pl.String}, orient="row").sort("arm", "why")
