"""Recipe: every choice of a training run, typed, under the key names that MindCV users know."""

import difflib
import hashlib
import json
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sknet.errors import UserError
from sknet.recipe_types import (
    AutoAugmentText,
    Channels,
    ColorJitter,
    Count,
    EraseValue,
    NonNegative,
    Range,
    Real,
    Share,
    Whole,
)

MAX_RECIPE_BYTES = 1 << 20
# PyYAML raises what its constructors meet (`2020-99-99`, `0x_`, `!!timestamp x`) as it comes.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class Recipe(BaseModel):
    """What a run does, apart from where it runs; equal recipes have equal digests."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    name: Annotated[str, Field(exclude=True)] = "recipe"
    """For people: the file's stem. It is no choice, so it is not written with the others."""

    # Model
    model: str
    """Name in `sknet.models.list_models()`."""
    num_classes: Count | None = None
    """Checked against the data set if given; otherwise as many as the data set has."""

    # Data and augmentation
    image_resize: Annotated[Count, Field(ge=32)] = 224
    """Side of the square input, in pixels."""
    scale: tuple[Share, Share] = (0.08, 1.0)
    """Range of the random crop's area, as a share of the image's."""
    ratio: Range = (0.75, 1.333)
    """Range of the random crop's width divided by its height."""
    hflip: Share = 0.5
    """Probability of a flip that swaps left and right."""
    vflip: Share = 0.0
    """Probability of a flip that swaps top and bottom."""
    color_jitter: ColorJitter | None = (0.4, 0.4, 0.4, 0.0)
    """Brightness, contrast and saturation are multiplied by factors in 1 ± this: one number for the
    three, or one for each; a fourth one shifts the hue. Not with auto_augment, which replaces it.
    MindCV's default; null for none."""
    auto_augment: AutoAugmentText | None = None
    """`randaug-m9-n2`, `autoaug` or `trivialaugwide`: see sknet.auto_augment."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling in training and evaluation."""
    re_prob: Share = 0.0
    """Probability of erasing a rectangle of an image."""
    re_scale: tuple[Share, Share] = (0.02, 0.33)
    """Range of the rectangle's area, as a share of the image's."""
    re_ratio: Range = (0.3, 3.3)
    """Range of the rectangle's width divided by its height."""
    re_value: EraseValue = (0.0, 0.0, 0.0)
    """What the rectangle is filled with, after normalisation: a number, one for each channel, or
    `random` for values of a standard normal distribution."""
    re_max_attempts: Count = 10
    """Rectangles that are tried; if none fits within the image, it stays as it is."""
    mixup: NonNegative = 0.0
    """Alpha of the beta distribution of mixup's shares; 0 for no mixup."""
    cutmix: NonNegative = 0.0
    """Alpha of the beta distribution of CutMix's shares; 0 for no CutMix. With mixup on too, each
    batch draws one of the two, at even odds."""
    cutmix_prob: Share = 1.0
    """Probability that a batch is mixed, be it by mixup or by CutMix."""
    crop_pct: Annotated[Share, Field(gt=0)] = 0.875
    """Evaluation resizes the shorter side to image_resize / crop_pct, rounded down as MindCV does,
    then crops the centre."""
    mean: Channels = (123.675, 116.28, 103.53)
    """Per RGB channel, of values in 0 … 255 (ImageNet's)."""
    std: Channels = (58.395, 57.12, 57.375)
    """Per RGB channel, of values in 0 … 255 (ImageNet's)."""
    num_parallel_workers: Count = 2
    """Decoding threads of each rank. They draw the augmentations, so the number is a choice of the
    run and not of the machine."""

    # Batch
    batch_size: Count | None = None
    """Samples per device and step, as in MindCV. Either this or global_batch_size."""
    global_batch_size: Count | None = None
    """Samples per step over all devices; the number of devices must divide it."""
    reference_global_batch_size: Count | None = None
    """The global batch for which lr was tuned: lr scales linearly with the actual one."""

    # Schedule
    epoch_size: Count
    """Number of epochs."""
    scheduler: Literal["cosine_decay", "constant"] = "cosine_decay"
    """Shape of the learning rate after the warm-up, per step."""
    lr: Annotated[Real, Field(gt=0)]
    """Peak learning rate."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end of the decay."""
    warmup_epochs: Whole = 0
    """Epochs of linear growth from 0 to lr."""

    # Optimizer and loss
    opt: Literal["momentum"] = "momentum"
    """SGD with momentum."""
    momentum: Share = 0.9
    """Of the optimizer."""
    use_nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: NonNegative = 0.0
    """Decay of the weights, coupled with the gradient as in MindCV."""
    filter_bias_and_bn: bool = True
    """No decay for biases and BatchNorm's scale and shift."""
    label_smoothing: Share = 0.0
    """Share of the target spread over all classes."""

    # Run
    seed: Annotated[Whole, Field(lt=1 << 32)] = 42
    """Of the weights, the order and the augmentation."""
    checkpoint_every_steps: Count | None = None
    """Steps between checkpoints within an epoch; every epoch ends with one in any case."""
    keep_checkpoint_max: Annotated[Count, Field(ge=2)] = 3
    """Newest checkpoints that are kept."""
    val_interval: Count = 1
    """Epochs between evaluations while training; the last epoch is always evaluated."""
    log_interval: Count = 50
    """Steps between lines of progress."""

    # Promotion
    min_accuracy: Share = 0.0
    """Floor of accuracy@1, as a share, below which a checkpoint is not promoted."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.batch_size is None) == (self.global_batch_size is None):
            raise ValueError("give either batch_size (per device) or global_batch_size, not both")
        if self.warmup_epochs >= self.epoch_size:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, but epoch_size is {self.epoch_size}: "
                "the warm-up must be shorter than the training"
            )
        for key in ("scale", "ratio", "re_scale", "re_ratio"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(f"{key} is [{low}, {high}], expected 0 < low <= high")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, expected values above 0")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of all choices."""
        content = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def global_batch(self, world_size: int) -> int:
        """Samples per step over all ranks.

        Raises UserError if `world_size` doesn't divide a fixed global batch.
        """
        if self.batch_size is not None:
            return self.batch_size * world_size
        fixed = self.global_batch_size or 0  # one of the two is set
        if fixed % world_size:
            raise UserError(
                f"global_batch_size {fixed} can't be divided among {world_size} "
                f"workers: choose a number of workers that divides it, or another global_batch_size"
            )
        return fixed

    def peak_lr(self, world_size: int) -> float:
        """`lr`, scaled linearly from the reference to the actual global batch."""
        if self.reference_global_batch_size is None:
            return self.lr
        return self.lr * self.global_batch(world_size) / self.reference_global_batch_size


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice instead of taking the last silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("sknet.recipes")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe by name or from a YAML file, with `key=value` overrides applied.

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
            hint = _nearest(name_or_path, known)
            raise UserError(
                f"no recipe {name_or_path!r}{hint}: expected a YAML file or one of "
                f"{', '.join(known)}"
            )
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise UserError(f"recipe {path} is larger than {MAX_RECIPE_BYTES} bytes")
        name = path.stem
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"recipe {path} can't be read: {error}") from None
    values = _parse(text, where=f"recipe {name_or_path}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r} has no '=': expected key=value")
        values |= {key.strip(): _parse_scalar(value, override)}
    return parse_recipe({"name": name, **values}, where=f"recipe {name_or_path}")


def parse_recipe(values: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values; every fault found is named in one UserError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_describe(dict(fault)) for fault in error.errors())
        raise UserError(f"{where}: {faults}") from None


def _parse(text: str, *, where: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except _YAML_ERRORS as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: expected lines of 'key: value'")
    return values


def _parse_scalar(value: str, override: str) -> Any:
    try:
        return yaml.safe_load(value)
    except _YAML_ERRORS:
        raise UserError(f"override {override!r}: the value is not valid YAML") from None


def _describe(fault: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(key, Recipe.model_fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    return f"{key} is {fault['input']!r}: {message}" if key else message


def _nearest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
