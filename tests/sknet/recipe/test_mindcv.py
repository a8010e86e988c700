"""A file of MindCV is a recipe, with the defaults of MindCV's parser."""

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from sknet.recipe import Recipe, load_recipe, mindcv
from tests.refusals import refusal

# Keys that the published files of configs/sknet have in common.
COMMON: dict[str, Any] = {
    "mode": 0,
    "distribute": True,
    "num_parallel_workers": 8,
    "val_interval": 1,
    "dataset": "imagenet",
    "data_dir": "/path/to/imagenet",
    "shuffle": True,
    "dataset_download": False,
    "image_resize": 224,
    "scale": [0.08, 1.0],
    "ratio": [0.75, 1.333],
    "hflip": 0.5,
    "crop_pct": 0.875,
    "num_classes": 1000,
    "pretrained": False,
    "ckpt_path": "",
    "keep_checkpoint_max": 30,
    "ckpt_save_dir": "./ckpt",
    "dataset_sink_mode": True,
    "amp_level": "O2",
    "loss": "CE",
    "label_smoothing": 0.1,
    "scheduler": "cosine_decay",
    "min_lr": 0.0,
    "lr": 0.1,
    "warmup_epochs": 5,
    "opt": "momentum",
    "momentum": 0.9,
    "use_nesterov": False,
}
LONG = {"batch_size": 64, "epoch_size": 200, "decay_epochs": 195, "loss_scale": 1024}
FILES: dict[str, dict[str, Any]] = {
    "skresnet18_ascend": COMMON
    | LONG
    | {"model": "skresnet18", "interpolation": "bicubic", "weight_decay": 0.00004}
    | {"drop_remainder": True},
    "skresnet34_ascend": COMMON
    | {"batch_size": 32, "epoch_size": 250, "decay_epochs": 245, "loss_scale": 128}
    | {"model": "skresnet34", "interpolation": "bilinear", "weight_decay": 0.00004}
    | {"re_prob": 0.25, "warmup_factor": 0.01, "val_while_train": True, "drop_remainder": True},
    "skresnext50_32x4d_ascend": COMMON
    | LONG
    | {"model": "skresnext50_32x4d", "interpolation": "bicubic", "weight_decay": 0.0001}
    | {"re_prob": 0.1},
}


class Loads:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "theirs.yaml"

    def __call__(self, values: dict[str, Any], *overrides: str, **options: Any) -> Recipe:
        self._path.write_text(yaml.safe_dump(values))
        return load_recipe(str(self._path), overrides, **options)

    def refusal(self, values: dict[str, Any]) -> str:
        return refusal(lambda: self(values)).replace(f"recipe {self._path}: ", "")


@pytest.fixture
def loads(tmp_path: Path) -> Loads:
    return Loads(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_gives_the_same_run_as_our_recipe_of_it(loads: Loads, name: str) -> None:
    theirs, ours = loads(FILES[name]), load_recipe(name)
    # These change only when the run is saved, other world sizes, and further evaluations.
    free = {"reference_global_batch_size", "checkpoint_every_steps", "val_resolutions"}
    assert theirs.model_dump(exclude=free) == ours.model_dump(exclude=free)


def test_keys_without_effect_are_named_in_one_warning(
    loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loads(FILES["skresnet34_ascend"], warn=lambda _: None)
        loads(FILES["skresnet34_ascend"])
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "is MindCV's; without effect here: ckpt_save_dir, data_dir, dataset, dataset_download, "
        "dataset_sink_mode, distribute, val_while_train"
    )


def test_missing_keys_have_the_defaults_of_mindcvs_parser(loads: Loads) -> None:
    recipe = loads({"model": "skresnet18", "distribute": True, "opt": "adamw"})
    assert recipe.batch_size == 128
    expected = Recipe.model_validate(
        {
            **mindcv.DEFAULTS,
            "batch_size": 128,
            "model": "skresnet18",
            "opt": "adamw",
            "jit_level": "O2",
        }
    )
    assert recipe.digest == expected.digest
    assert (recipe.lr, recipe.min_lr, recipe.warmup_epochs) == (0.001, 1e-6, 3)
    assert (recipe.weight_decay, recipe.weight_decay_filter) == (1e-6, "disable")
    assert (recipe.epoch_size, recipe.decay_epochs, recipe.warmup_factor) == (90, 100, 0.0)


def test_a_file_without_a_key_that_only_mindcv_knows_is_ours(loads: Loads) -> None:
    ours = {"model": "skresnet18", "batch_size": 8, "epoch_size": 2, "lr": 0.1}
    assert loads(ours).warmup_epochs == 0
    assert loads(ours | {"shuffle": True, "opt": "sgd", "epoch_size": 9}).warmup_epochs == 3


def test_the_key_of_the_device_is_honoured(loads: Loads) -> None:
    theirs = FILES["skresnet18_ascend"]
    assert loads(theirs).device_target == "auto"
    assert loads(theirs | {"device_target": "CPU"}).device_target == "CPU"
    assert loads.refusal(theirs | {"device_target": "GPU"}) == (
        "device_target is 'GPU': Input should be 'auto', 'CPU' or 'Ascend'"
    )


def test_the_jit_level_is_the_one_that_mindcv_sets_in_graph_mode(loads: Loads) -> None:
    theirs = FILES["skresnet18_ascend"]
    assert loads(theirs).jit_level == "O2"
    assert loads(theirs | {"mode": 1}).jit_level is None
    assert loads(theirs, "jit_level=O1").jit_level == "O1"
    assert loads(theirs, "jit_level=null").jit_level is None


def test_overrides_may_be_keys_of_mindcv_or_ours(loads: Loads) -> None:
    recipe = loads(FILES["skresnet18_ascend"], "lr=0.2", "distribute=False", "min_accuracy=0.7")
    assert (recipe.lr, recipe.min_accuracy) == (0.2, 0.7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shufle": True}, "unknown key 'shufle' (did you mean 'shuffle'?)"),
        ({"shuffle": False}, "shuffle is False: training always shuffles: expected full or blocks"),
        ({"in_channels": 1}, "in_channels is 1, only 3 is possible here"),
        ({"aug_repeats": 3}, "aug_repeats is 3, only 0 or 1 is possible here"),
        ({"lr_epoch_stair": True}, "lr_epoch_stair is True, only False is possible here"),
        ({"pretrained": True}, "pretrained is true, but weights aren't downloaded: give ckpt_path"),
        ({"opt": "adam"}, "opt is 'adam'"),
        ({"scheduler": "cyclic"}, "scheduler is 'cyclic'"),
        ({"loss_scale_type": "dynamic"}, "set drop_overflow_update true"),
    ],
)
def test_a_value_that_would_train_something_else_is_refused(
    loads: Loads, changes: dict[str, Any], message: str
) -> None:
    assert message in loads.refusal(FILES["skresnet18_ascend"] | changes)


def test_keys_of_other_names_are_translated(loads: Loads) -> None:
    others = {
        "filter_bias_and_bn": True,
        "dynamic_loss_scale": True,
        "drop_path_rate": None,
        "drop_rate": None,
        "aug_repeats": 1,
        "amp_cast_list": "[nn.Conv2d]",
        "weight_decay": "4e-5",
        "ckpt_save_interval": 5,
    }
    recipe = loads(FILES["skresnet18_ascend"] | others)
    assert recipe.weight_decay_filter == "norm_and_bias"
    assert (recipe.loss_scale_type, recipe.drop_overflow_update) == ("dynamic", True)
    assert (recipe.drop_path_rate, recipe.weight_decay) == (0.0, 4e-5)
    assert recipe.checkpoint_every_epochs == 5
    override = "checkpoint_every_epochs=3"
    assert loads(FILES["skresnet18_ascend"] | others, override).checkpoint_every_epochs == 3


def test_every_key_is_handled_in_one_way() -> None:
    kinds = (mindcv.WITHOUT_EFFECT, set(mindcv.ONLY), mindcv.TRANSLATED)
    assert sum(map(len, kinds)) == len(mindcv.OWN_KEYS)
    assert mindcv.OWN_KEYS.isdisjoint(Recipe.model_fields)
    assert mindcv.DEFAULTS.keys() <= Recipe.model_fields.keys()
