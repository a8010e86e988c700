"""Print the primitives and collectives to which a recipe's training and evaluation compile.

python -m sknet.graph --recipe NAME [--workers N] [--device_target auto|CPU|Ascend] [--json OUT]

Nothing is executed and no data is read. Without Ascend cards, `--device_target Ascend` compiles
the network's form for Ascend with MindSpore's frontend for CPU. If a graph for Ascend has something
that is unfit for it, the last line names that, and the exit code is 1.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tabulate import tabulate

from infra.base.commands import OPTIONS, app_of, parsed_by, start
from infra.base.options import positive_int
from sknet import outputs, program
from sknet.device import choose_device, find_cards
from sknet.errors import GraphError
from sknet.graph.audit import GraphAudit, Primitive, audit, findings
from sknet.graph.compiling import CompiledGraph, compile_graphs, saved_graphs
from sknet.graph.platforms import REVIEWED, declared_platforms
from sknet.options import DeviceOptions, LaunchedOptions
from sknet.recipe import load_recipe

NOT_COVERED = (
    "Not covered: operators that MindSpore itself chooses by the device, and what Ascend's own "
    "passes do later."
)


def main(arguments: "Options") -> None:
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
    outputs.prepare_file(arguments.json, "--json")
    workers = f"{arguments.workers} worker{'s' if arguments.workers > 1 else ''}"
    print(
        f"compiling {recipe.name} for {workers} on {target}, with MindSpore's frontend for "
        f"{frontend}; nothing is executed",
        flush=True,
    )
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


@dataclass(frozen=True, kw_only=True)
class Options(DeviceOptions, LaunchedOptions):
    """What is compiled."""

    recipe: str
    """Recipe: its name, or the path of a YAML file."""
    workers: Annotated[int, parsed_by(positive_int)] = 1
    """Number of ranks; the graph is that of one of them."""
    json: Path | None = None
    """File for primitives and collectives."""


def command(options: Annotated[Options, OPTIONS]) -> int:
    """Print the primitives and collectives to which a recipe's training and evaluation compile.

    Nothing is executed. Exit code 1: a graph for Ascend has something that is unfit for it.

    Example: `sknet graph --recipe skresnet18_ascend --workers 8`
    """
    return program.run(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.graph")))
