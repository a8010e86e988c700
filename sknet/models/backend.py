"""The operators whose best form depends on the device: plain ones on Ascend, tuned ones on CPU.

Both forms compute the same and have no weights, so a checkpoint fits either. A network takes its
form when it is made. On CPU the plain operators take up to eight times as long
(docs/internals/performance.md). On Ascend the tuned ones would cost conversions between layouts,
and `MaxPoolWithArgmax` is missing on most cards.

Sums over pixels are float32 at every precision. In float16 the sum over a 56x56 map of 22 is
infinite.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from sknet.architectures import Padding

LOWEST_FLOAT16 = -65504.0
"""Far below any output of BatchNorm."""


@dataclass(frozen=True)
class Backend:
    """What depends on the device: makers of a network's operators, and how ranks sum gradients."""

    spatial_mean: Callable[[], nn.Cell]
    """Average over pixels: (N, C, H, W) → (N, C, 1, 1)."""
    product_sum: Callable[[], nn.Cell]
    """Sum over pixels of the product of two maps: 2 x (N, C, H, W) → (N, C, 1, 1)."""
    stem_pool: Callable[[Padding], nn.Cell]
    """3x3 max pooling of stride 2, then ReLU: (N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉). The two commute,
    and after the pooling ReLU has a quarter of the work."""
    sum_of_squares: Callable[[Tensor], Tensor]
    """No maker: returns the sum of the squares of all elements, as a scalar."""
    fuses_collectives: bool
    """Whether MindSpore makes a graph's sums over ranks one operation. On CPU that takes twice as
    long (docs/internals/decisions.md)."""


class Float32Cell(nn.Cell):
    """A cell that computes in float32 at every precision of its network.

    MindSpore tells all cells of a network to cast their inputs to float16. A cast inside such a
    cell would not last: in PyNative mode every operator casts its own inputs again.
    """

    def add_flags(self, **flags: Any) -> "Float32Cell":
        """Set MindSpore's flags, of which `fp16` becomes `fp32`."""
        if flags.get("fp16"):
            flags |= {"fp16": False, "fp32": True}
        super().add_flags(**flags)
        return self


class SpatialMean(nn.Cell):
    """Average over pixels. MindSpore's own derivative of it divides whole maps in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = Mean()

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 1, 1)."""
        return self.mean(x)

    def bprop(self, x: Tensor, _: Tensor, dout: Tensor) -> tuple[Tensor]:
        """Return the gradient of x."""
        share = dout / ops.cast(x.shape[2] * x.shape[3], dout.dtype)
        return (ops.broadcast_to(share.astype(x.dtype), x.shape),)


class Mean(Float32Cell):
    """Average over pixels, with MindSpore's derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 1, 1)."""
        return self.mean(x, (2, 3))


class TunedSpatialMean(Float32Cell):
    """Average over pixels as a product with ones, which takes an eighth of a reduction's time."""

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 1, 1)."""
        n, c, h, w = x.shape
        total = ops.matmul(x.reshape(n * c, h * w), ops.ones((h * w, 1), x.dtype))
        return total.reshape(n, c, 1, 1) / (h * w)


class ProductSum(Float32Cell):
    """Sum over pixels of the product of two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = ops.ReduceSum(keep_dims=True)

    def construct(self, a: Tensor, b: Tensor) -> Tensor:
        """Map two maps (N, C, H, W) to (N, C, 1, 1)."""
        return self.sum(a * b, (2, 3))


class TunedProductSum(Float32Cell):
    """Sum over pixels of the product of two maps as matrix products, which read each map once."""

    def construct(self, a: Tensor, b: Tensor) -> Tensor:
        """Map two maps (N, C, H, W) to (N, C, 1, 1)."""
        n, c, h, w = a.shape
        return ops.bmm(a.reshape(n * c, 1, h * w), b.reshape(n * c, h * w, 1)).reshape(n, c, 1, 1)


class StemPool(nn.Cell):
    """The stem's pooling of operators that every device and every exported format supports."""

    def __init__(self, padding: Padding) -> None:
        super().__init__()
        # Zeros are exact because a ReLU follows.
        self.pad = ops.Pad(((0, 0), (0, 0), (1, 1), (1, 1))) if padding == "both" else None
        self.pool = ops.MaxPool(3, 2, "valid" if padding == "both" else "same")

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        return ops.relu(self.pool(x if self.pad is None else self.pad(x)))


class TunedStemPool(nn.Cell):
    """The stem's pooling for CPU, where training and evaluation need different operators.

    The padded form of nn.MaxPool2d takes seven times as long forward, its unpadded form four times
    as long backward (docs/internals/performance.md).
    """

    def __init__(self, padding: Padding) -> None:
        super().__init__()
        both = padding == "both"
        self.evaluation = (
            ops.MaxPool3D((1, 3, 3), (1, 2, 2), "pad", (0, 0, 1, 1, 1, 1))
            if both
            else ops.MaxPool(3, 2, "same")
        )
        # It warns that it is deprecated, but its successor takes minutes. Its own padding ("same")
        # is wrong for odd sizes.
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        self.training_pool = ops.MaxPoolWithArgmax(3, 2, "valid")
        logging.disable(disabled)
        self.both = both

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        if self.training:
            return ops.relu(self.training_pool(self._padded(x))[0])
        if self.both:
            return ops.relu(self.evaluation(x.expand_dims(2)).squeeze(2))
        return ops.relu(self.evaluation(x))

    def _padded(self, x: Tensor) -> Tensor:
        # An even size is padded at one end: the pooling never reads the other.
        n, c, h, w = x.shape
        row = ops.full((n, c, 1, w), LOWEST_FLOAT16, dtype=x.dtype)
        even = (row, x) if self.both else (x, row)
        x = ops.cat((row, x, row) if h % 2 else even, 2)
        column = ops.full((n, c, x.shape[2], 1), LOWEST_FLOAT16, dtype=x.dtype)
        even = (column, x) if self.both else (x, column)
        return ops.cat((column, x, column) if w % 2 else even, 3)


def sum_of_squares(x: Tensor) -> Tensor:
    """Return the sum of the squares of all elements, as a scalar."""
    return ops.ReduceSum()(ops.square(x))


def tuned_sum_of_squares(x: Tensor) -> Tensor:
    """Return the sum of the squares of all elements, as a scalar, by a matrix product.

    The threads of a plain sum on CPU add large tensors up in the order in which they finish.
    """
    row = x.reshape(1, -1)
    return ops.matmul(row, row.reshape(-1, 1)).reshape(())


PLAIN = Backend(SpatialMean, ProductSum, StemPool, sum_of_squares, fuses_collectives=True)
TUNED_FOR_CPU = Backend(
    TunedSpatialMean,
    TunedProductSum,
    TunedStemPool,
    tuned_sum_of_squares,
    fuses_collectives=False,
)


def backend_of(device_target: str | None = None) -> Backend:
    """Return the operators for a device, CPU or Ascend; by default for this process's device."""
    target = ms.get_context("device_target") if device_target is None else device_target
    return TUNED_FOR_CPU if target == "CPU" else PLAIN
