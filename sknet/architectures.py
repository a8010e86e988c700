"""The forms of the network by name; without MindSpore, so that any machine can check a name."""

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from sknet.errors import UserError

IMAGENET_CLASSES = 1000
"""Number of classes of ImageNet-1K, for which the networks were published."""

Padding = Literal["both", "end"]
"""Where the stem's pooling pads an even size. MindCV pads at the end only."""


@dataclass(frozen=True)
class Architecture:
    """The form of a network, apart from its numbers of classes and of input channels."""

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]
    """Number of blocks of each of the four stages, conv2_x to conv5_x."""
    attention_divisor: int
    """The attention's width d is C / attention_reduction, rounded to a positive multiple of this.
    With 32 it equals the paper's d = max(C / r, L), L = 32, at every width used."""
    attention_reduction: int = 16
    """The paper's r."""
    kernels: tuple[int, ...] = (3, 5)
    """Kernel size of each path. The number of paths is the paper's M."""
    keep_3x3: bool = True
    """Whether larger kernels are 3x3 kernels with dilation (section 3.2) instead of dense ones."""
    split_input: bool = True
    """Whether the input channels are split between the paths (not in the paper)."""
    groups: int = 1
    """The paper's G: groups of the SK convolutions in a bottleneck."""
    base_width: int = 64
    """Channels per group of the bottlenecks in the first stage. ResNet has 64 and one group."""
    first_relu: bool = True
    """Whether a ReLU follows the first convolution of a bottleneck. In MindCV none does."""
    pool_padding: Padding = "both"


# The reduced forms of timm and MindCV, which split the input between the paths.
_BASIC = Architecture("basic", (2, 2, 2, 2), attention_divisor=16, attention_reduction=8)
_SPLIT_50 = Architecture("bottleneck", (3, 4, 6, 3), attention_divisor=8)
# The paper's form (table 1): M = 2, G = 32, r = 16, L = 32.
_PAPER_50 = Architecture(
    "bottleneck",
    (3, 4, 6, 3),
    attention_divisor=32,
    split_input=False,
    groups=32,
    base_width=4,
)
_PUBLISHED = {
    "skresnet18": _BASIC,
    "skresnet34": replace(_BASIC, depths=(3, 4, 6, 3)),
    "skresnet50": _SPLIT_50,
    "skresnext50_32x4d": _PAPER_50,
    "sknet26": replace(_PAPER_50, depths=(2, 2, 2, 2)),
    "sknet50": _PAPER_50,
    "sknet101": replace(_PAPER_50, depths=(3, 4, 23, 3)),
}
# MindCV's weights need these: its pooling pads at the end, its bottleneck has no first ReLU, and
# its skresnext50_32x4d has no groups (it is therefore no SKNet-50).
_MINDCV = {
    "skresnet18_mindcv": _PUBLISHED["skresnet18"],
    "skresnet34_mindcv": _PUBLISHED["skresnet34"],
    "skresnet50_mindcv": _SPLIT_50,
    "skresnext50_32x4d_mindcv": replace(_PAPER_50, groups=1, base_width=64),
}
ARCHITECTURES = _PUBLISHED | {
    name: replace(form, first_relu=False, pool_padding="end") for name, form in _MINDCV.items()
}


def architecture(name: str) -> Architecture:
    """Return a form by its name.

    Raises:
        UserError: The name is unknown; the message lists the nearest ones.
    """
    if name not in ARCHITECTURES:
        nearest = difflib.get_close_matches(name, ARCHITECTURES, n=3)
        hint = f" (did you mean {' or '.join(map(repr, nearest))}?)" if nearest else ""
        raise UserError(f"no model {name!r}{hint}: expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
