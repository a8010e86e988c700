"""A network that compiles in no time, in place of the recipe's."""

from types import SimpleNamespace

from mindspore import Tensor, nn


class ThreeLayers(nn.Cell):
    """With statistics, which ranks and stops must keep."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.architecture = SimpleNamespace(depths=(1,))
        self.convolution = nn.Conv2d(3, 4, 3, stride=4, has_bias=True)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Dense(4 * 64, num_classes)

    def twin(self) -> "ThreeLayers":
        """Another one."""
        return ThreeLayers(self.num_classes)

    def construct(self, images: Tensor, factors: Tensor | None = None) -> Tensor:
        """(N, 3, 32, 32) → (N, classes); the factors (1, N) are of the layer before the last."""
        features = self.norm(self.convolution(images)).reshape(images.shape[0], -1)
        if factors is not None:
            features = features * factors[0].reshape(-1, 1)
        return self.head(features)
