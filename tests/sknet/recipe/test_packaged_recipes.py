"""The packaged recipes have the numbers of their sources, and begin with what a user needs."""

import re
from importlib import resources
from typing import Any

import pytest

from sknet.data.block_order import BlockOrder
from sknet.models import list_models
from sknet.recipe import list_recipes, load_recipe

# MindCV's configs/sknet/*_ascend.yaml and train.py: 8 devices, momentum 0.9, lr 0.1.
MINDCV: dict[str, Any] = {
    "opt": "momentum",
    "momentum": 0.9,
    "lr": 0.1,
    "min_lr": 0.0,
    "warmup_epochs": 5,
    "scheduler": "cosine_decay",
    "label_smoothing": 0.1,
    "amp_level": "O2",
    "jit_level": "O2",  # train.py sets it in graph mode
    "color_jitter": (0.4, 0.4, 0.4, 0.0),
    "weight_decay_filter": "disable",
    "crop_pct": 0.875,
    "hflip": 0.5,
    "eval_preprocessing": "mindcv",
}
MINDCV_50 = MINDCV | {
    "batch_size": 64,
    "epoch_size": 200,
    "decay_epochs": 195,
    "weight_decay": 1e-4,
    "loss_scale": 1024,
    "interpolation": "bicubic",
    "re_prob": 0.1,
    "warmup_factor": 0.0,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "skresnet18_ascend": MINDCV
    | {
        "batch_size": 64,
        "epoch_size": 200,
        "decay_epochs": 195,
        "weight_decay": 4e-5,
        "loss_scale": 1024,
        "interpolation": "bicubic",
        "re_prob": 0.0,
        "warmup_factor": 0.0,
    },
    "skresnet34_ascend": MINDCV
    | {
        "batch_size": 32,
        "epoch_size": 250,
        "decay_epochs": 245,
        "weight_decay": 4e-5,
        "loss_scale": 128,
        "interpolation": "bilinear",
        "re_prob": 0.25,
        "warmup_factor": 0.01,
    },
    "skresnext50_32x4d_ascend": MINDCV_50,
    "skresnet50_ascend": MINDCV_50,
    # Section 4.1 of the paper.
    "sknet50_paper": {
        "global_batch_size": 256,
        "epoch_size": 100,
        "scheduler": "step_decay",
        "lr": 0.1,
        "decay_epochs": 30,
        "decay_rate": 0.1,
        "warmup_epochs": 0,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
        "image_resize": 224,
    },
    # timm's training examples: 8 GPUs.
    "skresnext50_32x4d_randaug": {
        "batch_size": 192,
        "epoch_size": 240,
        "lr": 0.6,
        "warmup_epochs": 5,
        "scheduler": "cosine_decay",
        "weight_decay": 1e-4,
        "use_nesterov": True,
        "momentum": 0.9,
        "re_prob": 0.4,
        "re_value": "random",
        "auto_augment": "randaug-m7-n2",
        "label_smoothing": 0.1,
        "eval_preprocessing": "pillow",
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_numbers(name: str) -> None:
    recipe = load_recipe(name)
    assert {key: getattr(recipe, key) for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - {"sknet50_paper"}))
def test_published_learning_rates_are_for_eight_devices_and_scale_linearly(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.peak_lr(8) == recipe.lr
    assert recipe.peak_lr(4) == recipe.lr / 2


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_for_several_devices_is_for_ascend(name: str) -> None:
    assert load_recipe(name).device_target == ("Ascend" if name in PUBLISHED else "auto")


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
@pytest.mark.parametrize("name", PUBLISHED)
def test_by_blocks_each_host_reads_whole_parts_and_none_of_another_host(
    name: str, hosts: int
) -> None:
    recipe, num_ranks = load_recipe(name, ["shuffle=blocks"]), 8 * hosts
    order = BlockOrder.of(
        [2_500] * 500,
        parts=recipe.shuffle_parts,
        window=recipe.shuffle_window,
        batch=recipe.global_batch(num_ranks),
        seed=recipe.seed,
        epoch=0,
    )
    ranks = [order.parts_of(rank, num_ranks) for rank in range(num_ranks)]
    of_hosts = [ranks[8 * host : 8 * host + 8] for host in range(hosts)]
    parts = [
        {part for first, last in of_host for part in range(first, last)} for of_host in of_hosts
    ]
    assert [len(of_host) for of_host in parts] == [recipe.shuffle_parts // hosts] * hosts
    assert len(set().union(*parts)) == recipe.shuffle_parts


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_reads_in_the_full_order_and_is_another_training_by_blocks(name: str) -> None:
    assert load_recipe(name).shuffle == "full"
    assert load_recipe(name, ["shuffle=full"]).digest == load_recipe(name).digest
    assert load_recipe(name, ["shuffle=blocks"]).digest != load_recipe(name).digest


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_begins_with_its_command_its_result_and_its_source(name: str) -> None:
    text = resources.files("sknet.recipes").joinpath(f"{name}.yaml").read_text("utf-8")
    header = text[: text.index("\nmodel: ")]
    assert all(line.startswith("# ") for line in header.splitlines())
    assert re.search(rf"^#   (sknet run|msrun) .*(--recipe|--config) {name} ", header, re.MULTILINE)
    assert re.search(r"^# Expected: ", header, re.MULTILINE)
    assert re.search(r"^# Source: ", header, re.MULTILINE)


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_named_after_its_network(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model in list_models()
    assert recipe.model == name or name.startswith(recipe.model)


# Recorded before recipes could say how an evaluation resizes.
BEFORE = {
    "skresnet18_ascend": "bd29aea63ef47a400b02c06b58f7392b995fe7f9d3b5454a19df9e219a5f956a",
    "skresnet34_ascend": "a401ab91500b6a5b2cd218cae09300db0f585c92b81d958df4d63bc672d6eaad",
    "skresnet50_ascend": "60889a081f31e113f9c076f98b8918801cba5b553d329d647b1d3fcfafff8e14",
    "skresnext50_32x4d_ascend": "fe5fb611c87b45a6c8bbbf750c004ddabaa641e973e9f60a53a836e39f1ae037",
}


@pytest.mark.parametrize("name", BEFORE)
def test_mindcvs_recipes_keep_the_digests_under_which_their_trainings_are_stored(name: str) -> None:
    assert load_recipe(name).digest == BEFORE[name]
