"""``harness data``: verify a dataset on disk, write a synthetic one, fill the frame cache ahead of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness import config
from harness.cli.options import ConfigDir, Format, Output, Overrides, check_format, emit, say, show
from harness.errors import RequestError, did_you_mean

HELP = "Verify a dataset on disk, write a synthetic one, fill the frame cache."
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=HELP)

Dataset = Annotated[str, typer.Argument(help="A layout; see `harness list datasets`.")]
Root = Annotated[Path, typer.Argument(help="Its folder.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the reader or the writer: seed=1, subjects=20 …", show_default=False),
]


def _dataset(name: str, extra: list[Path] | None) -> dict[str, Any]:
    import yaml

    for folder in config.config_dirs(extra or ()):
        if (file := folder / "dataset" / f"{name}.yaml").is_file():
            known: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            return known
    remedy = did_you_mean(name, config.available("dataset", extra or ()))
    raise RequestError(f"no dataset is called {name!r}", where="harness data", remedy=remedy)


@app.command(context_settings={"ignore_unknown_options": True})
def check(
    dataset: Dataset,
    root: Root,
    settings: Settings = None,
    images: Annotated[bool, typer.Option("--images", help="Open every image too.")] = False,
    examples: Annotated[int, typer.Option(help="Problems shown of each kind.")] = 3,
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> None:
    """Read the labels and say what is there and what is wrong: counts, published counts beside them, problems by kind.

    KEY=VALUE sets an argument of the reader (challenge=mtl, frame_base=1 …).
    """
    import json

    from harness import checking
    from harness.sweep import progress_bar

    check_format(format)
    known = _dataset(dataset, config_dir)
    config.use(config_dir or [])
    arguments = _arguments(known["read"], settings, "harness data check")
    reading = config.instantiate(arguments, root=_folder(root))
    if images:
        with progress_bar("images", say) as advance:
            reading = checking.with_images(reading, lambda done, total: advance(done, total, ""))
    report = checking.report(reading, _published(known, arguments), examples=examples)
    if format == "json":
        emit(json.dumps(report, indent=1, ensure_ascii=False), output)
        return
    counts, labels, problems = checking.tables(report)
    show(counts, format=format, output=output, title=f"{known['title']} at {root}")
    if format in ("csv", "parquet"):  # one table a file: the problems are in the JSON
        return
    if labels.height:
        show(labels, format=format, output=None, title="Labels")
    if problems.height:
        show(problems, format=format, output=None, title="Problems")
    else:
        say("no problems")


@app.command(context_settings={"ignore_unknown_options": True})
def synth(
    dataset: Dataset,
    root: Root,
    settings: Settings = None,
    config_dir: ConfigDir = None,
) -> None:
    """Write a synthetic copy of a layout, with the quirks of the real one.

    KEY=VALUE sets an argument of the writer: subjects=4 seed=1, or --subjects 4 --seed 1.
    """
    known = _dataset(dataset, config_dir)
    config.use(config_dir or [])
    config.instantiate(_arguments(known["synth"], settings, "harness data synth"), root=root)
    say(f"a synthetic {known['title']} is in {root}")


def _published(known: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The published counts, and those of what the reader was asked for (``published_of: {challenge: {va: …}}``)."""
    found: dict[str, Any] = dict(known.get("published") or {})
    for name, choices in (known.get("published_of") or {}).items():
        found |= choices.get(str(arguments.get(name)), {})
    return found


def _arguments(node: dict[str, Any], settings: list[str] | None, where: str) -> dict[str, Any]:
    """A reader's or writer's config with what the command line sets: ``seed=1``, ``--seed=1`` or ``--seed 1``.

    Args:
        node: ``_target_`` and arguments.
        settings: As typed.
        where: Said in errors.
    """
    import inspect

    import yaml
    from hydra.utils import get_method

    takes = set(inspect.signature(get_method(node["_target_"])).parameters) - {"root"}
    arguments = dict(node)
    words = list(settings or [])
    while words:
        item = words.pop(0)
        key, equals, value = item.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if not equals and item.startswith("--") and words:
            value, equals = words.pop(0), "="
        if not equals or key not in takes:
            raise RequestError(f"no such argument: {item}", where=where, remedy=did_you_mean(key, takes))
        try:
            arguments[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RequestError(f"{value!r} is no value", where=f"{where} {key}", remedy="quote it for the shell, as frames=[4,8]") from None
    return arguments


@app.command()
def cache(
    dataset: Dataset,
    root: Root,
    overrides: Overrides = None,
    task: Annotated[
        str | None, typer.Option(help="Whose frames are wanted; the first on this dataset by default.", show_default=False)
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Decode, crop and resize every image once, as a task's sweep would (with task.frames.size=64, say, and output_dir=…)."""
    from harness import output as outputs
    from harness import snapshot
    from harness.sweep import progress_bar

    extra = config_dir or []
    config.use(extra)
    _dataset(dataset, extra)
    tasks = [task] if task else list(config.available("task", extra))
    for name in tasks:
        composed = config.compose([f"task={name}", f"task.root={_folder(root)}", *(overrides or [])], extra)
        if composed["task"]["dataset"]["name"] == dataset:
            break
    else:
        where = f"--task {task}" if task else "configs/task"
        raise RequestError(f"no task reads {dataset}", where=where, remedy="see `harness list tasks`")
    folder = outputs.at(composed["output_dir"]).folder / "cache"
    with progress_bar("reading frames", say) as advance:
        taken = snapshot.take(composed["task"], folder, lambda done, total: advance(done, total, ""))
    say(f"{len(taken.frames)} frames of {name} are in the cache; {taken.problems.height} problems (see `harness data check`)")


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise RequestError(f"no such folder: {root}", where="ROOT", remedy="give the folder of the dataset")
    return root.resolve()
