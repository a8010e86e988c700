"""BatchNorm's moving statistics, which each rank computes from its own batches.

At a checkpoint that was planned the ranks take their mean (SynchroniseStatistics), interrupted or
not. A training that is stopped between two of these must not: it keeps each rank's own.
"""

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from sknet.training.step import moving_statistics

Statistics = npt.NDArray[np.float32]


def gather(step_cell: nn.Cell) -> Statistics:
    """All ranks' statistics (ranks, values), on every rank; to be called by all of them."""
    own = np.concatenate([p.asnumpy().reshape(-1) for p in moving_statistics(step_cell)])
    gathered: Statistics = ops.AllGather()(Tensor(own[None])).asnumpy()
    return np.array(gathered)


def assign(step_cell: nn.Cell, gathered: Statistics, rank: int, world_size: int) -> None:
    """Set what `gather` returned: the rank's own, or their mean in another world."""
    values = gathered[rank] if len(gathered) == world_size else gathered.mean(axis=0)
    start = 0
    for parameter in moving_statistics(step_cell):
        part = values[start : start + parameter.size]
        parameter.set_data(Tensor(part.reshape(parameter.shape)))
        start += parameter.size
