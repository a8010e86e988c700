"""Whether an exported file computes what its network does, and predicts what was evaluated."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import numpy as np

from sknet.data.reading.pipeline import preprocessed_batches, sample_keys
from sknet.data.reading.threads import BATCHES_AHEAD, read_ahead
from sknet.data.shards import ShardSet
from sknet.errors import ExportError, UserError
from sknet.evaluation.predictions import (
    BATCH_SIZE,
    Floats,
    Forward,
    StoredPredictions,
    in_batch,
)
from sknet.records.evaluation import SPLIT
from sknet.records.exported import DifferingPrediction, ExportComparison, ExportedModel, Precision
from sknet.records.training import DECODING_THREADS

MAX_DIFFERENCES: Mapping[Precision, float] = {"float32": 1e-5, "float16": 2e-2}
"""Largest difference between logits of the file and of the network, as a fraction of the largest
logit. In float32, folding and the rounding of another runtime stay below a tenth of it. With inputs
of convolutions rounded to HF32, as by default on Ascend, skresnet18 would differ by 5e-4."""


def compare_logits(found: Forward, expected: Forward, model: ExportedModel) -> float:
    """Compare what an exported file computes of random inputs with what its network does.

    Args:
        found: What the file computes.
        expected: What the network computes.
        model: The file's record.

    Returns:
        The largest difference of logits, as a fraction of the largest logit.

    Raises:
        ExportError: It is above MAX_DIFFERENCES.
    """
    count, *sides = model.input_shape
    images = np.random.default_rng(0).standard_normal((count or 3, *sides), np.float32)
    logits = expected(images)
    difference = relative_difference(found(images), logits)
    if count is None:  # the same for another number of images
        difference = max(difference, relative_difference(found(images[:1]), logits[:1]))
    most = MAX_DIFFERENCES[model.precision]
    if not difference <= most:
        raise ExportError(
            f"its logits differ from the network's by {difference:.1e} of the largest, above "
            f"{most}: nothing was written"
        )
    return difference


def relative_difference(values: Floats, reference: Floats) -> float:
    """Return the largest difference as a fraction of the largest magnitude of `reference`."""
    return float(np.abs(values - reference).max() / np.abs(reference).max())


def compare_predictions(
    found: Forward,
    expected: Forward | list[int],
    model: ExportedModel,
    shards: ShardSet,
    *,
    split: str = SPLIT,
    on_progress: Callable[[float], None] = lambda _: None,
) -> ExportComparison:
    """Return where an exported file predicts another class than expected, over a whole split.

    The images are turned into inputs as the file's record says.

    Args:
        found: What the file computes.
        expected: The class of each image, as `kept_classes` returns them, or what the network
            computes.
        model: The file's record.
        shards: The data.
        split: Name of the split.
        on_progress: Called after each batch with the fraction of the images that are done.
    """
    num_samples = shards.num_samples(split)
    indices = np.arange(num_samples)
    keys = sample_keys(shards, split, indices)
    batch_size = model.input_shape[0] or BATCH_SIZE
    batches = preprocessed_batches(
        [model], shards, split, indices, batch_size, num_workers=DECODING_THREADS
    )
    differing: list[DifferingPrediction] = []
    num_done = 0
    with closing(read_ahead(batches, BATCHES_AHEAD)) as ahead:
        for (images,), _ in ahead:
            end = num_done + len(images)
            if isinstance(expected, list):
                right = expected[num_done:end]
            else:
                right = predicted(expected, images, batch_size)
            wrong = predicted(found, images, batch_size)
            differing += _differing(keys[num_done:end], right, wrong)
            num_done = end
            on_progress(num_done / num_samples)
    return ExportComparison(
        split=split,
        seen=num_samples,
        expected_from="evaluation" if isinstance(expected, list) else "network",
        differing=tuple(differing),
    )


def kept_classes(kept: StoredPredictions, shards: ShardSet, split: str = SPLIT) -> list[int]:
    """Return the class that an evaluation predicted for each image of a split, in their order.

    Raises:
        UserError: The predictions are of other images.
    """
    keys = sample_keys(shards, split, np.arange(shards.num_samples(split)))
    by_key: dict[str, int] = dict(zip(kept.keys, kept.predicted.tolist(), strict=True))
    if others := sorted(by_key.keys() ^ {*keys}):
        raise UserError(
            f"the kept predictions are of {len(by_key)} images and the data has {len(keys)}, and "
            f"{others[0]} is only in one of them: give the data that was evaluated"
        )
    return [by_key[key] for key in keys]


def predicted(forward: Forward, images: Floats, batch_size: int) -> list[int]:
    """Return the class of each of at most `batch_size` images; of equal logits the lower class."""
    top = np.argsort(-in_batch(forward, images, batch_size), axis=1, kind="stable")[:, 0]
    result: list[int] = top.tolist()
    return result


def _differing(
    keys: list[str], expected: list[int], found: list[int]
) -> Iterator[DifferingPrediction]:
    for key, right, wrong in zip(keys, expected, found, strict=True):
        if right != wrong:
            yield DifferingPrediction(key=key, expected=right, found=wrong)
