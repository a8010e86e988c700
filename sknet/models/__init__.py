"""The networks by name."""

import difflib

from mindspore import nn

from sknet.errors import UserError
from sknet.models.sknet import BasicBlock, SKNet

# Depths of the four stages; the block is in every name's literature the one of that ResNet.
_BUILDERS = {"skresnet18": (BasicBlock, (2, 2, 2, 2))}


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return sorted(_BUILDERS)


def create_model(name: str, num_classes: int = 1000, in_channels: int = 3) -> nn.Cell:
    """A freshly initialised network: (N, in_channels, H, W) → logits (N, num_classes).

    Raises UserError naming the nearest model for an unknown name.
    """
    if name not in _BUILDERS:
        nearest = difflib.get_close_matches(name, _BUILDERS, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise UserError(f"no model {name!r}{hint}: expected one of {', '.join(list_models())}")
    block, depths = _BUILDERS[name]
    return SKNet(block, depths, num_classes=num_classes, in_channels=in_channels)
