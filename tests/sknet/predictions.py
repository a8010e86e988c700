"""Predictions as `read_predictions` returns them, for tests that compare evaluations."""

from collections.abc import Sequence

import numpy as np

from sknet.evaluation.predictions import StoredPredictions


def stored_predictions(
    predicted: Sequence[int], labels: Sequence[int], keys: Sequence[str] | None = None
) -> StoredPredictions:
    """Return predictions with one top class; the keys are a, b, … by default."""
    return StoredPredictions(
        keys=tuple(keys or (chr(ord("a") + index) for index in range(len(predicted)))),
        labels=np.array(labels, np.int32),
        top=np.array(predicted, np.int32)[:, None],
        probability=np.full(len(predicted), 0.5, np.float32),
    )
