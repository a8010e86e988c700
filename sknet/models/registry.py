"""Networks by name."""

from sknet.architectures import ARCHITECTURES, architecture
from sknet.models.backend import Backend
from sknet.models.sknet import SKNet


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
    return SKNet(
        architecture(name), num_classes=num_classes, in_channels=in_channels, backend=backend
    )
