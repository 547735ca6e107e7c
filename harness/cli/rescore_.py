"""``harness rescore``: new scores from stored predictions, without a model."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import ConfigDir, OutputDir, say
from harness.errors import RequestError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def rescore(
    task: Annotated[str | None, typer.Argument(help="One task; all by default.", show_default=False)] = None,
    output_dir: OutputDir = "outputs",
    config_dir: ConfigDir = None,
) -> int:
    """Score stored predictions again with the task as its YAML and its code are now.

    Records of another version or protocol of the task stay; the new ones stand beside them.
    """
    from harness import config
    from harness import output as outputs
    from harness.rescoring import rescore_task

    extra = config_dir or []
    config.use(extra)
    opened = outputs.opened(output_dir)
    store = opened.store
    names = [task] if task else sorted(set(store.records()["task"]))
    if not names:
        raise RequestError(f"no records in {store}", where="--output-dir", remedy="run a sweep first, or name another folder")
    opened.check(write=True)
    problems: list[str] = []
    for name in names:
        try:
            again = rescore_task(name, store, extra)
        except RequestError as error:
            if task:
                raise
            problems.append(str(error))  # the store holds a task that is not known here
            continue
        say(f"{name}: {again.done} evaluations scored again, {again.changed} scores changed")
        problems += again.problems
    store.pack()
    for problem in problems:
        say(f"error: {problem}")
    return 1 if problems else 0
