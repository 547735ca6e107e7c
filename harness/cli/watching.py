"""``harness status --watch``: the same again and again, until nothing is left or nobody works on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.cli.options import say

if TYPE_CHECKING:
    import polars as pl

    from harness.store import Store

IDLE = 30.0
"""Seconds for which nobody may work on what is pending, until watching ends."""

STATES = ("done", "stale", "running", "pending", "waiting", "stopped", "failed")


def watch(state: Callable[[], pl.DataFrame], store: Store, *, title: str, every: float) -> pl.DataFrame:
    """Show where a sweep stands until it ends; Ctrl-C ends it before.

    Args:
        state: As of ``sweep.state``, now.
        store: Of the sweep.
        title: What stands above.
        every: Seconds between two looks.

    Returns:
        The last state.
    """
    from harness.progress import under_way

    began, first, worked = time.monotonic(), None, time.monotonic()
    with _screen() as put:
        while True:
            now, running = state(), under_way(store)
            counts = dict(now.group_by("state").len().iter_rows())
            made = counts.get("done", 0) + counts.get("stale", 0)
            first = made if first is None else first
            left = sum(counts.get(name, 0) for name in ("running", "pending", "waiting"))
            put(title, _counted(counts) + _left(made - first, left, time.monotonic() - began), running)
            worked = time.monotonic() if running else worked
            if not left or time.monotonic() - worked > IDLE:
                break
            try:
                time.sleep(every)
            except KeyboardInterrupt:
                return now
    if left:
        say(f"nobody works on the {left} that are left")
    return now


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in STATES if counts.get(name)) or "nothing planned"


def _left(made: int, left: int, seconds: float) -> str:
    """What can be said of the rest from what was made while we looked."""
    if not left or made < 1 or seconds < 1:
        return ""
    return f"; {made / seconds:.2g} evaluations a second, about {left * seconds / made:.0f} s left"


def _line(told: dict[str, Any], now: float) -> dict[str, str]:
    """What a worker told, as it is shown."""
    epoch = f"{told['stage']} {told['epoch']} of {told['epochs']}" if "epoch" in told else ""
    loss = told.get("loss")
    return {
        "arm": ", ".join(told.get("arms", ())),
        "fold": str(told.get("fold", "")),
        "seed": str(told.get("seed", "")),
        "epoch": epoch,
        "loss": f"{loss:.4f}" if isinstance(loss, float) else "",
        "evaluations": f"{told.get('evaluations', 0)} of {told['of']}" if "of" in told else "",
        "for": f"{max(0.0, now - float(told.get('began', now))):.0f} s",
    }


@contextmanager
def _screen() -> Iterator[Callable[[str, str, list[dict[str, Any]]], None]]:
    """A table that changes in its place on a terminal; elsewhere a line a look."""
    if not sys.stdout.isatty():

        def tell(title: str, counted: str, running: list[dict[str, Any]]) -> None:
            shown = [
                " ".join(filter(None, (f"{key} {text}" if text else "" for key, text in _line(told, time.time()).items())))
                for told in running
            ]
            print("; ".join([f"{time.strftime('%H:%M:%S')} {counted}", *shown]), flush=True)

        yield tell
        return
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    with Live(auto_refresh=False) as live:

        def show(title: str, counted: str, running: list[dict[str, Any]]) -> None:
            table = Table(box=None, pad_edge=False)
            rows = [_line(told, time.time()) for told in running]
            for key in rows[0] if rows else ():
                table.add_column(key)
            for row in rows:
                table.add_row(*map(Text, row.values()))
            live.update(Group(Text(title, style="bold"), Text(counted), table), refresh=True)

        yield show
