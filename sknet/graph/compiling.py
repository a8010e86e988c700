"""Compile the graphs of a training without executing them, and read what MindSpore writes.

Only MindSpore's frontend compiles; no kernel is chosen and nothing runs. So collective operations
need no other ranks, and `World(0, N)` gives the graph of rank 0 of N.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sknet.architectures import IMAGENET_CLASSES
from sknet.graph.ir import Node, read_nodes
from sknet.recipe import Recipe

if TYPE_CHECKING:
    from mindspore import nn

    from sknet.models.sknet import SKNet

_VALIDATED = "*_validate_*.ir"
"""Files of the last stage of the frontend, after all its passes. Ranks under msrun write them into
directories of their own."""


@dataclass(frozen=True)
class CompiledGraph:
    """One graph of a training."""

    name: str
    """What the training uses it for, such as `training step`."""
    nodes: list[Node]


@contextmanager
def saved_graphs() -> Iterator[Path]:
    """Let MindSpore compile without executing, and write its graphs into a temporary directory.

    MindSpore reads these settings when it is imported, so enter this before.
    """
    with tempfile.TemporaryDirectory(prefix="sknet-graph-") as folder:
        os.environ |= {
            "MS_DEV_PRECOMPILE_ONLY": "1",
            "MS_DEV_SAVE_GRAPHS": "2",
            "MS_DEV_SAVE_GRAPHS_PATH": folder,
            # All passes of one step would be 1.5 GB.
            "MS_DEV_DUMP_IR_PASSES": "validate",
            # A graph from the cache is not written.
            "MS_COMPILER_CACHE_ENABLE": "0",
        }
        yield Path(folder)


def compile_graphs(
    recipe: Recipe, device_target: str, num_workers: int, folder: Path
) -> Iterator[CompiledGraph]:
    """Yield the graphs of a recipe's training and evaluation, on one of `num_workers` ranks.

    They have the recipe's own sizes. The device of this process must have been set before.

    Args:
        recipe: The recipe. Without num_classes, the network has ImageNet's 1000.
        device_target: CPU or Ascend, for which the network is made.
        num_workers: Number of ranks.
        folder: Of `saved_graphs`.

    Raises:
        UserError: The ranks can't divide the global batch.
    """
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor

    from sknet.data.reading.training_batches import normalises_on_device
    from sknet.evaluation.predictions import BATCH_SIZE
    from sknet.models import create_model, fold
    from sknet.models.backend import backend_of
    from sknet.training.inputs import InputMaker
    from sknet.training.step import SynchroniseStatistics, TrainStep
    from sknet.world import World

    world, given = World(0, num_workers), recipe.class_weights
    classes = recipe.num_classes or (IMAGENET_CLASSES if isinstance(given, str) else len(given))
    batch, side = recipe.global_batch(num_workers) // num_workers, recipe.image_resize

    def network() -> "SKNet":
        return create_model(recipe.model, num_classes=classes, backend=backend_of(device_target))

    def normalised(number: int) -> Tensor:
        return Tensor(np.zeros((number, 3, side, side), np.float32))

    # Only whether there is one rate or several changes the graph, and no class's count does.
    step = TrainStep(network(), recipe, [recipe.lr, recipe.lr], world, np.ones(classes, np.int64))
    step.set_train(True)
    images = (
        np.zeros((batch, 3, side, side), np.uint8)
        if normalises_on_device(recipe, device_target)
        else np.zeros((batch, 3, side, side), np.float32)
    )
    labels = np.zeros((batch, classes), np.float32) if recipe.mixes else np.zeros(batch, np.int32)
    *earlier, last = InputMaker(step.network, recipe, world)((images, labels), 0)
    sums: list[object] = []
    (gradient_sum,) = step.earlier
    if gradient_sum is not None:
        sums.append(ms.mutable(gradient_sum.zeros))
        yield _compiled("earlier pass", gradient_sum, [*earlier[0], *sums], folder)
    yield _compiled("training step", step, [*last, step.asked[False], *sums], folder)
    if num_workers > 1:
        yield _compiled("statistics", SynchroniseStatistics(step), [], folder)
    evaluated = step.evaluated().set_train(False)
    yield _compiled("evaluation", evaluated, [normalised(batch)], folder)
    yield _compiled("validation", fold(network()), [normalised(BATCH_SIZE)], folder)


def _compiled(name: str, cell: "nn.Cell", inputs: list[object], folder: Path) -> CompiledGraph:
    """Compile a cell and read its graph, the only file that this adds to the folder."""
    cell.compile(*inputs)
    (file,) = folder.rglob(_VALIDATED)
    nodes = read_nodes(file)
    file.unlink()
    return CompiledGraph(name, nodes)
