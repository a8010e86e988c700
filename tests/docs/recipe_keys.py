"""Makes docs/recipe-keys.md from the fields of recipes and their docstrings.

python -m tests.docs.recipe_keys
"""

import yaml

from sknet.recipe import BESIDES_TRAINING
from sknet.recipe.choices import Choices
from sknet.recipe.keys import Key, keys
from tests.processes import ROOT

PAGE = ROOT / "docs" / "recipe-keys.md"
COMMAND = "python -m tests.docs.recipe_keys"

INTRODUCTION = f"""\
# The keys of recipes

All keys that a recipe file can have, or `--set KEY=VALUE` can change; [recipes.md](recipes.md)
explains what they do together. `sknet recipes --explain KEY` prints the row of a key. The page is
made from the docstrings in `sknet/recipe/choices.py` (`{COMMAND}`).

Runs whose recipes differ in a value are different trainings, each with a key of its own in the
store. So are runs on other data, with another number of workers, on another device or with another
version of MindSpore. Of a recipe, only these keys don't count, as they change nothing in a trained
checkpoint: {", ".join(f"`{key}`" for key in BESIDES_TRAINING)}, and
`device_target` and `ckpt_path`, for which the device in use and `ckpt_sha256` count.
"""


def render() -> str:
    """Return the page."""
    parts, topic = [INTRODUCTION], None
    for key in keys():
        if key.topic is not topic:
            topic = key.topic
            parts.append(_heading(topic))
        parts[-1] += _row(key)
    return "\n".join(parts)


def _heading(topic: type[Choices]) -> str:
    name = topic.__name__.removesuffix("Choices")
    return (
        f"## {name}\n\n{topic.__doc__}\n\n| key | values | default | meaning |\n|---|---|---|---|\n"
    )


def _row(key: Key) -> str:
    default = "**needed**" if key.is_required else f"`{_yaml(key.default)}`"
    return f"| `{key.name}` | {_cell(key.values)} | {default} | {_cell(key.text)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _yaml(value: object) -> str:
    """Return a value as a recipe file has it, in one line."""
    plain = [*value] if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=1 << 16)
    return text.removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
