"""Recipe files, which `sknet.recipe.load_recipe` finds by name."""
