"""docs/recipe-keys.md has every key of a recipe, as its docstring describes it."""

import re

from sknet.recipe import Recipe
from tests.docs.recipe_keys import COMMAND, PAGE, render


def test_the_page_is_made_from_the_docstrings() -> None:
    assert PAGE.read_text("utf-8") == render(), f"run {COMMAND}"


def test_the_page_has_every_key_once_with_its_values_and_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ", PAGE.read_text("utf-8"), re.M)
    assert sorted(name for name, *_ in rows) == sorted(Recipe.model_fields.keys() - {"name"})
    found = {name: (values, default) for name, values, default in rows}
    assert found["lr"] == ("a number above 0", "**needed**")
    assert found["use_nesterov"] == ("true or false", "`false`")
    assert found["scheduler"][1] == "`cosine_decay`"
