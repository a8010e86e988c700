"""The Recipe, and how one is loaded by name or from a file."""

import difflib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from infra.base.files import is_file
from sknet.architectures import architecture
from sknet.errors import UserError, shortened
from sknet.recipe import mindcv
from sknet.recipe.choices import (
    BatchChoices,
    DataChoices,
    ModelChoices,
    OptimizerChoices,
    OrderChoices,
    PrecisionChoices,
    RarityChoices,
    RunChoices,
    ScheduleChoices,
)
from sknet.recipe.files import parse_mapping, parse_override, read_text, with_weights

_log = logging.getLogger(__name__)

FILE_DEFAULTS: dict[str, Any] = {"eval_preprocessing": "pillow"}
"""Defaults of recipe files where they differ from those of stored recipes, which are older."""

BESIDES_TRAINING = ("keep_checkpoint_max", "log_interval", "min_accuracy", "num_parallel_workers")
"""Choices that change nothing in the final checkpoint: what is kept and logged on the way to it,
how it is judged, and how many threads read. Neither the key of a training nor its records have
them."""


# The fields of the last base class come first.
class Recipe(
    RunChoices,
    PrecisionChoices,
    RarityChoices,
    OptimizerChoices,
    ScheduleChoices,
    BatchChoices,
    OrderChoices,
    DataChoices,
    ModelChoices,
):
    """All that decides what a run computes. Recipes with the same choices have the same digest."""

    name: Annotated[str, Field(exclude=True)] = "recipe"
    """Name for people: the recipe file's name without `.yaml`. It is no choice, so it is neither
    written with the choices nor part of the digest."""

    @model_validator(mode="after")
    def _consistent_classes(self) -> Self:
        if self.logit_adjustment and self.loss != "CE":
            raise ValueError(
                f"logit_adjustment needs loss CE, in which classes compete; loss is {self.loss}"
            )
        if self.shuffle == "blocks" and self.sampler != "uniform":
            raise ValueError(
                f"sampler {self.sampler} chooses among all samples, so that it needs shuffle full; "
                "shuffle is blocks"
            )
        self.check_class_weights(self.num_classes)
        return self

    def check_class_weights(self, num_classes: int | None) -> None:
        """Check that a list of class_weights has a number for each class.

        Raises:
            UserError: It has more or fewer.
        """
        given = self.class_weights
        if num_classes and not isinstance(given, str) and len(given) != num_classes:
            raise UserError(
                f"class_weights has {len(given)} numbers, expected one for each of {num_classes} "
                "classes, in their order"
            )

    def choices(self) -> dict[str, Any]:
        """Return the choices as JSON values, of which the digest is made.

        The path of the weights is none. Keys that came later than the first stores are left out
        while they have their default, so that runs from before keep their digest.
        """
        return self.model_dump(mode="json", exclude={"ckpt_path"})

    def all_choices(self) -> dict[str, Any]:
        """Return the choices of a training, also the defaults that `choices` leaves out."""
        fields = type(self).model_fields
        late = {key: getattr(self, key) for key, field in fields.items() if field.exclude_if}
        choices = {**late, **self.choices()}
        return {key: value for key, value in choices.items() if key not in BESIDES_TRAINING}

    def file_values(self) -> dict[str, Any]:
        """Return the values of a recipe file from which `load_recipe` makes the same recipe."""
        return {
            **{key: getattr(self, key) for key in FILE_DEFAULTS},
            **self.model_dump(mode="json"),
        }

    def write(self, path: Path) -> Path:
        """Write these values as a recipe file, and return its path. JSON is YAML."""
        path.write_text(json.dumps(self.file_values(), indent=1), "utf-8")
        return path

    def of_training(self) -> Self:
        """Return the recipe with the default of everything that changes nothing in a checkpoint.

        Trainings whose recipes are then equal give the same bytes. The device is only a preference;
        the run records the one in use.
        """
        fields = type(self).model_fields
        keys = ("name", "ckpt_path", "device_target", *BESIDES_TRAINING)
        return self.model_copy(update={key: fields[key].default for key in keys})

    @property
    def digest(self) -> str:
        """SHA-256 of all choices, in hex."""
        return hashlib.sha256(json.dumps(self.choices(), sort_keys=True).encode()).hexdigest()

    def global_batch(self, world_size: int) -> int:
        """Return the number of samples per step, over all ranks and accumulated passes.

        Raises:
            UserError: The ranks can't divide `global_batch_size` evenly.
        """
        passes = world_size * self.gradient_accumulation_steps
        if self.batch_size is not None:
            return self.batch_size * passes
        global_batch = self.global_batch_size or 0  # one of the two is set
        if not self.can_divide(global_batch, world_size):
            accumulated = (
                f" x {self.gradient_accumulation_steps} accumulated passes"
                if passes > world_size
                else ""
            )
            raise UserError(
                f"global_batch_size {global_batch} can't be divided among {world_size} "
                f"workers{accumulated}: choose a number of workers that divides it, or another "
                "global_batch_size"
            )
        return global_batch

    def can_divide(self, global_batch: int, world_size: int) -> bool:
        """Tell whether the accumulated passes of all ranks can divide a global batch evenly."""
        return global_batch % (world_size * self.gradient_accumulation_steps) == 0

    def peak_lr(self, world_size: int) -> float:
        """Return `lr`, scaled linearly from the reference to the actual global batch."""
        if self.reference_global_batch_size is None:
            return self.lr
        return self.lr * self.global_batch(world_size) / self.reference_global_batch_size


def list_recipes() -> list[str]:
    """Return the names of the recipes in `sknet/recipes/`."""
    folder = resources.files("sknet.recipes")
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def load_recipe(
    name_or_path: str,
    overrides: Iterable[str] = (),
    *,
    warn: Callable[[str], object] = _log.warning,
) -> Recipe:
    """Return a recipe by name or from a YAML file, which may be MindCV's.

    The recipe names the weights to start from by their SHA-256 and an absolute path.

    Args:
        name_or_path: A name in `list_recipes()`, or the path of a file.
        overrides: `key=value` texts, applied in order.
        warn: Called with a line that names the keys of MindCV's file without effect here, if any.

    Raises:
        UserError: The file is missing or no valid YAML, a key is unknown (the message suggests the
            nearest known one), or a value is wrong; in one line.
    """
    known = list_recipes()
    if name_or_path in known:
        name = name_or_path
        text = resources.files("sknet.recipes").joinpath(f"{name}.yaml").read_text("utf-8")
    else:
        path = Path(name_or_path)
        if not is_file(path):
            hint = nearest(name_or_path, known)
            raise UserError(
                f"no recipe {name_or_path!r}{hint}: expected a YAML file or one of "
                f"{', '.join(known)}"
            )
        name, text = path.stem, read_text(path)
    where = f"recipe {name_or_path}"
    values = parse_mapping(text, where=where)
    from_mindcv = mindcv.is_mindcv(values)
    for override in overrides:
        values |= parse_override(override)
    if from_mindcv:
        values, ignored = mindcv.translate(values, where=where)
        if ignored:
            warn(f"{where} is MindCV's; without effect here: {', '.join(ignored)}")
    return parse_recipe(with_weights({"name": name, **FILE_DEFAULTS, **values}), where=where)


def changed_recipe(recipe: Recipe, overrides: Iterable[str], *, where: str) -> Recipe:
    """Return a recipe with the changes of `key=value` texts.

    Args:
        recipe: The recipe.
        overrides: The texts, applied in order.
        where: Where the recipe is from, for error messages.

    Raises:
        UserError: An override is wrong.
    """
    changes: dict[str, Any] = {}
    for override in overrides:
        changes |= parse_override(override)
    if not changes:
        return recipe
    return parse_recipe(recipe.model_dump(mode="json") | changes, where=where)


def parse_recipe(values: dict[str, Any], *, where: str) -> Recipe:
    """Return a recipe from plain values.

    Args:
        values: Values by key.
        where: Where they are from, for error messages.

    Raises:
        UserError: Keys or values are wrong; the message names all of them.
    """
    try:
        recipe = Recipe.model_validate(values)
        architecture(recipe.model)
    except ValidationError as error:
        faults = "; ".join(_describe(dict(fault)) for fault in error.errors())
        raise UserError(f"{where}: {faults}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    _refuse_unit_range(recipe, where)
    return recipe


def _refuse_unit_range(recipe: Recipe, where: str) -> None:
    """Check that mean and std are for pixels in 0 … 255, as in MindCV, not for 0 … 1, as in torch.

    It is no condition of `Recipe`, so that runs which had such values can still be read.

    Raises:
        UserError: They are for pixels in 0 … 1.
    """
    for key, values in (("mean", recipe.mean), ("std", recipe.std)):
        if 0 < max(values) <= 1:
            scaled = [round(255 * value, 3) for value in values]
            raise UserError(
                f"{where}: {key} is {list(values)}, which is for pixels in 0 … 1, but those here "
                f"are in 0 … 255: write {scaled}"
            )


def _describe(fault: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, {*Recipe.model_fields, *mindcv.OWN_KEYS})}"
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key} is {shortened(fault['input'])}: {message}" if key else message


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint at the most similar known word; empty if none is similar."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
