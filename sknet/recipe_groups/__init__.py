"""The choices of a recipe by topic; `sknet.recipe.Recipe` has them all, as flat keys."""

from sknet.recipe.choices import (
    BatchChoices,
    DataChoices,
    ModelChoices,
    OptimizerChoices,
    PrecisionChoices,
    RunChoices,
    ScheduleChoices,
)

__all__ = [
    "BatchChoices",
    "DataChoices",
    "ModelChoices",
    "OptimizerChoices",
    "PrecisionChoices",
    "RunChoices",
    "ScheduleChoices",
]
