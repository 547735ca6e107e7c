"""The command line: one short file a verb, imported only when that verb runs."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from harness.errors import FitError, RequestError, did_you_mean

VERBS = {
    "sweep": "Plan a named sweep, run what is missing, print the table.",
    "run": "One baseline on one task, by its whole protocol, with your overrides.",
    "status": "Done, running, pending, failed (why) and stale evaluations; --watch, --failures.",
    "retry": "What failed and was given up is tried again.",
    "leaderboard": "The ranked table of a task, with uncertainty.",
    "compare": "Two of anything in a store against each other: differences, p-values, where.",
    "submit": "Somebody else's predictions: checked, scored here, entered beside the others.",
    "publish": "Leaderboards as a site, Markdown, Parquet, LaTeX, and to W&B.",
    "rescore": "New scores from stored predictions; no model is run.",
    "export": "Predictions in the format of the task's challenge, or pictures.",
    "data": "check, synth or cache a dataset on disk.",
    "perf": "Speed: run measures it, compare with a git revision, report its history.",
    "list": "tasks, baselines, sweeps, datasets, fits or evaluations.",
}
"""Every verb with its short help, so that ``--help`` imports none of them."""


class _Verbs(TyperGroup):
    """Loads a verb when it is called."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(VERBS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        if cmd_name not in VERBS:
            raise RequestError(f"no verb is called {cmd_name!r}", where="harness", remedy=did_you_mean(cmd_name, VERBS))
        return typer.main.get_command(importlib.import_module(f"harness.cli.{cmd_name}_").app)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog="--debug with any verb adds the traceback of an error. KEY=VALUE is a Hydra override.")
def harness() -> None:
    """A distributed benchmark harness for facial-affect models."""


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 something failed and the table says what, 2 the request was wrong."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        status = _carry_out(arguments or ["--help"])
    except RequestError as error:
        status = _say(str(error), 2, debug)
    except FitError as error:
        status = _say(str(error), 1, debug)
    except typer.TyperException as error:
        status = _say(f"{error.format_message().rstrip('.')}; see `harness{_verb(arguments)} --help`", 2, debug)
    except KeyboardInterrupt:
        status = _say("stopped; everything finished is kept", 130, debug)
    except Exception as error:  # a bug, of this program or of somebody's plug-in
        status = _say(f"{type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)", 1, debug)
    sys.exit(status if isinstance(status, int) else 0)


def _carry_out(arguments: list[str]) -> Any:
    if arguments[0] == "list" and len(arguments) == 2:
        from harness.cli import list_

        if arguments[1] in list_.GROUPS:  # not through Typer, whose pydantic takes longer to import than all the rest together
            return list_.names(arguments[1])
    return app(arguments, prog_name="harness", standalone_mode=False)


def _verb(arguments: list[str]) -> str:
    return f" {arguments[0]}" if arguments and arguments[0] in VERBS else ""


def _say(line: str, status: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"error: {line}", file=sys.stderr)
    return status
