"""The device, and this process's place among the ranks."""

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
    """One rank among `size`."""

    rank: int
    size: int

    def sum(self, value: float) -> float:
        """Over all ranks, which have to call it alike; in float32."""
        if self.size == 1:
            return value
        return float(_all_reduce()(Tensor(np.array([value], np.float32))).asnumpy()[0])


ALONE = World(rank=0, size=1)
"""The world of a process that works by itself."""


@cache
def _all_reduce() -> ops.AllReduce:
    return ops.AllReduce()


def set_device(device_target: str, mode: int = ms.GRAPH_MODE) -> None:
    """Choose the device and the mode of a recipe. Raises UserError if it is not available here."""
    # oneDNN falls back to reference convolutions, a hundred times slower, on virtual machines
    # that hide their caches from its AVX-512 code; and one instruction set on all hosts means
    # the same bits on all hosts. Read at the first convolution.
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
    """Join the ranks that msrun started; alone unless `distribute`.

    msrun's scheduler process never returns from here, so this comes before any side effect.
    """
    if not distribute:
        return ALONE
    communication.init()
    return World(rank=communication.get_rank(), size=communication.get_group_size())
