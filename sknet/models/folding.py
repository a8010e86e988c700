"""Fold BatchNorm into the convolutions, for evaluation and export."""

import numpy as np
from mindspore import Tensor, nn

from sknet.models.sknet import ConvNorm, SKNet


def fold(network: SKNet) -> SKNet:
    """Return a copy without BatchNorm that computes the same as the network in evaluation mode.

    With scale s = gamma / sqrt(moving_variance + eps), each convolution gets the weight s · W and
    the bias beta - s · moving_mean, computed in float64. The copy can't be trained.
    """
    folded = network.twin()
    twins = dict(folded.cells_and_names())
    for name, cell in network.cells_and_names():
        if isinstance(cell, ConvNorm):
            twins[name].conv, twins[name].bn = _folded(cell.conv, cell.bn), nn.Identity()
    values = {parameter.name: parameter for parameter in network.get_parameters()}
    for name, parameter in folded.parameters_and_names():
        in_conv_norm = parameter.name != name
        # The parameters of a cell that replaced another one lack its prefix.
        parameter.name = name
        parameter.requires_grad = False
        if not in_conv_norm:
            parameter.set_data(values[name])
    folded.set_train(False)
    return folded


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    weight = conv.weight.asnumpy().astype(np.float64)
    gamma, beta, mean, variance = (
        parameter.asnumpy().astype(np.float64)
        for parameter in (bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance)
    )
    scale = gamma / np.sqrt(variance + bn.eps)
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        pad_mode=conv.pad_mode,
        padding=conv.padding,
        dilation=conv.dilation,
        group=conv.group,
        has_bias=True,
        weight_init=Tensor((weight * scale[:, None, None, None]).astype(np.float32)),
        bias_init=Tensor((beta - mean * scale).astype(np.float32)),
    )
