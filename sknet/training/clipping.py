"""Limits for gradients."""

from mindspore import Tensor, ops

from sknet.recipe import Recipe
from sknet.training.optimizer import sum_of_squares


def clip(gradients: tuple[Tensor, ...], recipe: Recipe) -> tuple[Tensor, ...]:
    """The gradients, each element within ± clip_value, or all together of that norm at most."""
    if recipe.clip_mode == "value":
        return tuple(ops.clip_by_value(g, -recipe.clip_value, recipe.clip_value) for g in gradients)
    square = sum_of_squares(gradients[0])
    for gradient in gradients[1:]:
        square = square + sum_of_squares(gradient)
    factor = recipe.clip_value / ops.maximum(ops.sqrt(square), recipe.clip_value)
    return tuple(gradient * factor for gradient in gradients)
