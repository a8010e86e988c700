"""Look inside a network: what its units attend to, how large it is and how much it computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from sknet.models.registry import create_model
from sknet.models.sknet import SelectiveKernelAttention, SKNet
from sknet.sizes import RESOLUTION, ModelProfile

Watcher = Callable[[str, nn.Cell, Tensor], None]
PathWeights = dict[str, npt.NDArray[np.float64]]


def attention_probe(network: SKNet) -> Callable[[Tensor], PathWeights]:
    """Return a function from images (N, C, H, W) to the mean attention weights of every unit.

    Its result has the paper's names SK_2_1 … SK_5_k as keys, in network order. The values, (M,),
    are the weights of the unit's paths averaged over images and channels; they sum to 1, small
    kernels first. Units of one path have no attention and are left out. The network runs in
    evaluation mode, and its plain forward pass is not changed.
    """

    def probe(images: Tensor) -> PathWeights:
        weights: PathWeights = {}

        def collect(name: str, cell: nn.Cell, output: Tensor) -> None:
            # `layer1.0.conv2.attention`: conv2_x is the first stage with units.
            stage, block = name.split(".")[:2]
            values = output.asnumpy().astype(np.float64)
            if cell.num_paths == 2:
                values = np.stack([values, 1 - values], axis=1)
            weights[f"SK_{int(stage[-1]) + 1}_{int(block) + 1}"] = values.mean(axis=(0, 2, 3, 4))

        with watching(network, SelectiveKernelAttention, collect):
            network(images)
        return weights

    return probe


def profile(name: str, resolution: int = RESOLUTION) -> ModelProfile:
    """Count a model of 1000 classes, layer by layer, on one image of `resolution` pixels a side.

    Raises:
        UserError: The name is unknown.
    """
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


@contextmanager
def watching(
    network: nn.Cell, kinds: type[nn.Cell] | tuple[type[nn.Cell], ...], watcher: Watcher
) -> Iterator[None]:
    """Call `watcher(name, cell, output)` for each forward pass of a cell of the given kinds.

    Inside this context the network runs operation by operation, in evaluation mode. Compiled
    graphs stay as they are.
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
