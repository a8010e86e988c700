"""The order of samples as a function of (seed, epoch), of which any slice can be computed alone.

A keyed Feistel network permutes the numbers below an even power of two, the smallest that holds all
samples. A value that is not a sample is permuted again until it is one (cycle walking). The time
for a slice depends on its own length, not on the number of samples. The order depends neither on
NumPy's random generators nor on the number of ranks. Other random numbers of an epoch come from
`generator`.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Seeds = npt.NDArray[np.uint64]
"""Numbers of 64 bits, of which random numbers are derived."""

_NUM_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's increment
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # those of its finaliser
_MASK = (1 << 64) - 1


def epoch_order(num_samples: int, seed: int, epoch: int) -> Indices:
    """Return the permutation of 0 … num_samples - 1 in which an epoch reads the samples."""
    return order_slice(num_samples, seed, epoch, 0, num_samples)


def order_slice(num_samples: int, seed: int, epoch: int, start: int, stop: int) -> Indices:
    """Return `epoch_order(num_samples, seed, epoch)[start:stop]`, computed alone.

    Raises:
        ValueError: Not 0 <= start <= stop <= num_samples.
    """
    if not 0 <= start <= stop <= num_samples:
        raise ValueError(f"slice {start}:{stop} is not within 0:{num_samples}")
    seeds = np.array([derive_seed(seed, epoch)], np.uint64)
    return permuted(np.arange(start, stop), np.array([num_samples]), seeds)


def order_positions(num_samples: int, seed: int, epoch: int, samples: Indices) -> Indices:
    """Return at which positions of `epoch_order(num_samples, seed, epoch)` samples stand, (N,)."""
    seeds = np.array([derive_seed(seed, epoch)], np.uint64)
    return _walked(samples, np.array([num_samples]), seeds, _inverse_feistel)


def permuted(positions: Indices, sizes: Indices, seeds: Seeds) -> Indices:
    """Return what stands at positions (N,) of permutations of 0 … size - 1.

    Args:
        positions: Positions (N,), each below its size.
        sizes: Number of elements of each position's permutation (N,); (1,) if all have the same.
        seeds: Seed of each position's permutation, of the same shape as the sizes.
    """
    return _walked(positions, sizes, seeds, _feistel)


def _walked(
    numbers: Indices,
    sizes: Indices,
    seeds: Seeds,
    network: Callable[[Seeds, list[Seeds], Seeds], Seeds],
) -> Indices:
    """Apply a network to numbers below `sizes` until they are below them again (cycle walking)."""
    # frexp returns the number of bits of a whole number as the exponent.
    half_bits = np.maximum(1, (np.frexp(sizes - 1)[1] + 1) // 2).astype(np.uint64)
    limits = sizes.astype(np.uint64)
    keys = [derive_seeds(seeds, index) for index in range(_NUM_ROUNDS)]
    values: Seeds = network(numbers.view(np.uint64), keys, half_bits)
    while (outside := values >= limits).any():
        chosen = outside if len(sizes) == len(values) else slice(None)
        chosen_keys = [key[chosen] for key in keys]
        values[outside] = network(values[outside], chosen_keys, half_bits[chosen])
    return values.view(np.int64)


def rank_indices(
    order: Indices, global_batch: int, rank: int, world: int, start_step: int = 0
) -> Indices:
    """Return the part of an order that a rank reads, batch after batch.

    Step t takes positions [t·global_batch, (t+1)·global_batch) of the order, and rank r the r-th
    part of these. Samples that don't fill a global batch are left out.

    Args:
        order: Samples in the order of the epoch.
        global_batch: Number of samples of a step, over all ranks.
        rank: The rank.
        world: The world size.
        start_step: The first step to return.

    Raises:
        ValueError: The world size doesn't divide the global batch.
    """
    if global_batch % world:
        raise ValueError(f"global batch {global_batch} can't be divided among {world} ranks")
    steps = len(order) // global_batch
    batches = order[: steps * global_batch].reshape(steps, world, global_batch // world)
    return batches[start_step:, rank].reshape(-1)


def generator(*parts: int) -> np.random.Generator:
    """Return random numbers that depend on several numbers (counter-based, so cheap to make)."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts)))


def derive_seed(*parts: int) -> int:
    """Return a 64-bit seed that depends on each of several numbers (splitmix64's finaliser)."""
    state = 0
    for part in parts:
        state = _mix((state + _GOLDEN + part) & _MASK)
    return state


def derive_seeds(seeds: Seeds, parts: Indices | int) -> Seeds:
    """Return `derive_seed(*earlier, part)` for each seed `derive_seed(*earlier)` and its part."""
    return _mix_all(seeds + np.uint64(_GOLDEN) + np.asarray(parts).astype(np.uint64))


def _mix(value: int) -> int:
    value = (value ^ (value >> 30)) * _FACTORS[0] & _MASK
    value = (value ^ (value >> 27)) * _FACTORS[1] & _MASK
    return value ^ (value >> 31)


def _mix_all(values: Seeds) -> Seeds:
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(_FACTORS[0])
    values ^= values >> np.uint64(27)
    values *= np.uint64(_FACTORS[1])
    values ^= values >> np.uint64(31)
    return values


def _feistel(values: Seeds, keys: list[Seeds], half_bits: Seeds) -> Seeds:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix_all((right + np.uint64(_GOLDEN)) ^ key) & mask)
    return (left << half_bits) | right


def _inverse_feistel(values: Seeds, keys: list[Seeds], half_bits: Seeds) -> Seeds:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in reversed(keys):
        mixed = _mix_all((left + np.uint64(_GOLDEN)) ^ key) & mask
        left, right = np.bitwise_xor(right, mixed), left
    return (left << half_bits) | right
