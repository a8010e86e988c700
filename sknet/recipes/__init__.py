"""Recipe files; `sknet.recipe.load_recipe` finds them by name."""
