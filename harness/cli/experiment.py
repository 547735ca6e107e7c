"""What ``sweep`` and ``run`` share: plan, run, print, write down."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import check_format, say, show
from harness.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from harness.boards import Gathered
    from harness.output import Output as Where
    from harness.sweep import Prepared


TOLD_TO_LEAVE = 143
"""The exit status after a notice of pre-emption, by which a batch script knows to run the command again."""

LONG = 24
"""Rows from which on the table of what was chosen is for the page and not for the terminal."""


OnError = Annotated[
    str, typer.Option("--on-error", help="continue: other fits go on. stop: what runs keeps a checkpoint and leaves at the first failure.")
]
ON_ERROR = ("continue", "stop")


def carry_out(
    name: str | None,
    overrides: Sequence[str],
    *,
    extra: Sequence[Path],
    dry_run: bool,
    format: str,
    output: Path | None,
    on_error: str = "continue",
    before: Callable[[Prepared], None] = lambda prepared: None,
) -> None:
    """Plan and run a sweep (or, without a name, one evaluation), and print its table.

    Args:
        name: Of the sweep.
        overrides, extra: Of its configs.
        dry_run: Show the plan alone.
        format, output: Of the table.
        on_error: One of :data:`ON_ERROR`.
        before: Done to the sweep as it is planned, before anything runs.

    Raises:
        Exit: With status 1 where an evaluation failed.
    """
    check_format(format)
    if on_error not in ON_ERROR:
        raise RequestError(f"no way to go on is called {on_error!r}", where="--on-error", remedy=did_you_mean(on_error, ON_ERROR))
    from harness import boards, config, plan, sweep
    from harness.preemption import Preempted

    config.use(extra)
    folders = [f"--config-dir {shlex.quote(str(folder))}" for folder in extra]
    command = " ".join(["harness", *(["sweep", name] if name else ["run"]), *map(shlex.quote, overrides), *folders])
    chosen = plan.load_sweep(name, overrides, extra) if name else plan.single(overrides, extra)
    prepared = sweep.prepare(chosen, command=command, extra=extra, say=say)
    if dry_run:
        _show_plan(prepared, format, output)
        return
    before(prepared)
    try:
        prepared = sweep.run(prepared, stop=on_error == "stop", say=say)
    except KeyboardInterrupt:
        raise sweep.interrupted(prepared) from None
    except Preempted:
        say(f"error: {sweep.interrupted(prepared)}")
        raise typer.Exit(TOLD_TO_LEAVE) from None
    for board in boards.gather(prepared):
        _show_board(board, prepared.output, format, output)
    if not sweep.complete(prepared):
        state = sweep.state(prepared)
        for (arm, why), rows in sweep.failed(state).group_by("arm", "why", maintain_order=True):
            say(f"failed: {arm}: {rows.height} evaluations: {why}")
        left = state.filter(state["state"].is_in(["pending", "running", "waiting"])).height
        if left:  # not even why could be written, or another driver has them in hand
            say(f"not made: {left} evaluations; run the same again (is there room on the disk?)")
        raise typer.Exit(1)


def _show_board(board: Gathered, kept: Where, format: str, output: Path | None) -> None:
    from harness.boards import CHOSEN, ELSEWHERE
    from harness.publish.tables import readable, render

    person = format in ("table", "markdown", "latex")
    shown = readable(board.board.table) if person else board.board.table
    show(shown, format=format, output=output, title=board.board.title, notes=(*board.board.legend, *board.extra.notes))
    if person and output is None:
        for name, frame in board.extra.tables.items():
            if name == CHOSEN and frame.height > LONG:
                sys.stdout.write(f"\n{name}: {frame.height} choices, in {name.replace(' ', '_')}.csv\n")
                continue
            if name == ELSEWHERE:
                sys.stdout.write(f"\n{name}: {frame.height} numbers, in {name.replace(' ', '_')}.csv\n")
                continue
            sys.stdout.write("\n" + str(render(frame, format, title=name)))
        for path in board.written:
            say(f"written: {kept.shown(path)}")


def _show_plan(prepared: Prepared, format: str, output: Path | None) -> None:
    import polars as pl

    from harness import boards, plan, sweep

    state = sweep.state(prepared)
    if format != "table":
        show(plan.flatten(state), format=format, output=output)
        return
    trained = [job.name for job in prepared.plan.jobs.values() if job.stages]
    # Refits, and draws not asked yet, have no name.
    refits = pl.struct("fold", "seed", "task", "draw").filter(pl.col("fit").is_null()).n_unique()
    fits = pl.col("fit").filter(pl.col("fit").is_in(trained)).n_unique() + refits
    cost = sweep.estimate(prepared)
    seconds = "no fit like these was timed yet" if cost["seconds"] is None else f"about {cost['seconds']:.0f} s of one worker"
    notes: tuple[str, ...] = (
        f"To run: {cost['fits']} fits (stages that arms share are counted once) and {cost['evaluations']} evaluations; {seconds}.",
    )
    budget = sweep.budget(prepared)
    notes = (*notes, *([boards.budgets(budget)] if budget.height else []))
    show(sweep.summary(state, fits), format=format, output=output, title=f"Plan of {prepared.sweep.name}", notes=notes)
    if budget.height and output is None:
        sys.stdout.write("\n")
        show(budget, format=format, output=output, title="Budget of tuning")
