"""Thumbnails of wrongly predicted samples."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sknet.data.images import decode
from sknet.evaluation.predictions import Predictions, confused_pairs
from sknet.records import Example, Examples
from sknet.records.evaluation import EXAMPLES_FILE

MAX_EXAMPLES = 12

MAX_SIDE = 96
"""Longer side of a thumbnail, in pixels."""


def choose_examples(predictions: Predictions, count: int = MAX_EXAMPLES) -> list[int]:
    """Return the positions of up to `count` wrongly predicted samples.

    First comes the most confident one of each confused pair, the most frequent pair first; then
    the second most confident one of each pair, and so on. Of equally confident samples the earlier
    one comes first.
    """
    by_confidence = np.argsort(-predictions.probability, kind="stable")
    by_pair: dict[tuple[int, int], list[int]] = {
        (pair.label, pair.predicted): [] for pair in confused_pairs(predictions)
    }
    labels, predicted = predictions.labels.tolist(), predictions.predicted.tolist()
    for sample in by_confidence.tolist():
        if labels[sample] != predicted[sample]:
            by_pair[labels[sample], predicted[sample]].append(sample)
    return list(_in_turn(list(by_pair.values())))[:count]


def write_examples(
    directory: Path, predictions: Predictions, keys: Sequence[str], images: Sequence[bytes]
) -> None:
    """Write the thumbnails of the chosen examples, and their record.

    Args:
        directory: Where to write.
        predictions: The predictions of all samples.
        keys: The keys of all samples.
        images: The encoded images of the samples of `choose_examples`, in its order.
    """
    examples = []
    chosen = choose_examples(predictions)
    for number, (sample, content) in enumerate(zip(chosen, images, strict=True), 1):
        name = f"example-{number:02}.png"
        thumbnail(content).save(directory / name, optimize=True)
        examples.append(
            Example(
                file=name,
                key=keys[sample],
                label=int(predictions.labels[sample]),
                predicted=int(predictions.predicted[sample]),
                probability=float(predictions.probability[sample]),
            )
        )
    Examples(examples=tuple(examples)).write(directory / EXAMPLES_FILE)


def thumbnail(content: bytes) -> Image.Image:
    """Return a small version of an encoded image, which must be decodable as in shards."""
    small = Image.fromarray(decode(content))
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    return small


def _in_turn(groups: Sequence[Sequence[int]]) -> Iterator[int]:
    """Yield the first item of each group, then the second item of each, and so on."""
    for position in range(max(map(len, groups), default=0)):
        yield from (group[position] for group in groups if position < len(group))
