"""How large a network is and how much it computes, counted from the network itself."""

from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, nn, ops

from sknet.errors import UserError
from sknet.models.registry import create_model
from sknet.models.watching import watching


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
