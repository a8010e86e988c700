"""Layers that keep the weights they start from."""

from mindspore import nn


def freeze(network: nn.Cell, layers: tuple[str, ...]) -> None:
    """Take the layers' weights from the trainable ones."""
    for layer in layers:
        for parameter in getattr(network, layer).get_parameters():
            parameter.requires_grad = False


def keep_frozen(network: nn.Cell, layers: tuple[str, ...]) -> None:
    """Set frozen layers to evaluation: their BatchNorm then uses and keeps its statistics."""
    for layer in layers:
        getattr(network, layer).set_train(False)
