"""Networks → predictions: each sample on one rank, all predictions on every rank."""

import math
from collections.abc import Iterable, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from sknet.data.reading.pipeline import BatchAt, eval_batches_at
from sknet.data.reading.threads import read_ahead
from sknet.data.shards import ShardSet
from sknet.errors import NonFiniteLossError, UserError
from sknet.evaluation.predictions import Floats, Predictions, interleaved
from sknet.recipe import Recipe
from sknet.records import CalibrationBin, ConfusedPair, Evaluation
from sknet.world import ALONE, World

NUM_PAIRS = 50
"""Confused pairs that are kept."""

NUM_BINS = 15
"""Of the calibration, as usual since Guo et al. 2017 (arXiv 1706.04599)."""


def evaluation_of(
    predictions: Predictions,
    *,
    split: str,
    resolution: int,
    num_classes: int,
    in_detail: bool = False,
) -> Evaluation:
    """All counts; confused pairs and calibration `in_detail` only."""
    labels, correct = predictions.labels, predictions.correct
    within_top = (predictions.top == labels[:, None]).any(axis=1)
    return Evaluation(
        split=split,
        resolution=resolution,
        seen=len(labels),
        correct_top1=int(correct.sum()),
        correct_top5=int(within_top.sum()),
        loss_sum=math.fsum(predictions.loss.tolist()),
        class_seen=tuple(np.bincount(labels, minlength=num_classes).tolist()),
        class_correct=tuple(np.bincount(labels[correct], minlength=num_classes).tolist()),
        confused=confused_pairs(predictions)[:NUM_PAIRS] if in_detail else (),
        calibration=calibration(predictions) if in_detail else (),
    )


def confused_pairs(predictions: Predictions) -> tuple[ConfusedPair, ...]:
    """All of them: most frequent first, then by label, then by prediction."""
    wrong = ~predictions.correct
    pairs = np.stack([predictions.labels[wrong], predictions.top[wrong, 0]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return tuple(
        ConfusedPair(label=int(label), predicted=int(predicted), count=int(count))
        for (label, predicted), count in sorted(
            zip(found, counts, strict=True), key=lambda pair: (-pair[1], *pair[0])
        )
    )


def calibration(predictions: Predictions) -> tuple[CalibrationBin, ...]:
    """A probability on the border of two parts belongs to the upper one, 1 to the last."""
    probability = predictions.probability.astype(np.float64)
    place = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return tuple(
        _bin(probability[place == number], predictions.correct[place == number])
        for number in range(NUM_BINS)
    )


def _bin(probability: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> CalibrationBin:
    return CalibrationBin(
        seen=len(correct),
        correct=int(correct.sum()),
        confidence_sum=math.fsum(probability.tolist()),
    )


# Batches decoded and normalised while one is computed.
BATCHES_AHEAD = 2


def evaluate(
    network: nn.Cell,
    recipe: Recipe,
    shards: ShardSet,
    *,
    split: str = "val",
    batch_size: int,
    world: World = ALONE,
) -> Evaluation:
    """Count over all samples of the split at the recipe's resolution, as training does."""
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
    split: str = "val",
    batch_size: int,
    resolutions: Sequence[int],
    world: World = ALONE,
) -> dict[int, Predictions]:
    """By resolution, the predictions of all samples of the split, with centre crops.

    One pass over the shards, in which a rank reads the samples rank, rank + size, …; all
    ranks return the predictions of all of them. The network is put in evaluation mode and stays
    there. Raises NonFiniteLossError, on all ranks, if it has diverged.
    """
    network.set_train(False)
    num_samples = shards.num_samples(split)
    if not num_samples:
        raise UserError(f"the split {split} has no samples: nothing can be evaluated")
    num_classes = len(shards.classes)
    indices = np.arange(world.rank, num_samples, world.size)
    # More ranks than samples leave some without any.
    batches: Iterable[BatchAt] = (
        eval_batches_at(recipe, shards, split, indices, batch_size, resolutions)
        if len(indices)
        else ()
    )
    rows = {side: [Predictions.none(num_classes).rows] for side in resolutions}
    with closing(read_ahead(iter(batches), BATCHES_AHEAD)) as ahead:
        for images, labels in ahead:
            for side, at_side in zip(resolutions, images, strict=True):
                logits = _logits(network, at_side, batch_size)
                rows[side].append(Predictions.of_logits(logits, labels).rows)
    result = {}
    for side, parts in rows.items():
        every = gather(np.concatenate(parts), num_samples, world.size)
        result[side] = Predictions.of_rows(every)
        loss = math.fsum(result[side].loss.tolist())
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss on {split} is {loss}: the weights have diverged")
    return result


def gather(rows: Floats, num_samples: int, world_size: int) -> Floats:
    """The rows of all ranks in the samples' order; to be called by all of them."""
    if world_size == 1:
        return rows
    # All ranks have to give as many.
    most = -(-num_samples // world_size)
    filled = np.pad(rows, ((0, most - len(rows)), (0, 0)))
    gathered = ops.AllGather()(Tensor(filled[None])).asnumpy()
    return interleaved(gathered, num_samples)


def _logits(network: nn.Cell, images: Floats, batch_size: int) -> Floats:
    # A shorter last batch is filled up: another shape would compile another graph.
    missing = batch_size - len(images)
    filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images
    logits: Floats = network(Tensor(filled)).asnumpy()
    return logits[: len(images)]
