"""The device of this process, and its rank among the ranks of the job."""

import os
from dataclasses import dataclass
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, communication, ops

from sknet.errors import UserError

DEVICE_TARGETS = ("CPU", "Ascend")


@dataclass(frozen=True)
class World:
    """One of the ranks of a job."""

    rank: int
    size: int

    def sum(self, value: float) -> float:
        """Return the float32 sum of a value over all ranks. All of them have to call this."""
        if self.size == 1:
            return value
        return float(_all_reduce()(Tensor(np.array([value], np.float32))).asnumpy()[0])


ALONE = World(rank=0, size=1)
"""The world of a process that works by itself."""


@cache
def _all_reduce() -> ops.AllReduce:
    return ops.AllReduce()


def set_device(device_target: str, mode: int = ms.GRAPH_MODE) -> None:
    """Choose the device and the execution mode of this process.

    Raises:
        UserError: The device is unknown or not available on this machine.
    """
    # On virtual machines that hide their caches from oneDNN's AVX-512 code, it falls back to
    # reference convolutions, which are a hundred times slower. And only with one instruction set
    # do all hosts compute the same bits. oneDNN reads this at the first convolution.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    if device_target not in DEVICE_TARGETS:
        raise UserError(
            f"device_target is {device_target!r}, expected one of {', '.join(DEVICE_TARGETS)}"
        )
    try:
        ms.set_device(device_target)
    except (RuntimeError, ValueError):
        raise UserError(
            f"device_target {device_target} is not available on this machine: use CPU"
        ) from None
    ms.set_context(mode=mode)


def join_world(*, distribute: bool) -> World:
    """Join the ranks that msrun started, or work alone unless `distribute`.

    msrun's scheduler process never returns from this call, so call it before any side effect.
    """
    if not distribute:
        return ALONE
    communication.init()
    return World(rank=communication.get_rank(), size=communication.get_group_size())
