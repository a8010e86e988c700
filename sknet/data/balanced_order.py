"""An order of samples in which rare classes are read more often than they occur.

Like the uniform order, it is a function of (seed, epoch), of which any slice can be computed alone,
and it doesn't depend on the number of ranks. An epoch of `length` positions is divided among the
classes in the ratio that the sampler asks for:

- Every epoch has the whole number of positions for each class that lies just below or above its
  share. Which classes get one more changes from epoch to epoch so that the sums over epochs follow
  the shares (systematic sampling, with an offset that takes all values equally often).
- The positions of all classes are mixed by the uniform order of that length.
- A class reads its own samples in one random order after the other. No sample is read again before
  all others of its class were read as often, from the first epoch to the last.

The time for a slice grows with its length, the classes and the earlier epochs, which take
microseconds, and not with the number of samples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sknet.data.order import Indices, derive_seed, derive_seeds, order_slice, permuted
from sknet.recipe.choices import Sampler

BLOCK = 1 << 16
"""Positions that are computed at once, so that memory doesn't grow with a slice."""

_POSITIONS_STREAM = int.from_bytes(b"balanced")
_CLASS_STREAM = int.from_bytes(b"class")
_ROOT_SCALE = 256  # square roots are rounded to a multiple of 1 / this
# The golden ratio: the multiples of this step, modulo 1, spread most evenly.
_OFFSETS, _OFFSET_STEP = 1 << 20, 648_055


@dataclass(frozen=True)
class SamplesByClass:
    """The samples of a split by their class."""

    samples: Indices
    """Numbers of the samples, (N,): all of the first class, all of the second, and so on."""
    counts: Indices
    """Number of samples of each class, (C,)."""

    @classmethod
    def of(cls, labels: npt.NDArray[np.int32], num_classes: int) -> "SamplesByClass":
        """Return the samples with these labels (N,), each below `num_classes`."""
        counts = np.bincount(labels, minlength=num_classes)
        return cls(np.argsort(labels, kind="stable"), counts)

    @property
    def starts(self) -> Indices:
        """Where each class starts in `samples`, (C,)."""
        return np.cumsum(self.counts) - self.counts


def class_ratio(counts: Indices, sampler: Sampler) -> Indices:
    """Return whole numbers (C,), in whose ratio a sampler reads classes with these counts (C,)."""
    if sampler == "uniform":
        return counts
    numbers = np.minimum(counts, 1) if sampler == "balanced" else np.sqrt(counts) * _ROOT_SCALE
    ratio: Indices = np.rint(numbers).astype(np.int64)
    return ratio


def class_shares(counts: Indices, sampler: Sampler) -> npt.NDArray[np.float64]:
    """Return the fraction of the samples read (C,) that each class is, given its count (C,)."""
    ratio = class_ratio(counts, sampler)
    shares: npt.NDArray[np.float64] = ratio / ratio.sum()
    return shares


def balanced_slice(
    by_class: SamplesByClass,
    sampler: Sampler,
    *,
    length: int,
    seed: int,
    epoch: int,
    start: int,
    stop: int,
) -> Indices:
    """Return the samples at positions [start, stop) of an epoch.

    Args:
        by_class: The samples.
        sampler: How often samples of each class are read.
        length: Number of positions of every epoch.
        seed: The seed.
        epoch: The epoch.
        start: The first position.
        stop: The position after the last, at most `length`.

    Raises:
        ValueError: The slice reaches beyond the epoch.
    """
    counts, starts = by_class.counts, by_class.starts
    bounds, earlier = _divided_epoch(class_ratio(counts, sampler), length, epoch)
    class_seed = np.array([derive_seed(_CLASS_STREAM, seed)], np.uint64)
    blocks = [np.empty(0, np.int64)]
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        mixed = order_slice(length, derive_seed(_POSITIONS_STREAM, seed), epoch, first, last)
        labels = np.searchsorted(bounds, mixed, side="right") - 1
        turns, sizes = earlier[labels] + mixed - bounds[labels], counts[labels]
        rounds, positions = np.divmod(turns, sizes)
        seeds = derive_seeds(derive_seeds(class_seed, labels), rounds)
        blocks.append(by_class.samples[starts[labels] + permuted(positions, sizes, seeds)])
    return np.concatenate(blocks)


def _divided_epoch(ratio: Indices, length: int, epoch: int) -> tuple[Indices, Indices]:
    """Divide an epoch's positions among the classes.

    Returns:
        The first position of each class (C,), and how many positions each had in all earlier
        epochs (C,).
    """
    total = int(ratio.sum())
    # The exact bounds between the classes, which are lowered by the epoch's offset, a fraction of a
    # position, and then rounded up.
    whole, rest = np.divmod(length * np.append(0, np.cumsum(ratio)), total)
    offsets = np.arange(epoch + 1) * _OFFSET_STEP % _OFFSETS
    bounds = whole + (rest * _OFFSETS > offsets[epoch] * total)
    sums = epoch * whole + np.searchsorted(np.sort(offsets[:epoch]) * total, rest * _OFFSETS)
    return bounds[:-1], np.diff(sums)
