"""Recipes: every choice of a training run, typed, under the key names of MindCV."""

from sknet.recipe.recipe import Recipe, list_recipes, load_recipe, parse_recipe

__all__ = ["Recipe", "list_recipes", "load_recipe", "parse_recipe"]
