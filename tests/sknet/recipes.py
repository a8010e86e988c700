"""Recipes with as few keys as possible."""

from typing import Any

from sknet.recipe import Recipe, parse_recipe
from tests.refusals import refusal

SMALLEST: dict[str, Any] = {
    "model": "skresnet18",
    "global_batch_size": 64,
    "epoch_size": 4,
    "lr": 0.1,
}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**SMALLEST, **changes}, where="recipe")


def recipe_refusal(**changes: Any) -> str:
    return refusal(lambda: recipe(**changes))
