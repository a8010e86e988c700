"""Run a network on a split: every sample on one rank, all predictions on every rank."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
from mindspore import Tensor, nn, ops

from sknet.data.reading.pipeline import EvalBatch, eval_batches
from sknet.data.reading.threads import BATCHES_AHEAD, read_ahead
from sknet.data.shards import ShardSet
from sknet.errors import NonFiniteLossError, UserError
from sknet.evaluation.calibration import calibrate
from sknet.evaluation.classes import average_precisions
from sknet.evaluation.predictions import (
    Floats,
    Predictions,
    evaluation_of,
    in_batch,
    interleaved,
    probabilities,
)
from sknet.recipe import Recipe
from sknet.records import Evaluation
from sknet.records.evaluation import SPLIT
from sknet.world import ALONE, World

MAX_PROBABILITIES = 1 << 27
"""Most probabilities that a rank keeps for average precision and calibration, 512 MB: ImageNet's
validation images at two resolutions have 1e8."""


def evaluate(
    network: nn.Cell,
    recipe: Recipe,
    shards: ShardSet,
    *,
    split: str = SPLIT,
    batch_size: int,
    world: World = ALONE,
) -> Evaluation:
    """Return the counts of a split at the recipe's resolution; see `predict`."""
    resolution = recipe.image_resize
    predictions = predict(
        network,
        recipe,
        shards,
        split=split,
        batch_size=batch_size,
        resolutions=[resolution],
        world=world,
    )
    return evaluation_of(
        predictions[resolution],
        split=split,
        resolution=resolution,
        num_classes=len(shards.classes),
    )


def predict(
    network: nn.Cell,
    recipe: Recipe,
    shards: ShardSet,
    *,
    split: str = SPLIT,
    batch_size: int,
    resolutions: Sequence[int],
    world: World = ALONE,
    with_average_precision: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> dict[int, Predictions]:
    """Return the predictions of every sample of a split at each resolution, on every rank.

    The shards are read once. A rank reads the samples rank, rank + size, …, as centre crops.

    Args:
        network: It is put into evaluation mode, and stays there.
        recipe: It determines the crops.
        shards: The data.
        split: Name of the split.
        batch_size: Samples per forward pass of a rank.
        resolutions: Sides of the square input, in pixels.
        world: The ranks. All of them have to call this.
        with_average_precision: Whether to compute it and the calibration too, which need all
            probabilities, unless a rank would have to keep more than MAX_PROBABILITIES.
        on_progress: Called after each batch with the fraction of this rank's samples that are done.

    Raises:
        NonFiniteLossError: The weights have diverged; raised on all ranks.
        UserError: The split has no samples.
    """
    network.set_train(False)
    num_samples = shards.num_samples(split)
    if not num_samples:
        raise UserError(f"the split {split} has no samples: nothing can be evaluated")
    indices = np.arange(world.rank, num_samples, world.size)
    # If there are more ranks than samples, some have none.
    batches: Iterable[EvalBatch] = (
        eval_batches(recipe, shards, split, indices, batch_size, resolutions)
        if len(indices)
        else ()
    )
    num_classes = len(shards.classes)
    rows = {side: [Predictions.none(num_classes).rows] for side in resolutions}
    kept = {side: [np.zeros((0, num_classes), np.float32)] for side in resolutions}
    most = -(-num_samples // world.size) * num_classes * len(resolutions)
    with_average_precision &= most <= MAX_PROBABILITIES
    num_done = 0
    with closing(read_ahead(iter(batches), BATCHES_AHEAD)) as ahead:
        for images, labels in ahead:
            for side, at_side in zip(resolutions, images, strict=True):
                logits = logits_of(network, at_side, batch_size)
                rows[side].append(Predictions.of_logits(logits, labels).rows)
                if with_average_precision:
                    kept[side].append(probabilities(logits))
            num_done += len(labels)
            if on_progress:
                on_progress(num_done / len(indices))
    result = {}
    for side, parts in rows.items():
        of_all_ranks = _gather(np.concatenate(parts), num_samples, world.size)
        result[side] = Predictions.of_rows(of_all_ranks)
        loss = math.fsum(result[side].loss.tolist())
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss on {split} is {loss}: the weights have diverged")
        if with_average_precision:
            own = np.concatenate(kept.pop(side))
            found = average_precisions(
                partial(_gather_classes, own, num_samples, world.size),
                result[side].labels,
                num_classes,
            )
            calibration = calibrate(
                own,
                result[side].labels[indices],
                indices,
                num_samples,
                partial(_gather, num_samples=num_samples, world_size=world.size),
                split=split,
                resolution=side,
            )
            result[side] = replace(result[side], average_precision=found, calibration=calibration)
    return result


def _gather_classes(own: Floats, num_samples: int, world_size: int, first: int, end: int) -> Floats:
    """Return the probabilities of some classes of all ranks, in the order of the samples."""
    return _gather(own[:, first:end], num_samples, world_size)


def logits_of(network: nn.Cell, images: Floats, batch_size: int) -> Floats:
    """Return the logits (N, classes) of at most `batch_size` normalised images (N, 3, R, R).

    Another number of images would compile another graph.
    """

    def forward(padded: Floats) -> Floats:
        logits: Floats = network(Tensor.from_numpy(padded)).asnumpy()
        return logits

    return in_batch(forward, images, batch_size)


def _gather(rows: Floats, num_samples: int, world_size: int) -> Floats:
    """Return the rows of all ranks in the order of the samples. All ranks have to call this."""
    if world_size == 1:
        return rows
    # AllGather needs the same number of rows from every rank.
    most = -(-num_samples // world_size)
    padded = np.pad(rows, ((0, most - len(rows)), (0, 0)))
    gathered = ops.AllGather()(Tensor(padded[None])).asnumpy()
    return interleaved(gathered, num_samples)
