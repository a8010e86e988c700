"""The size and the work of every model, as `sknet models` prints them, without MindSpore.

The numbers of SIZES were counted once by `sknet.models.profile`, and a test counts them again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from tabulate import tabulate

from infra.base.commands import OPTIONS, parsed_by
from infra.base.options import whole_number
from infra.base.progress import work
from sknet import program
from sknet.architectures import ARCHITECTURES, IMAGENET_CLASSES, architecture
from sknet.options import LaunchedOptions
from sknet.recipe import Recipe

RESOLUTION = 224
"""Side, in pixels, of the image for which SIZES has the work."""

MIN_RESOLUTION, MAX_RESOLUTION = 32, 2048
"""The network's total stride, and what a gigabyte holds of the largest map of one image."""

BYTES_PER_PARAMETER = 4
"""Weights are float32."""


@dataclass(frozen=True)
class ModelProfile:
    """The size of a network of ImageNet's classes, and its work for one image."""

    params: int
    """Number of trainable parameters."""
    params_with_statistics: int
    """Number of trainable parameters and of BatchNorm's moving statistics."""
    macs: int
    """Multiply-accumulates of all convolutions and the classifier. Each is two FLOPs."""

    @property
    def num_bytes(self) -> int:
        """Number of bytes of weights and statistics in a checkpoint."""
        return BYTES_PER_PARAMETER * self.params_with_statistics


SIZES = {
    "skresnet18": ModelProfile(11_958_056, 11_972_008, 1_814_337_536),
    "skresnet34": ModelProfile(22_282_376, 22_307_944, 3_664_237_568),
    "skresnet50": ModelProfile(25_803_160, 25_864_328, 4_089_422_336),
    "skresnext50_32x4d": ModelProfile(27_479_784, 27_564_328, 4_462_710_784),
    "sknet26": ModelProfile(16_746_408, 16_793_256, 2_586_877_952),
    "sknet50": ModelProfile(27_479_784, 27_564_328, 4_462_710_784),
    "sknet101": ModelProfile(48_736_040, 48_908_712, 8_448_724_992),
    "skresnet18_mindcv": ModelProfile(11_958_056, 11_972_008, 1_814_337_536),
    "skresnet34_mindcv": ModelProfile(22_282_376, 22_307_944, 3_664_237_568),
    "skresnet50_mindcv": ModelProfile(25_803_160, 25_864_328, 4_089_422_336),
    "skresnext50_32x4d_mindcv": ModelProfile(37_245_352, 37_307_048, 5_939_234_816),
}
"""Model → its size, and its work for an image of RESOLUTION pixels a side."""


_STATES = {"momentum": 1, "sgd": 2, "adamw": 2, "lamb": 2}
"""Optimizer → how many numbers it keeps for each trainable parameter."""

_FEATURES = {"basic": 512, "bottleneck": 2048}
"""Kind of block → inputs of the classifier."""


def checkpoint_bytes(recipe: Recipe, num_classes: int) -> int | None:
    """Return about how many bytes a checkpoint of a training takes; None if nobody counted them.

    It has the weights and statistics, what the optimizer keeps, and the average of weights, if
    there is one.
    """
    if recipe.model not in SIZES:
        return None
    size = SIZES[recipe.model]
    fewer = (IMAGENET_CLASSES - num_classes) * (_FEATURES[architecture(recipe.model).block] + 1)
    trained, all_values = size.params - fewer, size.params_with_statistics - fewer
    states = _STATES["sgd" if recipe.use_nesterov else recipe.opt]
    return BYTES_PER_PARAMETER * (all_values * (1 + recipe.ema) + states * trained)


@dataclass(frozen=True, kw_only=True)
class Options(LaunchedOptions):
    """The options of the table."""

    resolution: Annotated[int, parsed_by(whole_number(MIN_RESOLUTION, MAX_RESOLUTION))] = RESOLUTION
    """Side of the image for which multiply-accumulates are counted, in pixels. Another than the
    default takes a minute, as the networks then run."""


DEFAULTS = Options()


def main(arguments: Options) -> None:
    """Print a table with one row for each model."""
    with work("counting", len(ARCHITECTURES)) as count:
        rows = []
        for name, size in profiles(arguments.resolution):
            rows.append(
                {
                    "model": name,
                    "params": f"{size.params:,}",
                    "with statistics": f"{size.params_with_statistics:,}",
                    "MB": f"{size.num_bytes / 1e6:.1f}",
                    f"GMACs @{arguments.resolution}": f"{size.macs / 1e9:.2f}",
                }
            )
            count(1)
    print(tabulate(rows, headers="keys", tablefmt="pipe", stralign="right", disable_numparse=True))


def profiles(resolution: int) -> Iterator[tuple[str, ModelProfile]]:
    """Yield each model with its profile: the stored one, or else that which its network gives."""
    for name in ARCHITECTURES:
        if resolution == RESOLUTION and name in SIZES:
            yield name, SIZES[name]
        else:
            from sknet.models import profile
            from sknet.world import set_device

            set_device("CPU")
            yield name, profile(name, resolution)


def command(options: Annotated[Options, OPTIONS] = DEFAULTS) -> int:
    """List the models: their parameters, the megabytes of their weights, their work for an image.

    Example: `sknet models`
    """
    return program.run(main, options)
