"""``harness submit``: somebody else's predictions, checked, scored here and entered beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import ConfigDir, Format, Output, OutputDir, check_format, emit, say, show
from harness.errors import RequestError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
SHOWN = 50


@app.command()
def submit(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE] [KEY=VALUE]...", help="Predictions, then Hydra overrides.", show_default=False)
    ] = None,
    task: Annotated[str, typer.Option(help="Which they are of; see `harness list tasks`.")] = "",
    name: Annotated[str, typer.Option(help="What the method is called in tables.")] = "",
    paper: Annotated[str | None, typer.Option(help="Its address, https://….", show_default=False)] = None,
    by: Annotated[str | None, typer.Option(help="Who sent them.", show_default=False)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="The setting they are for: support.size=4.", show_default=False),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="The protocol's id they are for, if the file does not say.", show_default=False)
    ] = None,
    task_version: Annotated[str | None, typer.Option(help="The same of the task's version.", show_default=False)] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check; nothing is scored or entered.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In the place of another file of this name.")] = False,
    template: Annotated[
        Path | None, typer.Option(help="Write what is to be predicted (.csv or .parquet, no labels), and end.", show_default=False)
    ] = None,
    problems: Annotated[int, typer.Option(min=1, max=10_000, help="How many problems are shown.")] = SHOWN,
    output_dir: OutputDir = "outputs",
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> int:
    """Score somebody's predictions and enter them, marked as submitted; what is wrong is listed by row, and then nothing is entered.

    FILE is Parquet or csv: sample and, as the task asks, valence_pred, arousal_pred, expression_pred, expression_p_happy …, au12_pred,
    with fold and seed where there are several; or the text file of the task's challenge. task.root=… is where the labels are.
    """
    check_format(format)
    if not task:
        raise RequestError("no task is named", where="--task", remedy="see `harness list tasks`")
    files = [word for word in words or [] if "=" not in word or Path(word).exists()]
    overrides = [word for word in words or [] if word not in files]
    overrides += [f"evaluate.{item}" for item in set_ or []]
    if len(files) != (template is None):
        remedy = "it is written, not read: leave FILE out" if template else "give one file; an override is KEY=VALUE"
        raise RequestError(f"{len(files)} files are given", where="FILE", remedy=remedy)
    from harness import config, submission, sweep
    from harness import output as outputs
    from harness.identity import address_of_file
    from harness.store import cannot_write

    extra, opened = config_dir or [], outputs.opened(output_dir)
    config.use(extra)
    if template is None and not (check and not name):
        name = submission.check_name(name, list(config.available("baseline", extra)))
    paper, by = submission.check_paper(paper), None if by is None else submission.check_name(by, [])
    with sweep.progress_bar("reading frames", say) as advance:
        cache = opened.folder / "cache"
        asked = submission.wanted(task, overrides, extra=extra, cache=cache, progress=lambda done, total: advance(done, total, ""))
    if template is not None:
        if template.suffix.lower() not in (".csv", ".parquet"):
            raise RequestError(f"{template.name} is neither .csv nor .parquet", where="--template", remedy="name it so")
        emit(submission.template(asked, parquet=template.suffix.lower() == ".parquet"), template)
        say(f"{asked.rows.height} samples to predict, no labels; {asked.facts['protocol']}, version {asked.facts['task_version']}")
        return 0
    file = Path(files[0])
    try:
        predictions, faults = submission.read(file, asked, claims={"protocol": protocol, "task_version": task_version})
        sha256 = submission.address_of(file) if file.is_dir() else address_of_file(file)
    except OSError as error:
        raise RequestError(f"cannot read {file}: {error.strerror}", where="FILE") from None
    if faults.height:
        rest = faults.height - problems
        notes = (f"{faults.height} problems; nothing is entered." + (f" {rest} more are not shown." if rest > 0 else ""),)
        show(faults.head(problems), format=format, output=output, title=f"What is wrong with {file.name}", notes=notes)
        say(f"error: {file.name}: {faults.height} problems, nothing is entered")
        return 1
    seeds = len({seed for _, seed in predictions})
    told = f"{asked.rows.height * seeds} predictions, folds {', '.join(map(str, asked.folds))}, {seeds} seeds: nothing is wrong"
    if check:
        say(told)
        return 0
    opened.check(write=True)
    store = opened.store
    try:
        entered = submission.enter(predictions, asked, store, name=name, sha256=sha256, paper=paper, by=by, replace=replace)
    except OSError as error:
        raise cannot_write(store.root, error) from error
    say(told)
    primary = asked.task.info.primary
    import polars as pl

    rows = [(fold, seed, score.metrics[primary]) for (fold, seed), score in entered.scores.items()]
    table = pl.DataFrame(rows, schema={"fold": pl.Int64, "seed": pl.Int64, primary: pl.Float64}, orient="row").fill_nan(None)
    show(table, format=format, output=output, title=f"{name} on {task} (submitted)")
    if entered.known:
        say("it was entered before; nothing has changed")
    else:
        say(f"entered as submitted{f', {entered.replaced} records replaced' if entered.replaced else ''}: see `harness leaderboard {task}`")
    return 0
