"""Random numbers of a sample as a function of its position in an epoch.

A counter-based generator (Philox) is keyed by (stream, seed, epoch) and counts positions. So the
numbers of a sample depend neither on the rank or thread that reads it, nor on where reading began.
"""

import numpy as np
import numpy.typing as npt

from sknet.data.order import derive_seed

Draws = npt.NDArray[np.float64]
"""Numbers (N, count), each from [0, 1)."""

_PER_COUNT = 4  # numbers that Philox makes of one value of its counter
_BITS_LEFT_OUT = np.uint64(11)  # a float64 holds 53 of 64 bits


def draws(stream: str, seed: int, epoch: int, start: int, stop: int, count: int) -> Draws:
    """Return the random numbers of the samples at positions [start, stop) of an epoch.

    Args:
        stream: What the numbers are for, in at most 8 letters. Streams are independent.
        seed: The seed of the recipe.
        epoch: The epoch, from 0.
        start: The first position.
        stop: The position after the last one.
        count: How many numbers each sample gets. With another count, all numbers are others.

    Returns:
        (stop - start, count) numbers, each uniform in [0, 1).
    """
    blocks = -(-count // _PER_COUNT)
    key = derive_seed(int.from_bytes(stream.encode()), seed, epoch)
    bits = np.random.Philox(key=key, counter=start * blocks)
    numbers = np.asarray(bits.random_raw((stop - start) * blocks * _PER_COUNT))
    uniform = (numbers >> _BITS_LEFT_OUT) * 2.0**-53
    return uniform.reshape(stop - start, blocks * _PER_COUNT)[:, :count]
