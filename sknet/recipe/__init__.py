"""Recipes: every choice of a training run, typed, under the key names of MindCV."""

from sknet.recipe.recipe import (
    BESIDES_TRAINING,
    FILE_DEFAULTS,
    Recipe,
    changed_recipe,
    list_recipes,
    load_recipe,
    parse_recipe,
)

__all__ = [
    "BESIDES_TRAINING",
    "FILE_DEFAULTS",
    "Recipe",
    "changed_recipe",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
]
