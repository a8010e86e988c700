"""Networks by name."""

from pathlib import Path

from sknet.architectures import ARCHITECTURES, architecture
from sknet.models.backend import Backend
from sknet.models.sknet import SKNet
from sknet.models.weights import load_weights


def list_models() -> list[str]:
    """Return the names that `create_model` accepts."""
    return list(ARCHITECTURES)


def create_model(
    name: str,
    num_classes: int = 1000,
    in_channels: int = 3,
    backend: Backend | None = None,
    *,
    weights: str | Path | None = None,
) -> SKNet:
    """Return a network that maps (N, in_channels, H, W) to (N, num_classes).

    It is newly initialised, unless `weights` names a file or a checkpoint's directory; see
    `sknet.models.weights.load_weights`.

    Names ending in `_mindcv` are the forms for which MindCV publishes weights. Use them for those
    weights only. The operators are those for this process's device, unless `backend` is given.

    Raises:
        UserError: The name is unknown, and the message lists the nearest ones; or the weights can't
            be read or don't fit.
    """
    network = SKNet(
        architecture(name), num_classes=num_classes, in_channels=in_channels, backend=backend
    )
    if weights is not None:
        load_weights(network, weights)
    return network
