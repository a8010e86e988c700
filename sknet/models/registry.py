"""The published networks by name."""

import difflib
from dataclasses import replace

from sknet.errors import UserError
from sknet.models.backend import Backend
from sknet.models.sknet import Architecture, SKNet

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


def list_models() -> list[str]:
    """Return the names that `create_model` accepts."""
    return list(ARCHITECTURES)


def create_model(
    name: str, num_classes: int = 1000, in_channels: int = 3, backend: Backend | None = None
) -> SKNet:
    """Return a newly initialised network that maps (N, in_channels, H, W) to (N, num_classes).

    Names ending in `_mindcv` are the forms for which MindCV publishes weights. Use them for those
    weights only. The operators are those for this process's device, unless `backend` is given.

    Raises:
        UserError: The name is unknown; the message lists the nearest ones.
    """
    if name not in ARCHITECTURES:
        nearest = difflib.get_close_matches(name, ARCHITECTURES, n=3)
        hint = f" (did you mean {' or '.join(map(repr, nearest))}?)" if nearest else ""
        raise UserError(f"no model {name!r}{hint}: expected one of {', '.join(list_models())}")
    return SKNet(
        ARCHITECTURES[name], num_classes=num_classes, in_channels=in_channels, backend=backend
    )
