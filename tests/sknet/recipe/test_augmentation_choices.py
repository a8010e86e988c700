"""Augmentation in a recipe has MindCV's keys, forms and defaults; anything else is refused."""

from typing import Any

import pytest

from sknet.recipe.types import AutoAugment, parse_auto_augment
from tests.sknet.recipes import recipe, recipe_refusal


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("augmix-m3", "augmix"),
        ("autoaugr", "autoaugr"),
        ("3a", "3a"),
        ("", ""),
        ("autoaug-mstd0.5", "mstd0.5"),
        ("trivialaugwide-m20", "m20"),
        ("randaug-m9-mstd0.5", "mstd0.5"),
        ("randaug-m9-inc1", "inc1"),
        ("randaug-w0", "w0"),
        ("randaug-m11", "m11"),
        ("randaug-n0", "n0"),
        ("randaug-n15", "n15"),
        ("randaug-m9-m9", "m9"),
        ("randaug-m9.5", "m9.5"),
        ("randaug-", ""),
        ("randaug--m9", ""),
    ],
)
def test_unsupported_augmentation_is_refused_with_what_is_supported(text: str, part: str) -> None:
    assert recipe_refusal(auto_augment=text) == (
        f"recipe: auto_augment is {text!r}: {part!r} is not supported: expected autoaug, "
        "trivialaugwide or randaug-mM-nN with M in 0 … 10 and N in 1 … 14"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("autoaug", AutoAugment("autoaug")),
        ("trivialaugwide", AutoAugment("trivialaugwide")),
        ("randaug", AutoAugment("randaug", magnitude=10, num_operations=2)),
        ("randaug-n3-m0", AutoAugment("randaug", magnitude=0, num_operations=3)),
        ("randaug-m9", AutoAugment("randaug", magnitude=9, num_operations=2)),
    ],
)
def test_augmentation_is_parsed_as_in_mindcv(text: str, expected: AutoAugment) -> None:
    assert parse_auto_augment(text) == expected
    assert recipe(auto_augment=text).auto_augment == text


# Defaults of MindCV's argument parser.
MINDCV_DEFAULTS: dict[str, Any] = {
    "image_resize": 224,
    "scale": (0.08, 1.0),
    "ratio": (0.75, 1.333),
    "hflip": 0.5,
    "vflip": 0.0,
    "color_jitter": 0.4,
    "interpolation": "bilinear",
    "auto_augment": None,
    "re_prob": 0.0,
    "re_scale": (0.02, 0.33),
    "re_ratio": (0.3, 3.3),
    "re_value": 0,
    "re_max_attempts": 10,
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "crop_pct": 0.875,
    "cutmix": 0.0,
    "cutmix_prob": 1.0,
    "mixup": 0.0,
}


def test_the_defaults_are_those_of_mindcv() -> None:
    assert recipe().digest == recipe(**MINDCV_DEFAULTS).digest


@pytest.mark.parametrize(
    ("key", "short", "long"),
    [
        ("color_jitter", 0.3, [0.3, 0.3, "3e-1", 0]),
        ("color_jitter", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.0]),
        ("re_value", "1e-1", [0.1, 0.1, 0.1]),
    ],
)
def test_one_number_applies_to_all_channels_or_factors(
    key: str, short: object, long: object
) -> None:
    assert recipe(**{key: short}) == recipe(**{key: long})
