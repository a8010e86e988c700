"""The weights that a training starts from."""

from pathlib import Path

from sknet.data.verification import file_sha256
from sknet.errors import UserError
from sknet.models import create_model
from sknet.models.sknet import SKNet
from sknet.models.weights import load_weights
from sknet.recipe import Recipe


def starting_network(recipe: Recipe, num_classes: int, weights: Path | None) -> SKNet:
    """The recipe's network, from the global seed or, if given, from the file of weights.

    Raises UserError if the file isn't the recipe's or doesn't fit the network.
    """
    network = create_model(recipe.model, num_classes=num_classes)
    if weights:
        if not weights.is_file():
            raise UserError(f"ckpt_path {weights} does not exist")
        if (digest := file_sha256(weights)) != recipe.ckpt_sha256:
            raise UserError(
                f"ckpt_path {weights} has SHA-256 {digest}, but ckpt_sha256 is {recipe.ckpt_sha256}"
            )
        load_weights(network, weights, replace_head=recipe.replace_head)
    return network
