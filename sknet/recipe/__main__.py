"""`sknet recipes`: list the recipes, show one as it is resolved, explain a key.

python -m sknet.recipe [list | show NAME [--set KEY=VALUE] | --explain KEY]
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

from cyclopts import App, Parameter
from tabulate import tabulate

from infra.base.commands import Texts, as_command, new_app, start
from infra.base.interrupts import run_interruptible
from infra.base.outcomes import ExitCode
from sknet.errors import UserError
from sknet.recipe import mindcv
from sknet.recipe.keys import as_yaml, keys, resolved
from sknet.recipe.recipe import list_recipes, load_recipe, nearest


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """The options of `sknet recipes` itself."""

    explain: Annotated[str | None, Parameter(show_default=False)] = None
    """Say what this key of a recipe means, which values it takes, and which recipe sets it."""


@dataclass(frozen=True)
class OneRecipe:
    """A positional argument."""

    recipe: str
    """Its name, or the path of a YAML file, which may be MindCV's."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions(OneRecipe):
    """The options of show."""

    set: Texts = ()
    """KEY=VALUE: change a value; may be repeated."""


def told(body: Callable[..., None]) -> Callable[..., int]:
    """Make a command of a function that prints what it finds."""

    def run(*options: object) -> int:
        def work() -> int:
            body(*options)
            return ExitCode.DONE

        return run_interruptible(work)

    return as_command(run, body)


# The commands. The docstring of each function is the help text.


@told
def recipes(options: ExplainOptions) -> None:
    """List the recipes of the project; with --explain, say what a key of a recipe means.

    Example: `sknet recipes --explain crop_pct`
    """
    if options.explain is None:
        print(_table())
    else:
        print("\n".join(explanation(options.explain)))


@told
def list_all() -> None:
    """List the recipes of the project.

    Example: `sknet recipes list`
    """
    print(_table())


@told
def show(options: ShowOptions) -> None:
    """Print a recipe as it is resolved: every key with its value, and which have their default.

    What is printed is a recipe itself, of the same digest.

    Example: `sknet recipes show skresnet18_digits --set epoch_size=20`
    """
    recipe = load_recipe(
        options.recipe, options.set, warn=lambda line: print(line, file=sys.stderr, flush=True)
    )
    print("\n".join([*_comment(options.recipe), *resolved(recipe)]))


def explanation(name: str) -> Iterator[str]:
    """Yield what a key means, which values it takes, and which recipe of the project sets it.

    Raises:
        UserError: There is no such key; the message suggests the nearest ones.
    """
    known = {key.name: key for key in keys()}
    if name in mindcv.OWN_KEYS:
        yield f"{name}: a key of MindCV's files alone; {_fate(name)}"
        return
    if name not in known:
        raise UserError(
            f"no key {name!r}{nearest(name, known)}: `sknet recipes show {list_recipes()[0]}` "
            "prints all keys"
        )
    key = known[name]
    yield f"{name}: {key.text}"
    yield f"values: {key.values}"
    default = "none, every recipe gives it" if key.is_required else as_yaml(key.default)
    yield f"default: {default}"
    others = {
        recipe.name: getattr(recipe, name)
        for recipe in map(load_recipe, list_recipes())
        if not key.is_default_in(recipe)
    }
    if others:
        yield "in recipes of the project:"
        rows = [(other, as_yaml(value)) for other, value in others.items()]
        yield tabulate(rows, tablefmt="plain", disable_numparse=True)


def _fate(name: str) -> str:
    """Return what becomes of a key that only MindCV has."""
    if name in mindcv.ONLY:
        possible = " or ".join(as_yaml(value) for value in mindcv.ONLY[name])
        return f"only {possible} is possible here"
    if name in mindcv.TRANSLATED:
        return "it becomes another key here: `sknet recipes show FILE` prints which value it has"
    return "it has no effect here, where options and the programs decide it"


def _table() -> str:
    rows = [
        {
            "recipe": recipe.name,
            "model": recipe.model,
            "pixels": recipe.image_resize,
            "epochs": recipe.epoch_size,
            "batch": f"{recipe.global_batch_size}"
            if recipe.global_batch_size
            else f"{recipe.batch_size} x workers",
            "for": _comment(recipe.name)[0].removeprefix("# ").rstrip("."),
        }
        for recipe in map(load_recipe, list_recipes())
    ]
    return str(tabulate(rows, headers="keys", disable_numparse=True))


def _comment(recipe: str) -> list[str]:
    """Return the lines with which a recipe of the project begins; none of any other."""
    if recipe not in list_recipes():
        return []
    text = resources.files("sknet.recipes").joinpath(f"{recipe}.yaml").read_text("utf-8")
    lines = text.splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return lines[:end]


def commands(name: str) -> App:
    """Return the commands, under the name that people type for them."""
    group = new_app(name)
    group.default(recipes)
    group.command(list_all, name="list")
    group.command(show)
    return group


app = commands("recipes")
"""The commands as those of `sknet recipes`."""


if __name__ == "__main__":
    sys.exit(start(commands("python -m sknet.recipe")))
