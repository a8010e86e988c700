"""What the SK units attend to: the mean share of each path (sections 4.4 and figures 3 to 5)."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn

from sknet.models.sknet import SelectiveKernelAttention, SKNet
from sknet.models.watching import watching

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
