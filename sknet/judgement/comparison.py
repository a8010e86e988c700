"""Two sets of predictions for the same samples, joined by key."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sknet.errors import UserError
from sknet.records import PairedCounts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PredictionPair:
    """What two evaluations predict for each sample, in the order of the first."""

    keys: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]


def join(first: "pd.DataFrame", second: "pd.DataFrame") -> PredictionPair:
    """Pair the predictions of two evaluations.

    Raises:
        UserError: they are not of the same samples, or a label differs.
    """
    only = [*first.index.difference(second.index), *second.index.difference(first.index)]
    if only:
        raise UserError(
            f"the evaluations are of different samples: {len(only)} are in one of them only, "
            f"as {only[0]!r}"
        )
    other = second.loc[first.index]
    labels = first["label"].to_numpy()
    if (unequal := labels != other["label"].to_numpy()).any():
        key = first.index[int(unequal.argmax())]
        raise UserError(f"the evaluations give sample {key!r} different labels")
    return PredictionPair(
        keys=tuple(first.index),
        labels=labels,
        first=first["predicted"].to_numpy(),
        second=other["predicted"].to_numpy(),
    )


def paired_counts(candidate: "pd.DataFrame", production: "pd.DataFrame") -> PairedCounts:
    """Count which of two checkpoints is right where, and test the difference.

    Raises:
        UserError: the predictions are not of the same samples.
    """
    pair = join(candidate, production)
    by_candidate, by_production = pair.first == pair.labels, pair.second == pair.labels
    only_production = int((by_production & ~by_candidate).sum())
    only_candidate = int((by_candidate & ~by_production).sum())
    return PairedCounts(
        both_correct=int((by_candidate & by_production).sum()),
        only_production=only_production,
        only_candidate=only_candidate,
        neither=int((~by_candidate & ~by_production).sum()),
        p_value=mcnemar_p_value(only_production, only_candidate),
    )


def mcnemar_p_value(only_production: int, only_candidate: int) -> float:
    """McNemar's exact test, one-sided: is the candidate worse?

    Of the samples that only one of two equally good checkpoints gets right, each is as likely the
    one's as the other's. The p value is the probability of at least so many of production's.
    """
    # Takes a second to import, and only a promotion over another checkpoint needs it.
    from scipy.stats import binomtest

    differing = only_production + only_candidate
    if differing == 0:
        return 1.0
    return float(binomtest(only_production, differing, alternative="greater").pvalue)
