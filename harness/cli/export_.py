"""``harness export``: the predictions of an evaluation as the organisers of its task's challenge want them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import ConfigDir, Overrides, say
from harness.errors import RequestError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def export(
    evaluation: Annotated[str, typer.Argument(help="An evaluation, or how its name begins; see `harness list evaluations`.")],
    overrides: Overrides = None,
    to: Annotated[Path, typer.Option(help="A folder for the files.")] = Path("submission"),
    order: Annotated[Path | None, typer.Option(help="The challenge's sample file: which rows, in which order.", show_default=False)] = None,
    output_dir: Annotated[Path, typer.Option(help="Whose store.")] = Path("outputs"),
    config_dir: ConfigDir = None,
) -> None:
    """Write the predictions of an evaluation in the format of its task's challenge (ABAW's text files).

    KEY=VALUE sets a key of the task that its format depends on: task.layout=per_video, say.
    """
    from harness import config, plan, tuning
    from harness.samples import Problems
    from harness.store import Store, write_atomically

    config.use(config_dir or [])
    store = Store(output_dir / "store")
    record = store.record(evaluation)
    known = store.provenance(record["provenance"])
    if not known:
        raise RequestError(f"the provenance of {evaluation} is gone", where="harness export", remedy="run its sweep again")
    if str(record["protocol"]).endswith(tuning.ON_VALIDATION):
        what = f"{evaluation} is of the validation part, by which hyper-parameters were chosen"
        raise RequestError(what, where="harness export", remedy="give an evaluation of the test part: see `harness list evaluations`")
    if order is not None and not order.is_file():
        raise RequestError(f"no such file: {order}", where="--order", remedy="give the sample file of the challenge")
    problems = Problems()
    predictions = store.read_predictions(record["predictions"], record["sha256"])
    node = {"task": known["task"]}
    for item in overrides or []:
        key, _, value = item.partition("=")
        config.place(node, key, value)
    files = plan.make_task(node["task"]).submission(predictions, problems, order)
    for kind, file, line, _, detail in problems.frame().iter_rows():
        say(f"{kind}: {file}{'' if line is None else f':{line}'}: {detail}")
    for name, text in files.items():
        write_atomically(to / name, text.encode())
        say(f"written: {to / name} ({text.count(chr(10))} lines)")
