"""Recipe: every choice of a training run, typed, under the key names that MindCV users know."""

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from sknet.errors import UserError
from sknet.recipe import mindcv as mindcv_config
from sknet.recipe.files import parse_mapping, parse_override, read_text, with_weights
from sknet.recipe_groups import (
    BatchChoices,
    DataChoices,
    ModelChoices,
    OptimizerChoices,
    PrecisionChoices,
    RunChoices,
    ScheduleChoices,
)

_log = logging.getLogger(__name__)


# The last base's fields come first.
class Recipe(
    RunChoices,
    PrecisionChoices,
    OptimizerChoices,
    ScheduleChoices,
    BatchChoices,
    DataChoices,
    ModelChoices,
):
    """What a run does, apart from where it runs; equal recipes have equal digests."""

    name: Annotated[str, Field(exclude=True)] = "recipe"
    """For people: the file's stem. It is no choice, so it is not written with the others."""

    def choices(self) -> dict[str, Any]:
        """All that decides what a run computes, as JSON values: everything but where files lie."""
        return self.model_dump(mode="json", exclude={"ckpt_path"})

    @property
    def digest(self) -> str:
        """SHA-256 of all choices."""
        return hashlib.sha256(json.dumps(self.choices(), sort_keys=True).encode()).hexdigest()

    def global_batch(self, world_size: int) -> int:
        """Samples per step over all ranks and accumulated passes.

        Raises UserError if `world_size` doesn't divide a fixed global batch.
        """
        passes = world_size * self.gradient_accumulation_steps
        if self.batch_size is not None:
            return self.batch_size * passes
        fixed = self.global_batch_size or 0  # one of the two is set
        if not self.can_share(fixed, world_size):
            accumulated = (
                f" x {self.gradient_accumulation_steps} accumulated passes"
                if passes > world_size
                else ""
            )
            raise UserError(
                f"global_batch_size {fixed} can't be divided among {world_size} "
                f"workers{accumulated}: choose a number of workers that divides it, or another "
                "global_batch_size"
            )
        return fixed

    def can_share(self, global_batch: int, world_size: int) -> bool:
        """Whether so many ranks, in the accumulated passes of each, can divide a global batch."""
        return global_batch % (world_size * self.gradient_accumulation_steps) == 0

    def peak_lr(self, world_size: int) -> float:
        """`lr`, scaled linearly from the reference to the actual global batch."""
        if self.reference_global_batch_size is None:
            return self.lr
        return self.lr * self.global_batch(world_size) / self.reference_global_batch_size


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("sknet.recipes")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_recipe(
    name_or_path: str, overrides: Iterable[str] = (), *, say_ignored: bool = True
) -> Recipe:
    """A recipe by name or from a YAML file, MindCV's too, with `key=value` overrides applied.

    The weights to start from are named by their SHA-256 then, and their path is absolute. What has
    no effect here of MindCV's file is named in a warning, with `say_ignored`.

    Raises UserError with one line for a missing file, bad YAML, an unknown key (naming the nearest
    known one) or a bad value.
    """
    known = list_recipes()
    if name_or_path in known:
        name = name_or_path
        text = resources.files("sknet.recipes").joinpath(f"{name}.yaml").read_text("utf-8")
    else:
        path = Path(name_or_path)
        if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for an overlong name)
            hint = nearest(name_or_path, known)
            raise UserError(
                f"no recipe {name_or_path!r}{hint}: expected a YAML file or one of "
                f"{', '.join(known)}"
            )
        name, text = path.stem, read_text(path)
    where = f"recipe {name_or_path}"
    values = parse_mapping(text, where=where)
    from_mindcv = mindcv_config.is_mindcv(values)
    for override in overrides:
        values |= parse_override(override)
    if from_mindcv:
        values, ignored = mindcv_config.translate(values, where=where)
        if ignored and say_ignored:
            _log.warning("%s is MindCV's; without effect here: %s", where, ", ".join(ignored))
    return parse_recipe(with_weights({"name": name, **values}), where=where)


def parse_recipe(values: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values; every fault found is named in one UserError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_describe(dict(fault)) for fault in error.errors())
        raise UserError(f"{where}: {faults}") from None


def _describe(fault: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, {*Recipe.model_fields, *mindcv_config.OWN_KEYS})}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    return f"{key} is {fault['input']!r}: {message}" if key else message


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most like this one; empty if none is."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
