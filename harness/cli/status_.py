"""``harness status``: where a sweep stands, or what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import ConfigDir, Format, Output, Overrides, check_format, say, show
from harness.errors import RequestError

if TYPE_CHECKING:
    import polars as pl

    from harness.store import Store

LINES = 12
"""Of the log of a failure that are shown."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A sweep; without one, everything in the store.", show_default=False)] = None,
    overrides: Overrides = None,
    output_dir: Annotated[str | None, typer.Option(help="Whose store, a folder or a URL; outputs by default.", show_default=False)] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until it ends.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="With --watch: seconds between two looks.")] = 2.0,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file of the store; what is damaged is set aside.")] = False,
    failures: Annotated[bool, typer.Option("--failures", help="What failed, how often, and the last lines of its log.")] = False,
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> int:
    """Done, running, pending, failed (why) and stale evaluations; exit status 1 where something failed."""
    check_format(format)
    if verify:
        if name is not None:
            raise RequestError("a whole store is verified", where=f"harness status {name} --verify", remedy="leave out the sweep")
        return _verify(output_dir or "outputs")
    if name is not None and "=" in name:
        raise RequestError(f"{name!r} is no sweep", where="harness status", remedy="name the sweep first, or give --output-dir alone")
    if name is None:
        return _store(output_dir or "outputs", watch, every, failures, format, output)
    return _sweep(name, overrides, output_dir, config_dir, watch, every, failures, format, output)


def _verify(output_dir: str) -> int:
    """Read every file; exit status 1 where one was not what was written."""
    from harness import integrity
    from harness import output as outputs

    store = outputs.opened(output_dir).store
    if store.elsewhere:
        raise RequestError("a store at a URL is verified by whoever reads it", where=output_dir, remedy="verify a store in a folder")
    damaged = integrity.check(store, every=True)
    say(f"{len(damaged)} files were damaged; the sweeps they are of make them again" if damaged else "every file is what was written")
    return 1 if damaged else 0


def _store(output_dir: str, watch: bool, every: float, failures: bool, format: str, output: Path | None) -> int:
    from harness import output as outputs
    from harness.failures import described, of_draw

    store = outputs.opened(output_dir).store
    if watch:
        from harness.cli.watching import watch as watched

        watched(lambda: _in_store(store), store, title=output_dir, every=every)
    known = store.failures()
    if failures:
        _show_failures(known, format, output)
    else:
        held = _in_store(store)
        show(
            held.group_by("task", "protocol", "arm", "state").len("evaluations").sort("task", "protocol", "arm", "state"),
            format=format,
            output=output,
        )
        for failed, failure in known.items():
            if not of_draw(failure):
                say(f"failed: {_of_whom(failure)} ({failed}): {described(failure)}")
    return 1 if any(not of_draw(failure) for failure in known.values()) else 0


def _in_store(store: Store) -> pl.DataFrame:
    """``task``, ``protocol``, ``arm`` and ``state`` of every record, and of what is under way."""
    import polars as pl

    from harness import sweep
    from harness.leaderboard import SUBMITTED
    from harness.progress import under_way

    records = store.records()
    stale = sweep.stale_provenance(store, records["provenance"].unique())
    state = pl.when(pl.col("provenance").is_in(stale)).then(pl.lit("stale")).when(pl.col("selection") == SUBMITTED).then(pl.lit(SUBMITTED))
    held = records.select("task", "protocol", "arm", state=state.otherwise(pl.lit("done")))
    running = [(told["task"], "", ", ".join(told["arms"]), "running") for told in under_way(store) for _ in range(int(told.get("of", 1)))]
    return pl.concat([held, pl.DataFrame(running, schema=held.schema, orient="row")])


def _sweep(
    name: str,
    overrides: list[str] | None,
    output_dir: str | None,
    config_dir: list[Path] | None,
    watch: bool,
    every: float,
    failures: bool,
    format: str,
    output: Path | None,
) -> int:
    import polars as pl

    from harness import plan, sweep

    given = [*(overrides or []), *([f"output_dir={output_dir}"] if output_dir else [])]
    prepared = sweep.prepare(plan.load_sweep(name, given, config_dir or []), command="", extra=config_dir or [], say=say)
    if watch:
        from harness.cli.watching import watch as watched

        def look() -> pl.DataFrame:
            nonlocal prepared
            prepared = sweep.planned_again(prepared) if prepared.sweep.tune else prepared
            return sweep.state(prepared)

        state = watched(look, prepared.store, title=f"Sweep {name}", every=every)
    else:
        state = sweep.state(prepared)
    if failures:
        mine = {*state["evaluation"], *state["fit"]}
        _show_failures({failed: failure for failed, failure in prepared.store.failures().items() if failed in mine}, format, output)
    elif format != "table":
        show(plan.flatten(state), format=format, output=output)
    else:
        fits = pl.col("fit").drop_nulls().n_unique()
        show(sweep.summary(state, fits), format=format, output=output, title=f"Sweep {name}")
    return 1 if sweep.failed(state).height else 0


def _show_failures(known: dict[str, dict[str, Any]], format: str, output: Path | None) -> None:
    """A row a failure; for a person with the last lines of its log below."""
    import polars as pl

    from harness.failures import attempts, described

    shown = ("name", "task", "arm", "fold", "seed", "runs", "written", "why", "log")
    rows = [
        (
            name,
            *(None if value is None else str(value) for value in (failure.get("task"), _of_whom(failure))),
            *(failure.get("fold"), failure.get("seed"), attempts(failure)),
            *(str(failure.get(key) or "") for key in ("written",)),
            described(failure),
            str(failure.get("log") or ""),
        )
        for name, failure in known.items()
    ]
    types = dict(zip(shown, (pl.String, pl.String, pl.String, pl.Int64, pl.Int64, pl.Int64, pl.String, pl.String, pl.String), strict=True))
    table = pl.DataFrame(rows, schema=types, orient="row")
    if format != "table" or output is not None:
        show(table, format=format, output=output)
        return
    for row in table.iter_rows(named=True):
        print(f"{row['arm']}, {row['task']}, fold {row['fold']}, seed {row['seed']} ({row['name']}, {row['written']})")
        print(f"  {row['why']}")
        for line in row["log"].rstrip().splitlines()[-LINES:]:
            print(f"  | {line}")
    print(f"{table.height} failures" if table.height else "nothing has failed")


def _of_whom(failure: dict[str, Any]) -> str:
    return str(failure["arm"]) if "arm" in failure else ", ".join(failure.get("arms", []))
