"""Examples of what is confused, as thumbnails."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sknet.evaluation.predicting import confused_pairs
from sknet.evaluation.predictions import Predictions
from sknet.records import Example, Examples
from sknet.records.evaluation import EXAMPLES_FILE

MAX_EXAMPLES = 12
MAX_SIDE = 96
"""Pixels of a thumbnail's longer side."""


def chosen(predictions: Predictions, count: int = MAX_EXAMPLES) -> list[int]:
    """Numbers of wrong samples: the surest of each confused pair, most frequent pair first.

    If that gives too few, the second surest of each follow, and so on. Of equally sure ones the
    earlier sample comes first.
    """
    surest = np.argsort(-predictions.probability, kind="stable")
    by_pair: dict[tuple[int, int], list[int]] = {
        (pair.label, pair.predicted): [] for pair in confused_pairs(predictions)
    }
    labels, first = predictions.labels.tolist(), predictions.top[:, 0].tolist()
    for number in surest.tolist():
        if labels[number] != first[number]:
            by_pair[labels[number], first[number]].append(number)
    return list(_by_turns(list(by_pair.values())))[:count]


def write_examples(
    directory: Path, predictions: Predictions, keys: Sequence[str], images: Sequence[bytes]
) -> None:
    """Write the thumbnails of the `chosen` samples, given encoded, and a record."""
    examples = []
    for number, (sample, content) in enumerate(zip(chosen(predictions), images, strict=True), 1):
        name = f"example-{number:02}.png"
        thumbnail(content).save(directory / name, optimize=True)
        examples.append(
            Example(
                file=name,
                key=keys[sample],
                label=int(predictions.labels[sample]),
                predicted=int(predictions.top[sample, 0]),
                probability=float(predictions.probability[sample]),
            )
        )
    Examples(examples=tuple(examples)).write(directory / EXAMPLES_FILE)


def thumbnail(content: bytes) -> Image.Image:
    """Of an encoded image that decodes, as shards hold no other."""
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
        small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    # Without what the file said beside its pixels.
    return Image.fromarray(np.asarray(small))


def _by_turns(groups: Sequence[Sequence[int]]) -> Iterator[int]:
    """The first of each group, then the second of each, …."""
    for place in range(max(map(len, groups), default=0)):
        yield from (group[place] for group in groups if place < len(group))
