"""Checkpoints of a network of two layers, whose parameters all have values of their own."""

from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from sknet.models.backend import backend_of
from sknet.records import Checkpoint, Layout, Run
from sknet.training import checkpoint
from sknet.training.step import TrainStep
from tests.sknet.recipes import recipe

RECIPE = recipe(model="tiny", global_batch_size=4, epoch_size=4)


def make_run(**changes: object) -> Run:
    values = {
        "recipe": RECIPE,
        "classes": ("a", "b", "c"),
        "shards_digest": "0" * 64,
        "world_size": 1,
        "global_batch_size": 4,
        "steps_per_epoch": 3,
        "device_target": "CPU",
        "mindspore": ms.__version__,
    }
    return Run.model_validate(values | changes)


def make_network(num_classes: int = 3) -> nn.Cell:
    network = nn.SequentialCell(nn.Dense(4, 8), nn.BatchNorm1d(8), nn.Dense(8, num_classes))
    network.architecture = SimpleNamespace(depths=())
    network.backend = backend_of()
    return network


def new_step(seed: int) -> TrainStep:
    """Return a training step; the seed decides the values of its parameters."""
    step = TrainStep(make_network(), RECIPE, [0.1] * 12)
    numbers = np.random.default_rng(seed)
    for parameter in step.get_parameters():
        values = numbers.uniform(0, 100, parameter.shape)
        parameter.set_data(Tensor(values, parameter.dtype))
    return step


def state_at(step: int) -> Checkpoint:
    return Checkpoint(
        run=make_run(),
        layouts=(Layout(first_step=0, world_size=1),),
        step=step,
        epoch=step // 3,
        samples_seen=4 * step,
        num_params=100,
        best_top1=None,
        best_step=None,
        evaluations=(),
        files=(),
    )


def save(cell: nn.Cell, directory: Path, step: int) -> Path:
    snapshot = checkpoint.Snapshot(checkpoint.parameters_of(cell))
    return checkpoint.write(snapshot, directory, state_at(step))


def save_three(directory: Path) -> Path:
    """Save checkpoints of the steps 3, 6 and 9, whose seeds are the steps."""
    for step in (3, 6, 9):
        save(new_step(step), directory, step)
    return directory
