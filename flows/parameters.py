"""Types of the flows' parameters, from which Prefect makes the form of a run, and their check.

The server refuses a run whose parameters their schema forbids. What a schema can't say is checked
by the flow itself before its first task.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field, WithJsonSchema

from sknet.data.sources import DIGITS, FASHION_MNIST
from sknet.planning import check_ranks
from sknet.recipe import Recipe, list_recipes, load_recipe
from tasks.programs import LaunchSettings, gang_of

_log = logging.getLogger(__name__)

RecipeName = Annotated[
    str,
    WithJsonSchema(
        {
            "anyOf": [
                {"title": "One of the project's", "type": "string", "enum": list_recipes()},
                {"title": "A YAML file", "type": "string"},
            ]
        }
    ),
]
Workers = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def recipe_for(data: str) -> str:
    """Return the name of the recipe for a source of images, where none is chosen."""
    if data.partition("?")[0] == DIGITS:
        return "skresnet18_digits"
    return "skresnet18_fashion_mnist" if data.startswith(FASHION_MNIST) else "skresnet18_folder"


def checked_recipe(
    recipe: str,
    overrides: Sequence[str],
    workers: int,
    launch: LaunchSettings,
    warn: Callable[[str], object] = _log.warning,
) -> Recipe:
    """Return a recipe that so many ranks on these hosts can train.

    Args:
        recipe: Its name, or the path of a YAML file.
        overrides: Texts of the form `key=value` that change it.
        workers: Number of ranks on all hosts.
        launch: The hosts.
        warn: Called with a line about keys of a MindCV recipe that have no effect.

    Raises:
        UserError: The recipe is wrong, or the ranks can't divide its batch or the hosts.
    """
    choices = load_recipe(recipe, overrides, warn=warn)
    check_ranks(choices, workers)
    gang_of(launch, choices, workers, "CPU")
    return choices
