"""Evaluation: each sample once, counts summed, divided once."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from sknet.data.pipeline import Batch, eval_batches
from sknet.errors import NonFiniteLossError
from sknet.recipe import Recipe
from sknet.records import Evaluation, Shards


def evaluate(
    network: nn.Cell,
    recipe: Recipe,
    shards: Shards,
    directory: Path,
    *,
    split: str = "val",
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Evaluation:
    """Evaluate all samples of the split, each on one rank, with centre crops.

    The network is put in evaluation mode and stays there.
    """
    network.set_train(False)
    num_samples = shards.num_samples(split)
    num_classes = len(shards.dataset.classes)
    indices = np.arange(rank, num_samples, world_size)
    # More ranks than samples leave some without any.
    batches: Iterable[Batch] = (
        eval_batches(recipe, shards, directory, split, indices, batch_size) if len(indices) else ()
    )
    counts = np.zeros((3 + 2 * num_classes,))
    for images, labels in batches:
        counts += batch_counts(_logits(network, images, batch_size), labels)
    if world_size > 1:
        # float32 sums are exact for counts to 2^24; the loss is rounded, alike on all ranks.
        counts = ops.AllReduce()(Tensor(counts.astype(np.float32))).asnumpy().astype(np.float64)
    if not np.isfinite(counts[2]):
        # Also because a label's rank among NaN logits would be the first.
        raise NonFiniteLossError(f"the loss on {split} is {counts[2]}: the weights have diverged")
    whole = counts[[0, 1, *range(3, len(counts))]].astype(int).tolist()
    return Evaluation(
        split=split,
        resolution=recipe.image_resize,
        seen=num_samples,
        correct_top1=whole[0],
        correct_top5=whole[1],
        loss_sum=float(counts[2]),
        class_seen=tuple(whole[2 : 2 + num_classes]),
        class_correct=tuple(whole[2 + num_classes :]),
    )


def batch_counts(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Correct@1, correct@5, summed loss, then seen and correct@1 of each class.

    `logits` is (N, classes), `labels` (N,). The rank of a label is the number of classes with a
    higher logit, or an equal one and a lower index.
    """
    num_classes = logits.shape[1]
    exact = logits.astype(np.float64)
    own = exact[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(num_classes) < labels[:, None]
    place = ((exact > own) | ((exact == own) & earlier)).sum(axis=1)
    peak = exact.max(axis=1)
    loss = peak + np.log(np.exp(exact - peak[:, None]).sum(axis=1)) - own[:, 0]
    first = place == 0
    return np.concatenate(
        [
            [first.sum(), (place < 5).sum(), loss.sum()],
            np.bincount(labels, minlength=num_classes),
            np.bincount(labels[first], minlength=num_classes),
        ]
    ).astype(np.float64)


def _logits(
    network: nn.Cell, images: npt.NDArray[np.float32], batch_size: int
) -> npt.NDArray[np.float32]:
    # A shorter last batch is filled up: another shape would compile another graph.
    missing = batch_size - len(images)
    filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images
    logits: npt.NDArray[np.float32] = network(Tensor(filled)).asnumpy()
    return logits[: len(images)]
