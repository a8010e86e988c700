"""An order by blocks: at any time, an epoch reads a few shards, and each host only some of them.

Like the full order, it is a function of (seed, epoch), so that any samples of an epoch can
be computed without the others, and it doesn't depend on the number of ranks:

- The shards are permuted. Laid one after the other, they are cut into `parts` equal runs of
  samples.
- Each part is shuffled in windows: runs of `window` samples, one after the other, each permuted. So
  a part needs the shards of one window at a time, in the order in which they lie.
- Each step takes the same number of samples of every part, one part after the other. So each host
  reads whole parts, if the number of hosts divides `parts`.

As in the full order, an epoch has as many steps as there are whole global batches. What is left at
the end of a part isn't read in this epoch.

The time for some samples grows with their number and the logarithm of the number of shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sknet.data.order import Indices, derive_seed, derive_seeds, epoch_order, permuted

_SHARDS_STREAM = int.from_bytes(b"shards")
_WINDOWS_STREAM = int.from_bytes(b"windows")


@dataclass(frozen=True)
class BlockOrder:
    """The order of an epoch."""

    shards: Indices
    """Numbers of the shards in the order in which they lie, (M,)."""
    ends: Indices
    """Where each of them ends in the sequence of all samples, (M,)."""
    firsts: Indices
    """Number of the first sample of each of them, (M,)."""
    parts: int
    window: int
    batch: int
    """Samples of a step."""
    seed: int
    """The seed of the windows of this epoch."""

    @classmethod
    def of(
        cls, sizes: Sequence[int], *, parts: int, window: int, batch: int, seed: int, epoch: int
    ) -> "BlockOrder":
        """Return the order of an epoch.

        Args:
            sizes: Number of samples of each shard; a shard may be empty.
            parts: Number of parts, which divides the batch.
            window: Samples that are shuffled together.
            batch: Samples of a step, over all ranks.
            seed: The seed.
            epoch: The epoch.

        Raises:
            ValueError: The parts don't divide the batch.
        """
        if batch % parts:
            raise ValueError(f"a batch of {batch} can't be divided among {parts} parts")
        counts = np.array(sizes, np.int64)
        shards = epoch_order(len(counts), derive_seed(_SHARDS_STREAM, seed), epoch)
        return cls(
            shards=shards,
            ends=np.cumsum(counts[shards]),
            firsts=(np.cumsum(counts) - counts)[shards],
            parts=parts,
            window=window,
            batch=batch,
            seed=derive_seed(_WINDOWS_STREAM, seed, epoch),
        )

    @property
    def num_samples(self) -> int:
        """Number of samples of all shards."""
        return int(self.ends[-1])

    def at(self, positions: Indices) -> Indices:
        """Return the samples at positions (N,) of the epoch, all of which are in whole batches."""
        steps, within = np.divmod(positions, self.batch)
        of_part = self.batch // self.parts
        parts, offsets = np.divmod(within, of_part)
        return self._samples(self._places(parts, steps * of_part + offsets))

    def shards_of(self, first_part: int, last_part: int, start: int, stop: int) -> list[int]:
        """Return the shards that some parts need in steps [start, stop), in the order of need.

        Args:
            first_part: The first part.
            last_part: The part after the last one.
            start: The first step.
            stop: The step after the last one.
        """
        of_part = self.batch // self.parts
        reached: dict[int, int] = {}  # shard → samples of a part that come before it
        for part in range(first_part, last_part):
            begin, end = self._bound(part), self._bound(part + 1)
            # A step needs the window in which it lies; the windows before are done.
            low = begin + start * of_part // self.window * self.window
            high = min(begin - (-stop * of_part // self.window) * self.window, end)
            first, last = np.searchsorted(self.ends, [low, high - 1], side="right")
            for place in range(int(first), int(last) + 1):
                before = max(low, int(self.ends[place - 1]) if place else 0) - low
                shard = int(self.shards[place])
                reached[shard] = min(reached.get(shard, before), before)
        return sorted(reached, key=reached.__getitem__)

    def steps_of_window(self) -> int:
        """Return how many steps a window lasts, at least one."""
        return max(1, self.window * self.parts // self.batch)

    def parts_of(self, rank: int, world: int) -> tuple[int, int]:
        """Return the first part of which a rank reads samples, and the one after the last."""
        own, of_part = self.batch // world, self.batch // self.parts
        return rank * own // of_part, -(-(rank + 1) * own // of_part)

    def _bound(self, part: int) -> int:
        """Return where a part begins in the sequence of all samples."""
        return part * self.num_samples // self.parts

    def _places(self, parts: Indices, offsets: Indices) -> Indices:
        """Return where the samples lie that stand at offsets (N,) of the order of parts (N,)."""
        begins = parts * self.num_samples // self.parts
        lengths = (parts + 1) * self.num_samples // self.parts - begins
        windows, within = np.divmod(offsets, self.window)
        sizes = np.minimum(self.window, lengths - windows * self.window)
        seeds = derive_seeds(derive_seeds(np.full(1, self.seed, np.uint64), parts), windows)
        return begins + windows * self.window + permuted(within, sizes, seeds)

    def _samples(self, places: Indices) -> Indices:
        """Return the numbers of the samples that lie at places (N,) of the sequence."""
        at = np.searchsorted(self.ends, places, side="right")
        before = np.append(0, self.ends[:-1])
        numbers: Indices = self.firsts[at] + places - before[at]
        return numbers
