"""Selective Kernel Networks (arXiv 1903.06586), from the unit to the network, top to bottom.

The residual frame and the reduced attention width follow the skresnet18 that timm and MindCV
publish weights for; sections cited are the paper's.
"""

from collections.abc import Sequence

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, HeUniform, initializer


class SelectiveKernelAttention(nn.Cell):
    """Fuse and the softmax of Select (section 3.1): from the paths' sum to the paths' difference.

    For two paths the softmax over paths is a sigmoid of the difference of their logits, so one
    map of weights says everything.
    """

    def __init__(self, channels: int, attention_channels: int) -> None:
        super().__init__()
        self.fc_reduce = nn.Conv2d(channels, attention_channels, 1)
        self.bn = nn.BatchNorm2d(attention_channels)
        self.fc_select = nn.Conv2d(attention_channels, 2 * channels, 1)
        self.channels = channels

    def construct(self, fused: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 1, 1): the first path's share, in 0 … 1."""
        pooled = ops.mean(fused, (2, 3), True)
        logits = self.fc_select(ops.relu(self.bn(self.fc_reduce(pooled))))
        return ops.sigmoid(logits[:, : self.channels] - logits[:, self.channels :])


class SelectiveKernel(nn.Cell):
    """The SK unit (section 3.1): a 3x3 path and a 5x5 one, a 3x3 kernel of dilation 2 standing
    for the 5x5 (section 3.2), mixed per channel by their attention.

    With `split_input`, each path sees half of the input channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        attention_channels: int,
        split_input: bool,
    ) -> None:
        super().__init__()
        self.split = in_channels // 2 if split_input else 0
        path_channels = self.split or in_channels
        self.path_3x3 = conv_bn_relu(path_channels, out_channels, 3, stride=stride)
        self.path_5x5 = conv_bn_relu(path_channels, out_channels, 3, stride=stride, dilation=2)
        self.attention = SelectiveKernelAttention(out_channels, attention_channels)

    def construct(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        if self.split:
            a = self.path_3x3(x[:, : self.split])
            b = self.path_5x5(x[:, self.split :])
        else:
            a, b = self.path_3x3(x), self.path_5x5(x)
        return b + (a - b) * self.attention(a + b)


class BasicBlock(nn.Cell):
    """ResNet's basic block with an SK unit in place of the first convolution."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = SelectiveKernel(
            in_channels,
            channels,
            stride=stride,
            attention_channels=_round_to(channels / 8, 16),
            split_input=True,
        )
        self.conv2 = nn.SequentialCell(
            nn.Conv2d(channels, channels, 3, pad_mode="pad", padding=1),
            nn.BatchNorm2d(channels),
        )
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def construct(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return ops.relu(self.conv2(self.conv1(x)) + shortcut)


class SKNet(nn.Cell):
    """A residual network of SK units: a 7x7 stem, four stages of blocks, one linear classifier.

    Convolutions start He-normal over the outputs, BatchNorm as identity, the classifier uniform
    over its inputs; all from MindSpore's global seed.
    """

    def __init__(
        self, block: type[BasicBlock], depths: Sequence[int], *, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.stem = conv_bn_relu(in_channels, 64, 7, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, pad_mode="pad", padding=1)
        stages = []
        width = 64
        for index, depth in enumerate(depths):
            channels = 64 << index
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(width, channels, stride=stride))
                width = channels * block.expansion
            stages.append(nn.SequentialCell(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Dense(width, num_classes)
        _initialise(self)

    def construct(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) → logits (N, num_classes)."""
        x = self.pool(self.stem(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(ops.mean(x, (2, 3)))


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, dilation: int = 1
) -> nn.SequentialCell:
    """Convolution that keeps H and W apart from the stride, BatchNorm, ReLU."""
    return nn.SequentialCell(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            pad_mode="pad",
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.SequentialCell | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.SequentialCell(
        nn.Conv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
    )


def _round_to(value: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, at least one, not more than a tenth below `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


def _initialise(network: nn.Cell) -> None:
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            weight = HeNormal(mode="fan_out", nonlinearity="relu")
        elif isinstance(cell, nn.Dense):
            weight = HeUniform(mode="fan_in", nonlinearity="sigmoid")
            cell.bias.set_data(initializer("zeros", cell.bias.shape, cell.bias.dtype))
        else:
            continue
        cell.weight.set_data(initializer(weight, cell.weight.shape, cell.weight.dtype))
