"""The device of this process, and its rank among the ranks of the job."""

import os
from dataclasses import dataclass
from functools import cache

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, communication, ops
from mindspore.device_context.ascend import op_precision

from sknet.device import describe_failure, find_cards
from sknet.errors import UserError


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

    def gather(self, content: bytes) -> list[bytes]:
        """Return the bytes of all ranks, in their order. All of them have to call this."""
        if self.size == 1:
            return [content]
        # float32, as in all collective operations here, is exact for numbers below 2^24.
        lengths = _all_gather(np.array(divmod(len(content), _LENGTH_BASE), np.float32))
        exact = [int(high) * _LENGTH_BASE + int(low) for high, low in lengths]
        padded = np.zeros(max(exact), np.float32)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        rows = _all_gather(padded).astype(np.uint8)
        return [row[:length].tobytes() for row, length in zip(rows, exact, strict=True)]


_LENGTH_BASE = 1 << 20

ALONE = World(rank=0, size=1)
"""The world of a process that works by itself."""


@cache
def _all_reduce() -> ops.AllReduce:
    return ops.AllReduce()


def _all_gather(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the values (N,) of all ranks as rows (ranks, N)."""
    gathered: npt.NDArray[np.float32] = ops.AllGather()(Tensor(values[None])).asnumpy()
    return gathered


def set_device(device_target: str, mode: int = ms.GRAPH_MODE, jit_level: str | None = None) -> None:
    """Choose the device, the execution mode and the jit level of this process.

    Whatever is float32 is computed in full float32, on Ascend too, where CANN would round the
    inputs of convolutions to HF32, which has 10 instead of 23 bits of mantissa. MindSpore accepts
    that choice once for a process, so training can't differ from the evaluations in between.

    Args:
        device_target: CPU or Ascend.
        mode: MindSpore's graph or PyNative mode.
        jit_level: O0, O1 or O2; None: MindSpore's own default. It has no effect on CPU.

    Raises:
        UserError: The device is not available on this machine; the message has MindSpore's reason.
    """
    # On virtual machines that hide their caches from oneDNN's AVX-512 code, it falls back to
    # reference convolutions, which are a hundred times slower. And only with one instruction set
    # do all hosts compute the same bits. oneDNN reads this at the first convolution.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    try:
        ms.set_device(device_target)
    except (RuntimeError, ValueError) as error:
        reason = describe_failure(str(error), find_cards())
        raise UserError(
            f"device_target {device_target} is not available on this machine: {reason}"
        ) from None
    if device_target == "Ascend":
        op_precision.conv_allow_hf32(False)
        op_precision.matmul_allow_hf32(False)
    ms.set_context(mode=mode)
    if jit_level:
        ms.set_context(jit_config={"jit_level": jit_level})


def join_world(*, distribute: bool) -> World:
    """Join the ranks that msrun started, or work alone unless `distribute`.

    msrun's scheduler process never returns from this call, so call it before any side effect.
    """
    if not distribute:
        return ALONE
    communication.init()
    return World(rank=communication.get_rank(), size=communication.get_group_size())
