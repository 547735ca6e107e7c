"""``harness retry``: what was given up is tried again."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.experiment import OnError, carry_out
from harness.cli.options import ConfigDir, Format, Output, Overrides, say

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def retry(
    name: Annotated[str | None, typer.Argument(help="A sweep; without one, all that failed in the store.", show_default=False)] = None,
    overrides: Overrides = None,
    output_dir: Annotated[str | None, typer.Option(help="Whose store, a folder or a URL; outputs by default.", show_default=False)] = None,
    on_error: OnError = "continue",
    config_dir: ConfigDir = None,
    format: Format = "table",
    output: Output = None,
) -> None:
    """Forget failures, and run what failed of a sweep (arms=a,b: of some arms); without a sweep, the next that had them tries again."""
    from harness import sweep

    if name is None:
        from harness import output as outputs

        store = outputs.opened(output_dir or "outputs").store
        names = list(store.failures())
        for failed in names:
            store.forget_failure(failed)
        say(f"{len(names)} failures are forgotten; the sweeps that had them try again")
        return
    given = [*(overrides or []), *([f"output_dir={output_dir}"] if output_dir else [])]

    def forget(prepared: sweep.Prepared) -> None:
        say(f"{sweep.forget_failures(prepared)} failures are forgotten")

    carry_out(name, given, extra=config_dir or [], dry_run=False, format=format, output=output, on_error=on_error, before=forget)
