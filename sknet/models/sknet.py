"""Selective Kernel Networks (arXiv 1903.06586), from the unit to the network, top to bottom.

Sections and tables cited are those of the paper. The residual blocks around the units are those of
ResNet and ResNeXt. `sknet.architectures` has the forms of the network.
"""

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, HeUniform, initializer

from sknet.architectures import Architecture
from sknet.models.backend import Backend, Float32Cell, backend_of


class ConvNorm(nn.Cell):
    """A padded convolution, BatchNorm and an optional ReLU.

    After `sknet.models.folding.fold` the convolution has a bias and `bn` is the identity.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            pad_mode="pad",
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            group=groups,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = relu

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        x = self.bn(self.conv(x))
        return ops.relu(x) if self.relu else x


class SelectiveKernelAttention(nn.Cell):
    """Fuse, and the softmax of Select (section 3.1): turns the sum of the paths into weights."""

    def __init__(
        self,
        channels: int,
        attention_channels: int,
        num_paths: int,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.spatial_mean = (backend or backend_of()).spatial_mean()
        self.reduce = ConvNorm(channels, attention_channels, 1)
        self.select = nn.Conv2d(attention_channels, num_paths * channels, 1)
        self.weights = PathWeights(channels, num_paths)
        self.num_paths = num_paths

    def construct(self, fused: Tensor) -> Tensor:
        """Map the sum of the paths, (N, C, H, W), to the result of `PathWeights`."""
        return self.weights(self.select(self.reduce(self.spatial_mean(fused))))


class PathWeights(Float32Cell):
    """The softmax over paths."""

    def __init__(self, channels: int, num_paths: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_paths = num_paths

    def construct(self, logits: Tensor) -> Tensor:
        """Map logits (N, M·C, 1, 1) to weights (N, M, C, 1, 1) that sum to 1 over M.

        For two paths the softmax is a sigmoid of the difference, and only the weight of the first
        path, (N, C, 1, 1), is returned.
        """
        if self.num_paths == 2:
            first, second = ops.split(logits, self.channels, 1)
            return ops.sigmoid(first - second)
        return ops.softmax(logits.reshape(-1, self.num_paths, self.channels, 1, 1), 1)


class Weigh(nn.Cell):
    """The product of a map with a weight for each of its channels.

    Its derivative sums over pixels in float32, since the sum may be infinite in float16.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.product_sum = backend.product_sum()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply a map, (N, C, H, W), by its weight, (N, C, 1, 1)."""
        return x * weight

    def bprop(self, x: Tensor, weight: Tensor, _: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x and, in float32, of the weight."""
        return dout * weight, self.product_sum(dout, x)


class MixTwo(nn.Cell):
    """Select for two paths (section 3.1): V = weight · a + (1 - weight) · b.

    Its derivative reads each map once, and sums over pixels in float32, since the sum may be
    infinite in float16.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.product_sum = backend.product_sum()

    def construct(self, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        """Mix maps a and b, (N, C, H, W), by the weight of a, (N, C, 1, 1)."""
        return b + (a - b) * weight

    def bprop(
        self, a: Tensor, b: Tensor, weight: Tensor, _: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of a and b and, in float32, of the weight."""
        d_a = dout * weight
        return d_a, dout - d_a, self.product_sum(dout, a - b)


class SelectiveKernel(nn.Cell):
    """The SK unit (section 3.1): paths with different kernels, mixed per channel by attention.

    The paper's unit has a 3x3 and a 5x5 path. With a single path the unit is a plain convolution
    without attention.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        attention_channels: int,
        kernels: Sequence[int] = (3, 5),
        keep_3x3: bool = True,
        split_input: bool = False,
        stride: int = 1,
        groups: int = 1,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        backend = backend or backend_of()
        num_paths = len(kernels)
        if split_input and in_channels % num_paths:
            raise ValueError(f"{in_channels} channels can't be split among {num_paths} paths")
        if any(kernel < 3 or kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"kernels are {list(kernels)}, expected odd ones from 3")
        self.num_paths = num_paths
        self.path_channels = in_channels // num_paths if split_input else in_channels
        self.split_input = split_input
        self.paths = nn.CellList(
            [
                ConvNorm(
                    self.path_channels,
                    out_channels,
                    3 if keep_3x3 else kernel,
                    stride=stride,
                    dilation=(kernel - 1) // 2 if keep_3x3 else 1,
                    groups=groups,
                )
                for kernel in kernels
            ]
        )
        if num_paths > 1:
            self.attention = SelectiveKernelAttention(
                out_channels, attention_channels, num_paths, backend
            )
        if num_paths == 2:
            self.mix_two = MixTwo(backend)
        elif num_paths > 2:
            self.weigh = Weigh(backend)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""
        if self.num_paths == 1:
            return self.paths[0](x)
        # The derivative of a split is one concatenation; that of slices is a sum of full-size maps.
        inputs = ops.split(x, self.path_channels, 1) if self.split_input else (x,) * self.num_paths
        maps = []
        for index, path in enumerate(self.paths):
            maps.append(path(inputs[index]))
        fused = maps[0]
        for u in maps[1:]:
            fused = fused + u
        weights = self.attention(fused)
        if self.num_paths == 2:
            return self.mix_two(maps[0], maps[1], weights)
        mixed = self.weigh(maps[0], weights[:, 0])
        for index in range(1, self.num_paths):
            mixed = mixed + self.weigh(maps[index], weights[:, index])
        return mixed


class BasicBlock(nn.Cell):
    """ResNet's basic block with an SK unit instead of the first convolution."""

    expansion = 1

    def __init__(
        self, form: Architecture, in_channels: int, channels: int, stride: int, backend: Backend
    ) -> None:
        super().__init__()
        self.conv1 = _unit(form, in_channels, channels, stride, backend)
        self.conv2 = ConvNorm(channels, channels, 3, relu=False)
        self.downsample = _shortcut(in_channels, channels, stride)

    def construct(self, x: Tensor, factors: Tensor | None = None) -> Tensor:
        """Map (N, C_in, H, W) to (N, C, H/stride, W/stride).

        `factors`, (N,), scale the residual branch of each sample.
        """
        return ops.relu(_scaled(self.conv2(self.conv1(x)), factors) + self.downsample(x))


class Bottleneck(nn.Cell):
    """ResNeXt's bottleneck with an SK unit instead of the 3x3 convolution (table 1)."""

    expansion = 4

    def __init__(
        self, form: Architecture, in_channels: int, channels: int, stride: int, backend: Backend
    ) -> None:
        super().__init__()
        width = channels * form.base_width // 64 * form.groups
        out_channels = channels * self.expansion
        self.conv1 = ConvNorm(in_channels, width, 1, relu=form.first_relu)
        self.conv2 = _unit(form, width, width, stride, backend)
        self.conv3 = ConvNorm(width, out_channels, 1, relu=False)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def construct(self, x: Tensor, factors: Tensor | None = None) -> Tensor:
        """Map (N, C_in, H, W) to (N, 4C, H/stride, W/stride).

        `factors`, (N,), scale the residual branch of each sample.
        """
        branch = self.conv3(self.conv2(self.conv1(x)))
        return ops.relu(_scaled(branch, factors) + self.downsample(x))


class SKNet(nn.Cell):
    """A residual network of SK units: a 7x7 stem, four stages of blocks, a linear classifier.

    Weights are initialised as in ResNet, timm and MindCV: convolutions He-normal over the outputs
    and BatchNorm as the identity. The classifier is uniform over its inputs, as in MindCV, with
    bias 0. All draws follow from MindSpore's global seed.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int,
        in_channels: int,
        backend: Backend | None = None,
    ) -> None:
        """Make the network.

        Args:
            architecture: Its form.
            num_classes: Number of classes.
            in_channels: Number of channels of the images.
            backend: Its operators; by default those for this process's device.
        """
        super().__init__()
        self.backend = backend or backend_of()
        self.architecture = architecture
        self.num_classes = num_classes
        self.in_channels = in_channels
        block = BasicBlock if architecture.block == "basic" else Bottleneck
        self.stem = ConvNorm(in_channels, 64, 7, stride=2, relu=False)
        self.pool = self.backend.stem_pool(architecture.pool_padding)
        stages = []
        width = 64
        for index, depth in enumerate(architecture.depths):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(architecture, width, 64 << index, stride, self.backend))
                width = (64 << index) * block.expansion
            stages.append(nn.SequentialCell(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.spatial_mean = self.backend.spatial_mean()
        self.fc = nn.Dense(width, num_classes)
        _initialise(self)

    def twin(self) -> "SKNet":
        """Return another network of the same form, with newly initialised weights."""
        return SKNet(
            self.architecture,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            backend=self.backend,
        )

    def construct(self, x: Tensor, factors: Tensor | None = None) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes).

        Args:
            x: The images.
            factors: (blocks, N), factors of the residual branches for stochastic depth.
        """
        x = self.pool(self.stem(x))
        if factors is None:
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        else:
            index = 0
            for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
                for block in stage.cell_list:
                    x = block(x, factors[index])
                    index += 1
        return self.fc(self.spatial_mean(x).flatten(start_dim=1))


def _scaled(branch: Tensor, factors: Tensor | None) -> Tensor:
    return branch if factors is None else branch * factors.reshape(-1, 1, 1, 1)


def _unit(
    form: Architecture, in_channels: int, out_channels: int, stride: int, backend: Backend
) -> SelectiveKernel:
    return SelectiveKernel(
        in_channels,
        out_channels,
        attention_channels=attention_width(
            out_channels / form.attention_reduction, form.attention_divisor
        ),
        kernels=form.kernels,
        keep_3x3=form.keep_3x3,
        split_input=form.split_input,
        stride=stride,
        groups=form.groups,
        backend=backend,
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Cell:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, 1, stride=stride, relu=False)


def attention_width(value: float, divisor: int) -> int:
    """Return the positive multiple of `divisor` nearest to `value`, at most a tenth below it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


def _initialise(network: nn.Cell) -> None:
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            weight = HeNormal(mode="fan_out", nonlinearity="relu")
        elif isinstance(cell, nn.Dense):
            weight = HeUniform(mode="fan_in", nonlinearity="sigmoid")
            cell.bias.set_data(initializer("zeros", cell.bias.shape, ms.float32))
        else:
            continue
        cell.weight.set_data(initializer(weight, cell.weight.shape, ms.float32))
