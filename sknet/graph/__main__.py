"""Print the primitives and collectives to which a recipe's training and evaluation compile.

python -m sknet.graph --recipe NAME [--workers N] [--device_target auto|CPU|Ascend] [--json OUT]

Nothing is executed and no data is read. Without Ascend cards, `--device_target Ascend` compiles
the network's form for Ascend with MindSpore's frontend for CPU. If a graph for Ascend has something
that is unfit for it, the last line names that, and the exit code is 1.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from infra.base.options import positive_int
from sknet import outputs, program
from sknet.device import choose_device, find_cards
from sknet.errors import GraphError
from sknet.graph.audit import GraphAudit, Primitive, audit, findings
from sknet.graph.compiling import CompiledGraph, compile_graphs, saved_graphs
from sknet.graph.platforms import REVIEWED, declared_platforms
from sknet.recipe import load_recipe

NOT_COVERED = (
    "Not covered: operators that MindSpore itself chooses by the device, and what Ascend's own "
    "passes do later."
)


def main(arguments: argparse.Namespace) -> None:
    """Compile, print a table and the findings, and write the file of --json.

    Raises:
        UserError: The recipe, the number of workers or the device is wrong.
        GraphError: The graph of a training on Ascend has something that is unfit for it.
    """
    recipe = load_recipe(arguments.recipe)
    recipe.global_batch(arguments.workers)  # refuses workers that can't divide it
    device = choose_device(arguments.device_target, recipe)
    target = "Ascend" if device.is_replacement else device.target
    frontend = target if find_cards().usable else "CPU"
    if arguments.json:
        outputs.make_directory(arguments.json.parent, "--json")
    workers = f"{arguments.workers} worker{'s' if arguments.workers > 1 else ''}"
    print(
        f"compiling {recipe.name} for {workers} on {target}, with MindSpore's frontend for "
        f"{frontend}; nothing is executed",
        flush=True,
    )
    # Suppresses MindSpore's warnings about itself. It is read when MindSpore is imported.
    os.environ.setdefault("GLOG_v", "3")
    with saved_graphs() as folder:
        from sknet.world import set_device

        set_device(frontend, jit_level=recipe.jit_level)
        graphs = list(compile_graphs(recipe, target, arguments.workers, folder))
    result = audit(graphs)
    outputs.write_json(result, arguments.json)
    print("\n".join(_lines(graphs, result)))
    if target == "Ascend":
        print(NOT_COVERED)
        if found := list(findings(result)):
            raise GraphError(
                f"the graphs of {recipe.name} are unfit for Ascend: {'; '.join(found)}"
            )


def _lines(graphs: list[CompiledGraph], result: GraphAudit) -> Iterator[str]:
    """Yield the tables of primitives and collectives, and the sources of what was reviewed."""
    counts = {graph.name: Counter(node.primitive for node in graph.nodes) for graph in graphs}
    rows = [
        (
            primitive.name,
            *(of_graph[primitive.name] or "" for of_graph in counts.values()),
            " ".join(primitive.dtypes),
            _platforms(primitive),
        )
        for primitive in result.primitives
    ]
    yield tabulate(rows, headers=("primitive", *counts, "dtypes", "platforms"))
    if result.collectives:
        collectives = [(c.name, c.count, c.dtype, c.fusion or "none") for c in result.collectives]
        yield ""
        yield tabulate(collectives, headers=("collective", "count", "dtype", "fusion"))
    yield ""
    for primitive in result.primitives:
        if _is_reviewed(primitive):
            entry = REVIEWED[primitive.name]
            yield f"{primitive.name}: {entry.reason} Source: {entry.source}"


def _platforms(primitive: Primitive) -> str:
    if primitive.platforms:
        return " ".join(primitive.platforms)
    if _is_reviewed(primitive):
        return "reviewed, see below"
    return "no public class" if declared_platforms(primitive.name) is None else "deprecated"


def _is_reviewed(primitive: Primitive) -> bool:
    return not primitive.platforms and primitive.name in REVIEWED


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    result = program.parser(__doc__.splitlines()[0])
    result.add_argument("--recipe", required=True, help="its name, or the path of a YAML file")
    result.add_argument(
        "--workers",
        type=positive_int,
        default=1,
        help="number of ranks; the graph is that of one of them (default: 1)",
    )
    program.add_device_option(result)
    result.add_argument(
        "--json", type=Path, help="file for primitives and collectives (default: none)"
    )
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
