"""A rank that joins others under msrun, compiles a recipe's graphs and writes what they have."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infra.base.commands import OPTIONS, app_of, start
from sknet import program
from sknet.graph.audit import audit
from sknet.graph.compiling import compile_graphs, saved_graphs
from sknet.options import LaunchedOptions
from sknet.recipe import load_recipe


@dataclass(frozen=True, kw_only=True)
class Options(LaunchedOptions):
    out: Path
    """Directory for what each rank compiled."""


def main(arguments: Options) -> None:
    recipe = load_recipe("skresnet18_ascend")
    with saved_graphs() as folder:
        from sknet.world import join_world, set_device

        set_device("CPU")
        world = join_world(distribute=True)
        graphs = list(compile_graphs(recipe, "CPU", world.size, folder))
        audit(graphs).write(arguments.out / f"{world.rank}.json")
        # msrun ends all ranks when the first one leaves, so they wait for each other.
        world.sum(0.0)


def command(options: Annotated[Options, OPTIONS]) -> int:
    return program.run(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "compiling_ranks")))
