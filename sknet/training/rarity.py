"""How much the samples of rare classes count in the loss, from how often they are read.

Shares, weights and offsets follow from the counts of the training samples and from the sampler, so
that what the sampler evens out is not evened out twice.
"""

import numpy as np
import numpy.typing as npt

from sknet.data.balanced_order import class_shares
from sknet.data.order import Indices
from sknet.data.shards import ShardSet
from sknet.errors import UserError
from sknet.recipe import Recipe

Factors = npt.NDArray[np.float32]
"""One number for each class, (C,)."""


def class_counts(recipe: Recipe, shards: ShardSet) -> Indices | None:
    """Return the number of training samples of each class, (C,).

    Returns:
        None if the recipe treats all classes alike, so that nobody needs the counts.

    Raises:
        UserError: A class that the recipe makes count more has no samples.
    """
    keys = {
        f"sampler {recipe.sampler}": recipe.sampler != "uniform",
        "class_weights balanced": recipe.class_weights == "balanced",
        "logit_adjustment": recipe.logit_adjustment > 0,
    }
    evens_out = [key for key, on in keys.items() if on]
    if not evens_out and recipe.class_weights == "none":
        return None
    counts = shards.by_class.counts
    if evens_out and not counts.all():
        absent = shards.classes[int(np.argmin(counts))]
        raise UserError(
            f"class {absent!r} has no training samples, which {evens_out[0]} can't make up for: "
            "add some, or remove the class"
        )
    return counts


def class_weights(recipe: Recipe, counts: Indices | None) -> Factors | None:
    """Return the factors of the losses of all classes' samples; None if they are all 1.

    Their mean over the samples that are read is 1, so that the learning rate keeps its meaning.

    Args:
        recipe: The recipe.
        counts: What `class_counts` returned.
    """
    given = recipe.class_weights
    if given == "none":
        return None
    shares = _shares(recipe, counts)
    weights = 1 / shares if given == "balanced" else np.array(given)
    return (weights / (weights @ shares)).astype(np.float32)


def logit_offsets(recipe: Recipe, counts: Indices | None) -> Factors | None:
    """Return what training adds to the logits of all classes; None if it adds nothing.

    Args:
        recipe: The recipe.
        counts: What `class_counts` returned.
    """
    if not recipe.logit_adjustment:
        return None
    shares = _shares(recipe, counts)
    return (recipe.logit_adjustment * np.log(shares)).astype(np.float32)


def _shares(recipe: Recipe, counts: Indices | None) -> npt.NDArray[np.float64]:
    if counts is None:
        raise AssertionError("a recipe that doesn't treat all classes alike needs their counts")
    return class_shares(counts, recipe.sampler)


def describe(recipe: Recipe, classes: tuple[str, ...], counts: Indices, length: int) -> str:
    """Return a line that says how often the rarest and the commonest class are read.

    Args:
        recipe: The recipe.
        classes: Names of the classes, (C,).
        counts: Number of training samples of each class, (C,).
        length: Number of samples of an epoch.
    """
    reads = class_shares(counts, recipe.sampler) * length
    weights = class_weights(recipe, counts)
    offsets = logit_offsets(recipe, counts)

    def one(number: int) -> str:
        text = f"{classes[number]!r}, {counts[number]} samples, {reads[number]:.3g} reads an epoch"
        if weights is not None:
            text += f", weight {weights[number]:.3g}"
        if offsets is not None:
            text += f", logit {offsets[number]:+.3g}"
        return text

    return f"rarest class {one(int(counts.argmin()))}; commonest {one(int(counts.argmax()))}"
