"""The names of an evaluation's files."""

from sknet.recipe import Recipe

CHECKS_FILE = "checks.json"
ATTENTION_FILE = "attention.json"
EXAMPLES_FILE = "examples.json"


def evaluation_file(recipe: Recipe, resolution: int) -> str:
    """Name of the counts at a resolution."""
    return f"evaluation{_suffix(recipe, resolution)}.json"


def predictions_file(recipe: Recipe, resolution: int) -> str:
    """Name of the predictions at a resolution."""
    return f"predictions{_suffix(recipe, resolution)}.parquet"


def _suffix(recipe: Recipe, resolution: int) -> str:
    return "" if resolution == recipe.image_resize else f"-{resolution}"
