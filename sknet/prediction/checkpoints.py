"""By which recipe a checkpoint, or a file of weights alone, predicts which classes.

This module needs no MindSpore, so that programs refuse what is missing before they load it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sknet.class_names import agreed_classes
from sknet.errors import UserError
from sknet.planning import check_classes, check_model
from sknet.recipe import Recipe
from sknet.records import Run
from sknet.records.training import STATE_FILE, run_of, weights_file


@dataclass(frozen=True)
class Described:
    """Weights, and what is known of their network."""

    weights: Path
    recipe: Recipe
    """Model and preprocessing."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    run: Run | None
    """The training, if a state.json beside the weights describes it."""


def describe(path: Path, recipe: Recipe | None, classes: Sequence[str] | None) -> Described:
    """Return what a checkpoint, or else the user, says of its network.

    Args:
        path: Directory of a checkpoint, or a file of weights.
        recipe: The recipe that the user names; its preprocessing counts.
        classes: The classes that the user names.

    Raises:
        UserError: There are no weights, something is missing, or two of these contradict each
            other.
    """
    weights = weights_file(path)
    run = run_of(weights)
    if run:
        if recipe:
            check_model(recipe, run, path)
        if classes is not None:
            agreed_classes({STATE_FILE: run.classes, "--classes": tuple(classes)})
        recipe, classes = recipe or run.recipe, run.classes
    if recipe is None or classes is None:
        raise UserError(
            f"{weights} comes without a {STATE_FILE}, which has its recipe and its classes: give "
            "--config and --classes"
        )
    check_classes(recipe, len(classes))
    return Described(weights, recipe, tuple(classes), run)
