"""How long the command line takes to answer where nothing is computed, as a process of its own, and what that imports."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import PLUGIN, command
from tests.perf import apart
from tests.perf.measuring import Instead, Measure

HEAVY = ("torch", "ray", "pandas", "transformers", "wandb", "deepspeed", "scipy", "sklearn", "numpy", "polars", "hydra", "omegaconf")
_COUNT = (
    "import sys; sys.argv = ['harness', *sys.argv[1:]]\n"
    "from harness.cli import main\n"
    "try: main()\n"
    "except SystemExit: print('\\nMODULES', len(sys.modules), *sorted({heavy} & set(sys.modules)))"
)


@pytest.mark.parametrize("arguments", [("--help",), ("list", "tasks"), ("list", "baselines"), ("lsit",)], ids=" ".join)
def test_start_up(measure: Measure, arguments: tuple[str, ...]) -> None:
    printed = apart.run([sys.executable, "-c", _COUNT.replace("{heavy}", repr(set(HEAVY))), *arguments], PLUGIN, check=False).printed
    count, *heavy = printed.rsplit("MODULES ", 1)[1].split()
    assert not heavy
    measure.note(modules=int(count), heavy_modules=len(heavy))
    bare = Instead(lambda: apart.run([sys.executable, "-c", ""], PLUGIN))
    measure(
        lambda: measure.command(*command(*arguments), cwd=PLUGIN, check=False),
        rounds=measure.sized(15, 7, 1),
        instead={"an interpreter that imports nothing": bare},
    )
