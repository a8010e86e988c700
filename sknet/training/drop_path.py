"""Stochastic depth (Huang et al. 2016): in training a sample skips a block's residual branch.

The mask is an input of the training step, drawn on the host as a function of (seed, step): of the
whole global batch, of which each rank takes its part. So it is the same bits on a resumed run, on
any number of ranks and on any device; nn.Dropout's on CPU depend on the threads' order.
"""

import numpy as np
import numpy.typing as npt

from sknet.data.order import generator

_STREAM = int.from_bytes(b"droppath")


def drop_rates(num_blocks: int, rate: float) -> npt.NDArray[np.float64]:
    """Probability of each block: linear from 0 to `rate`, as in MindCV and timm."""
    return np.linspace(0, rate, num_blocks)


def branch_factors(
    num_blocks: int, rate: float, *, seed: int, step: int, global_batch: int
) -> npt.NDArray[np.float32]:
    """(num_blocks, global_batch): 0 where a sample skips a block, elsewhere the reciprocal of the
    probability of that, which keeps the branch's mean. `step` counts from the run's start."""
    kept = 1 - drop_rates(num_blocks, rate)[:, None]
    drawn = generator(_STREAM, seed, step).random((num_blocks, global_batch))
    return np.where(drawn < kept, 1 / kept, 0).astype(np.float32)
