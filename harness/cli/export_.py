"""``harness export``: an evaluation as files for others: its predictions as the organisers of a challenge want them, or pictures of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import ConfigDir, OutputDir, Overrides, say
from harness.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from harness.store import Store

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
WHAT = ("submission", "pictures")


@app.command()
def export(
    evaluation: Annotated[str, typer.Argument(help="An evaluation, or how its name begins; see `harness list evaluations`.")],
    overrides: Overrides = None,
    what: Annotated[str, typer.Option(help=f"{', '.join(WHAT)} (what the baseline can draw of itself).")] = "submission",
    to: Annotated[
        Path | None, typer.Option(help="A folder for the files; else one that is called as what is in it.", show_default=False)
    ] = None,
    order: Annotated[Path | None, typer.Option(help="The challenge's sample file: which rows, in which order.", show_default=False)] = None,
    output_dir: OutputDir = "outputs",
    config_dir: ConfigDir = None,
) -> None:
    """Write the predictions of an evaluation in the format of its task's challenge (ABAW's text files), or pictures of its baseline.

    KEY=VALUE sets a key of the task that the format of a submission depends on: task.layout=per_video, say.
    """
    from harness import config
    from harness import output as outputs
    from harness.store import write_atomically

    if what not in WHAT:
        raise RequestError(f"nothing to export is called {what!r}", where=f"--what {what}", remedy=did_you_mean(what, WHAT))
    if what == "pictures" and (overrides or order):
        raise RequestError("a picture has no rows and no layout", where="harness export", remedy="leave out --order and KEY=VALUE")
    config.use(config_dir or [])
    store = outputs.opened(output_dir).store
    record = store.record(evaluation)
    if what == "pictures":
        from harness import reopening

        for name, data in reopening.pictures(record, store, store.output / "cache").items():
            write_atomically((to or Path(what)) / name, data)
            say(f"written: {(to or Path(what)) / name}")
        return
    for name, text in _submission(record, store, overrides or [], order).items():
        write_atomically((to or Path(what)) / name, text.encode())
        say(f"written: {(to or Path(what)) / name} ({text.count(chr(10))} lines)")


def _submission(record: Mapping[str, Any], store: Store, overrides: list[str], order: Path | None) -> dict[str, str]:
    """The files of the challenge; what had to be filled is said."""
    from harness import config, plan, tuning
    from harness.samples import Problems

    known = store.provenance(record["provenance"])
    if not known:
        raise RequestError(f"the provenance of {record['evaluation']} is gone", where="harness export", remedy="run its sweep again")
    if str(record["protocol"]).endswith(tuning.ON_VALIDATION):
        what = f"{record['evaluation']} is of the validation part, by which hyper-parameters were chosen"
        raise RequestError(what, where="harness export", remedy="give an evaluation of the test part: see `harness list evaluations`")
    if order is not None and not order.is_file():
        raise RequestError(f"no such file: {order}", where="--order", remedy="give the sample file of the challenge")
    problems = Problems()
    predictions = store.read_predictions(record["predictions"], record["sha256"])
    node = {"task": known["task"]}
    for item in overrides:
        key, _, value = item.partition("=")
        config.place(node, key, value)
    files = plan.make_task(node["task"]).submission(predictions, problems, order)
    for kind, file, line, _, detail in problems.frame().iter_rows():
        say(f"{kind}: {file}{'' if line is None else f':{line}'}: {detail}")
    return files
