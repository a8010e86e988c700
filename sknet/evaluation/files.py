"""The files of an evaluation: counts, predictions, calibration, tables and examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sknet.data.reading.pipeline import sample_images
from sknet.data.shards import ShardSet
from sknet.evaluation.classes import Confusion, write_class_tables
from sknet.evaluation.examples import choose_examples, write_examples
from sknet.evaluation.predictions import Predictions, write_predictions
from sknet.recipe import Recipe
from sknet.records import Evaluation
from sknet.records.calibration import CALIBRATION_FILE
from sknet.records.evaluation import evaluation_file, predictions_file


def write_files(
    out: Path,
    recipe: Recipe,
    shards: ShardSet,
    keys: Sequence[str],
    predictions: Mapping[int, Predictions],
    evaluations: Mapping[int, Evaluation],
) -> None:
    """Write counts and predictions at each resolution, and the rest at the recipe's resolution.

    Args:
        out: Where to write.
        recipe: The recipe of the network.
        shards: The data.
        keys: The key of each sample.
        predictions: The predictions of all samples, by resolution.
        evaluations: Their counts, by resolution.
    """
    for side, at_side in predictions.items():
        evaluations[side].write(out / evaluation_file(recipe, side))
        write_predictions(out / predictions_file(recipe, side), keys, at_side)
    primary, counts = predictions[recipe.image_resize], evaluations[recipe.image_resize]
    if primary.calibration:
        primary.calibration.write(out / CALIBRATION_FILE)
    confusion = Confusion.of(primary.labels, primary.predicted)
    write_class_tables(out, counts, confusion, shards.record.dataset.titles)
    chosen = np.array(choose_examples(primary), np.int64)
    write_examples(out, primary, keys, sample_images(shards, counts.split, chosen))
