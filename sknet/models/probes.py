"""How large a network is and how much it computes, counted from the network itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from sknet.errors import UserError
from sknet.models.registry import create_model
from sknet.models.sknet import SelectiveKernelAttention, SKNet

Watcher = Callable[[str, nn.Cell, Tensor], None]


@contextmanager
def watching(
    network: nn.Cell, kinds: type[nn.Cell] | tuple[type[nn.Cell], ...], watcher: Watcher
) -> Iterator[None]:
    """While this is open, `watcher(name, cell, output)` sees each forward of a cell of the kinds.

    The network runs operation by operation then, in evaluation mode; compiled graphs stay as they
    are.
    """

    def hook(name: str) -> Callable[[nn.Cell, object, Tensor], None]:
        return lambda cell, _, output: watcher(name, cell, output)

    handles = [
        cell.register_forward_hook(hook(name))
        for name, cell in network.cells_and_names()
        if isinstance(cell, kinds)
    ]
    mode, training = ms.get_context("mode"), network.training
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network.set_train(False)
    try:
        yield
    finally:
        network.set_train(training)
        ms.set_context(mode=mode)
        for handle in handles:
            handle.remove()


Shares = dict[str, npt.NDArray[np.float64]]


def attention_probe(network: SKNet) -> Callable[[Tensor], Shares]:
    """A function from images (N, C, H, W) to the mean share of every unit's paths.

    The keys are the paper's SK_2_1 … SK_5_k in network order, the values (M,) means over images
    and channels that sum to 1, small kernels first. Units of one path have no attention and don't
    appear. The network runs in evaluation mode; its plain forward pass is not touched.
    """

    def probe(images: Tensor) -> Shares:
        shares: Shares = {}

        def collect(name: str, cell: nn.Cell, output: Tensor) -> None:
            # `layer1.0.conv2.attention`: conv2_x is the first stage with units.
            stage, block = name.split(".")[:2]
            values = output.asnumpy().astype(np.float64)
            if cell.num_paths == 2:
                values = np.stack([values, 1 - values], axis=1)
            shares[f"SK_{int(stage[-1]) + 1}_{int(block) + 1}"] = values.mean(axis=(0, 2, 3, 4))

        with watching(network, SelectiveKernelAttention, collect):
            network(images)
        return shares

    return probe


@dataclass(frozen=True)
class ModelProfile:
    """Sizes of one network."""

    params: int
    """Trainable parameters."""
    params_with_statistics: int
    """Trainable parameters and BatchNorm's moving statistics."""
    macs: int
    """Multiply-accumulates of all convolutions and the classifier for one image."""


def profile(name: str, resolution: int = 224) -> ModelProfile:
    """Count a model of 1000 classes, layer by layer, on one image of `resolution` pixels a side.

    Raises UserError for an unknown name, and a resolution outside 32 … 2048: the network's total
    stride, and what a gigabyte holds of one image's largest map.
    """
    if not 32 <= resolution <= 2048:
        raise UserError(f"resolution is {resolution}, expected 32 to 2048 pixels")
    network = create_model(name)
    macs = 0

    def count(_: str, cell: nn.Cell, output: Tensor) -> None:
        nonlocal macs
        # Each output value is the product of one output channel's weights with as many inputs.
        macs += output.size * cell.weight[0].size

    with watching(network, (nn.Conv2d, nn.Dense), count):
        network(ops.zeros((1, 3, resolution, resolution), ms.float32))
    return ModelProfile(
        params=sum(parameter.size for parameter in network.trainable_params()),
        params_with_statistics=sum(parameter.size for parameter in network.get_parameters()),
        macs=macs,
    )
