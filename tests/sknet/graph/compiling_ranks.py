"""A rank that joins others under msrun, compiles a recipe's graphs and writes what they have."""

import argparse
import sys
from pathlib import Path

from sknet import program
from sknet.graph.audit import audit
from sknet.graph.compiling import compile_graphs, saved_graphs
from sknet.recipe import load_recipe


def main(arguments: argparse.Namespace) -> None:
    recipe = load_recipe("skresnet18_ascend")
    with saved_graphs() as folder:
        from sknet.world import join_world, set_device

        set_device("CPU")
        world = join_world(distribute=True)
        graphs = list(compile_graphs(recipe, "CPU", world.size, folder))
        audit(graphs).write(arguments.out / f"{world.rank}.json")
        # msrun ends all ranks when the first one leaves, so they wait for each other.
        world.sum(0.0)


if __name__ == "__main__":
    parser = program.parser("test")
    parser.add_argument("--out", type=Path, required=True)
    sys.exit(program.run(main, parser.parse_args()))
