"""Networks that compile in seconds, for tests in which the size of a network proves nothing."""

from dataclasses import replace
from types import SimpleNamespace

from mindspore import Tensor, nn

from sknet.architectures import ARCHITECTURES
from sknet.models.backend import backend_of
from sknet.models.sknet import SKNet

TINY = ARCHITECTURES["tiny"]  # of tests.tiny_model
"""One block with the plain shortcut and one with the convolution: some 50 parameter tensors and
half a million values. A training step compiles in a fifth of skresnet18's time."""
TINY_BOTTLENECK = replace(ARCHITECTURES["sknet26"], depths=(1, 1, 0, 0))
"""The paper's form, with groups and without a split of the input."""


def tiny_network(num_classes: int = 3) -> SKNet:
    return SKNet(TINY, num_classes=num_classes, in_channels=3)


class ThreeLayers(nn.Cell):
    """A network for tests that compile dozens of times, with statistics that ranks must save.

    Its images are 32 x 32.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.architecture = SimpleNamespace(depths=(2,))
        self.backend = backend_of()
        self.convolution = nn.Conv2d(3, 4, 3, stride=4, has_bias=True)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Dense(4 * 64, num_classes)

    def twin(self) -> "ThreeLayers":
        return ThreeLayers(self.num_classes)

    def construct(self, images: Tensor, factors: Tensor | None = None) -> Tensor:
        """Map (N, 3, 32, 32) to (N, classes); the second of the factors, (2, N), scales them."""
        features = self.norm(self.convolution(images)).reshape(images.shape[0], -1)
        if factors is not None:
            features = features * factors[1].reshape(-1, 1)
        return self.head(features)
