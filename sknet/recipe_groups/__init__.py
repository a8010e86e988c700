"""The choices of a recipe by topic; `sknet.recipe.Recipe` has them all, as flat keys."""

from sknet.recipe.choices import DataChoices
from sknet.recipe_groups.optimization import OptimizerChoices, PrecisionChoices
from sknet.recipe_groups.run import ModelChoices, RunChoices
from sknet.recipe_groups.schedule import BatchChoices, ScheduleChoices

__all__ = [
    "BatchChoices",
    "DataChoices",
    "ModelChoices",
    "OptimizerChoices",
    "PrecisionChoices",
    "RunChoices",
    "ScheduleChoices",
]
