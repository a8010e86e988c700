"""A recipe checks every value, its digest covers every choice, errors are one line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.errors import UserError
from sknet.recipe import Recipe, changed_recipe, list_recipes, load_recipe, parse_recipe
from tests.sknet.recipes import SMALLEST, recipe, recipe_refusal

# For each choice, a value that is not the default.
OTHERS: dict[str, Any] = {
    "model": "skresnet34",
    "num_classes": 10,
    "drop_path_rate": 0.1,
    "ckpt_sha256": "0" * 64,
    "replace_head": True,
    "freeze": ["stem"],
    "image_resize": 64,
    "scale": [0.5, 1.0],
    "ratio": [0.5, 2.0],
    "hflip": 0.25,
    "vflip": 0.25,
    "color_jitter": 0.3,
    "auto_augment": "randaug-m9-n2",
    "interpolation": "bicubic",
    "antialias": True,
    "re_prob": 0.25,
    "re_scale": [0.1, 0.2],
    "re_ratio": [0.5, 2.0],
    "re_value": 1,
    "re_max_attempts": 5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "cutmix_prob": 0.5,
    "crop_pct": 1.0,
    "eval_preprocessing": "pillow",
    "val_resolutions": [224, 320],
    "mean": [0, 0, 0],
    "std": [50.0, 50.0, 50.0],
    "normalise_on": "device",
    "num_parallel_workers": 3,
    "shuffle": "blocks",
    "shuffle_parts": 4,
    "shuffle_window": 100,
    "batch_size": 8,
    "global_batch_size": 32,
    "reference_global_batch_size": 256,
    "gradient_accumulation_steps": 2,
    "epoch_size": 5,
    "scheduler": "constant",
    "lr": 0.2,
    "min_lr": 0.01,
    "warmup_epochs": 1,
    "warmup_factor": 0.1,
    "decay_epochs": 2,
    "decay_rate": 0.1,
    "multi_step_decay_milestones": [1, 2],
    "loss": "BCE",
    "label_smoothing": 0.1,
    "sampler": "sqrt",
    "class_weights": [1, 2.5, 3],
    "logit_adjustment": 1.0,
    "opt": "sgd",
    "momentum": 0.8,
    "use_nesterov": True,
    "weight_decay": 1e-4,
    "weight_decay_filter": "disable",
    "clip_grad": True,
    "clip_value": 1.0,
    "clip_mode": "value",
    "ema": True,
    "ema_decay": 0.99,
    "amp_level": "O2",
    "loss_scale_type": "dynamic",
    "loss_scale": 1024,
    "drop_overflow_update": True,
    "mode": 1,
    "jit_level": "O1",
    "seed": 43,
    "checkpoint_every_steps": 10,
    "checkpoint_every_epochs": 2,
    "keep_checkpoint_max": 4,
    "val_interval": 2,
    "log_interval": 10,
    "min_accuracy": 0.5,
}


@pytest.mark.parametrize("name", list_recipes())
def test_every_packaged_recipe_loads(name: str) -> None:
    assert load_recipe(name).name == name


def test_an_unknown_key_is_refused_with_the_nearest_known_key() -> None:
    assert recipe_refusal(weight_decy=1e-4) == (
        "recipe: unknown key 'weight_decy' (did you mean 'weight_decay'?)"
    )


def test_an_unknown_key_unlike_all_others_is_refused_without_a_suggestion() -> None:
    assert recipe_refusal(zzz=1) == "recipe: unknown key 'zzz'"


def test_one_message_names_all_faults() -> None:
    message = recipe_refusal(lr=-1, epoch_size=0)
    assert "lr is -1" in message
    assert "epoch_size is 0" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch_size", "many"),
        ("epoch_size", 1.5),
        ("lr", None),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", 0),
        ("scale", [0.1]),
        ("scale", [0.9, 0.1]),
        ("std", [1, 1, 0]),
        ("image_resize", 31),
        ("crop_pct", 0),
        ("hflip", 1.1),
        ("interpolation", "lanczos"),
        ("scale", [0.1, 1.1]),
        ("re_scale", [0.1, 1.1]),
        ("re_ratio", [0.0, 1.0]),
        ("re_value", "noise"),
        ("re_value", [1, 2]),
        ("re_value", float("inf")),
        ("re_max_attempts", 0),
        ("color_jitter", -0.1),
        ("color_jitter", [0.1, 0.1]),
        ("color_jitter", [0.1, 0.1, 0.1, 0.6]),
        ("color_jitter", [0.1, 0.1, True]),
        ("color_jitter", 10**400),
        ("auto_augment", "augmix-m3"),
        ("auto_augment", 9),
        ("mixup", -0.2),
        ("cutmix", -1),
        ("cutmix_prob", 1.1),
        ("scheduler", "step"),
        ("opt", "adam"),
        ("seed", -1),
        ("seed", 1 << 32),
        ("keep_checkpoint_max", 1),
        ("warmup_epochs", 4),
        ("mode", 2),
        ("device_target", "GPU"),
        ("jit_level", "O3"),
        ("normalise_on", "card"),
        ("amp_level", "O1"),
        ("loss_scale_type", "auto"),
        ("loss_scale", 0.5),
        ("loss", "JSD"),
        ("weight_decay_filter", "bias"),
        ("ema_decay", 1.0),
        ("clip_value", 0),
        ("clip_mode", "agc"),
        ("gradient_accumulation_steps", 0),
        ("gradient_accumulation_steps", 3),
        ("warmup_factor", 1.1),
        ("decay_rate", 0),
        ("decay_epochs", 0),
        ("multi_step_decay_milestones", [2, 1]),
        ("multi_step_decay_milestones", [1, 1]),
        ("multi_step_decay_milestones", []),
        ("min_lr", 0.2),
        ("drop_path_rate", 1.0),
        ("ckpt_sha256", "abc"),
        ("freeze", ["layer5"]),
        ("sampler", "random"),
        ("class_weights", "equal"),
        ("class_weights", None),
        ("class_weights", 2),
        ("class_weights", []),
        ("class_weights", [1, 0]),
        ("class_weights", [1, "much"]),
        ("class_weights", [1, float("inf")]),
        ("logit_adjustment", -1),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_value(key: str, value: object) -> None:
    message = recipe_refusal(**{key: value})
    assert key in message
    if isinstance(value, str):
        assert repr(value) in message


def test_a_recipe_is_read_as_it_was_written() -> None:
    written = recipe(color_jitter=None, re_value="random", auto_augment="autoaug")
    rarity = recipe(sampler="sqrt", class_weights=[1, 2])
    for each in (recipe(), written, rarity):
        assert parse_recipe(each.model_dump(mode="json"), where="recipe").digest == each.digest


NUMBERS = [
    key
    for key, value in OTHERS.items()
    if isinstance(value, int | float) and not isinstance(value, bool)
]


@pytest.mark.parametrize("key", NUMBERS)
def test_true_is_not_accepted_as_a_number(key: str) -> None:
    assert f"{key} is True" in recipe_refusal(**{key: True})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UserError, match=r"^recipe: key 'model' is missing$"):
        parse_recipe({k: v for k, v in SMALLEST.items() if k != "model"}, where="recipe")


@pytest.mark.parametrize("changes", [{"batch_size": 8}, {"global_batch_size": None}])
def test_exactly_one_of_the_batch_sizes_must_be_given(changes: dict[str, Any]) -> None:
    assert "give either batch_size (per device) or global_batch_size, not both" in recipe_refusal(
        **changes
    )


def test_a_mean_of_one_number_is_refused_with_what_is_expected() -> None:
    assert "mean is 0.5: expected three numbers, one for each of red" in recipe_refusal(mean=0.5)


@pytest.mark.parametrize(
    ("key", "value", "scaled"),
    [
        ("mean", [0.485, 0.456, 0.406], "[123.675, 116.28, 103.53]"),
        ("std", [0.229, 0.224, 0.225], "[58.395, 57.12, 57.375]"),
        ("mean", [0.5, 0.5, 0.5], "[127.5, 127.5, 127.5]"),
        ("std", [1, 1, 1], "[255.0, 255.0, 255.0]"),
    ],
)
def test_a_mean_or_deviation_of_pixels_in_0_to_1_is_refused_with_the_one_in_0_to_255(
    key: str, value: list[float], scaled: str
) -> None:
    assert f"{key} is {value}" in recipe_refusal(**{key: value}).replace("1.0", "1")
    assert recipe_refusal(**{key: value}).endswith(f"write {scaled}")


def test_pixels_may_be_taken_without_a_mean() -> None:
    assert recipe(mean=[0, 0, 0], std=[255, 255, 255]).mean == (0, 0, 0)


def test_an_unknown_model_is_refused_with_the_nearest_ones() -> None:
    assert "recipe: no model 'skresnet19' (did you mean 'skresnet1" in recipe_refusal(
        model="skresnet19"
    )


@given(st.dictionaries(st.sampled_from(sorted(Recipe.model_fields)), st.text(max_size=6)))
def test_any_values_give_a_recipe_or_one_line_of_error(values: dict[str, str]) -> None:
    try:
        parse_recipe({**SMALLEST, **values}, where="recipe")
    except UserError as error:
        assert str(error).isprintable()


def test_a_world_size_that_does_not_divide_the_global_batch_is_refused() -> None:
    with pytest.raises(UserError, match="global_batch_size 64 can't be divided among 3 workers"):
        recipe().global_batch(3)


def test_the_global_batch_is_the_same_for_every_world_size_that_divides_it() -> None:
    assert [recipe().global_batch(world) for world in (1, 2, 4, 64)] == [64] * 4


def test_the_batch_per_device_is_multiplied_by_the_world_size() -> None:
    per_device = recipe(global_batch_size=None, batch_size=8)
    assert [per_device.global_batch(world) for world in (1, 2, 3)] == [8, 16, 24]


def test_the_digest_ignores_the_name() -> None:
    assert recipe(name="a").digest == recipe(name="b").digest


def test_the_digest_ignores_the_device_which_the_run_records() -> None:
    assert recipe(device_target="Ascend").digest == recipe(device_target="CPU").digest


def test_the_digest_of_a_recipe_is_the_one_before_keys_that_it_does_not_use_were_added() -> None:
    # Recorded then: no training in a store gets another key by keys that its recipe doesn't use.
    before = "038da721ab9dff7283932ffd025320a0d88fc7afaeadf59e5d66e9d2d0999827"
    assert recipe().digest == before
    assert recipe(jit_level=None, normalise_on="auto").digest == before
    rarity = {"sampler": "uniform", "class_weights": "none", "logit_adjustment": 0}
    assert recipe(**rarity).digest == before
    assert recipe(eval_preprocessing="mindcv").digest == before


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_file_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    """Also MindCV's recipes, whose choices leave out what is older than recipe files know."""
    for changes in ([], ["eval_preprocessing=mindcv", "min_lr=0.00001"]):
        each = load_recipe(name, changes)
        file = each.write(tmp_path / f"{name}.yaml")
        read = load_recipe(str(file))  # the device is an option of the programs
        assert read == each.model_copy(update={"device_target": "auto"})


def test_a_recipe_file_without_the_key_means_pillow_and_a_stored_recipe_mindcv(
    tmp_path: Path,
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("model: skresnet18\nglobal_batch_size: 8\nepoch_size: 1\nlr: 0.1\n")
    own = load_recipe(str(file))
    assert own.eval_preprocessing == "pillow"
    assert load_recipe(str(file), ["eval_preprocessing=mindcv"]).eval_preprocessing == "mindcv"
    # As stored, and read again; a recipe from before the key has none.
    stored = own.model_dump(mode="json")
    assert parse_recipe(stored, where="recipe") == own.model_copy(update={"name": "recipe"})
    del stored["eval_preprocessing"]
    before = parse_recipe(stored, where="recipe")
    assert before.eval_preprocessing == "mindcv"
    assert "eval_preprocessing" not in before.choices()
    assert before.all_choices()["eval_preprocessing"] == "mindcv"
    assert changed_recipe(before, ["lr=0.2"], where="recipe").eval_preprocessing == "mindcv"


@pytest.mark.parametrize("key", OTHERS)
def test_a_training_has_every_choice_but_those_that_change_nothing_in_its_checkpoint(
    key: str,
) -> None:
    before, values = recipe(), {key: OTHERS[key]}
    of_training = before.model_copy(update=values).of_training() != before.of_training()
    besides = {"keep_checkpoint_max", "log_interval", "min_accuracy", "num_parallel_workers"}
    assert of_training == (key not in besides)
    assert of_training == (key in before.all_choices())


def test_the_other_values_cover_every_choice() -> None:
    assert OTHERS.keys() == Recipe.model_fields.keys() - {"name", "ckpt_path", "device_target"}


@pytest.mark.parametrize("key", OTHERS)
def test_the_digest_changes_with_every_choice(key: str) -> None:
    # Choices that are only valid together with others.
    needs: dict[str, dict[str, Any]] = {
        "batch_size": {"global_batch_size": None},
        "replace_head": {"ckpt_sha256": "0" * 64},
        "freeze": {"ckpt_sha256": "0" * 64},
        "loss_scale_type": {"drop_overflow_update": True},
        "shuffle_parts": {"shuffle": "blocks"},
        "shuffle_window": {"shuffle": "blocks"},
    }
    common = needs.get(key, {})
    before = recipe() if key == "batch_size" else recipe(**common)
    assert recipe(**common, **{key: OTHERS[key]}).digest != before.digest


def test_the_digest_does_not_depend_on_how_values_are_written() -> None:
    assert recipe(lr="1e-1", scale=[0.08, 1]).digest == recipe().digest


WEIGHTS = "0" * 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": "step_decay"}, "step_decay needs decay_epochs"),
        ({"opt": "adamw", "use_nesterov": True}, "use_nesterov needs opt momentum or sgd"),
        ({"momentum": 0.0, "use_nesterov": True}, "and a momentum above 0"),
        ({"loss_scale_type": "dynamic"}, "set drop_overflow_update true"),
        ({"replace_head": True}, "replace_head needs ckpt_path"),
        ({"freeze": ["stem"]}, "freeze needs ckpt_path"),
        ({"freeze": ["stem", "stem"], "ckpt_sha256": WEIGHTS}, "expected different layers"),
        (
            {
                "freeze": ["stem", "layer1", "layer2", "layer3", "layer4", "fc"],
                "ckpt_sha256": WEIGHTS,
            },
            "and not all of them",
        ),
        (
            {"freeze": ["fc"], "replace_head": True, "ckpt_sha256": WEIGHTS},
            "freeze has fc, but replace_head",
        ),
        (
            {"sampler": "balanced", "class_weights": "balanced"},
            "sampler balanced and class_weights balanced each make all classes count equally",
        ),
        (
            {"class_weights": "balanced", "logit_adjustment": 1},
            "class_weights balanced and logit_adjustment 1.0 each make all classes count equally",
        ),
        ({"logit_adjustment": 1, "loss": "BCE"}, "logit_adjustment needs loss CE"),
        (
            {"class_weights": [1, 2, 3], "num_classes": 4},
            "class_weights has 3 numbers, expected one for each of 4 classes, in their order",
        ),
    ],
)
def test_contradicting_choices_are_refused(changes: dict[str, Any], message: str) -> None:
    assert message in recipe_refusal(**changes)


def test_the_global_batch_counts_the_accumulated_passes() -> None:
    per_device = recipe(global_batch_size=None, batch_size=8, gradient_accumulation_steps=3)
    assert [per_device.global_batch(world) for world in (1, 2)] == [24, 48]
    fixed = recipe(gradient_accumulation_steps=4)
    assert [fixed.global_batch(world) for world in (1, 2, 16)] == [64] * 3
    with pytest.raises(UserError, match="among 32 workers x 4 accumulated passes"):
        fixed.global_batch(32)


def test_the_digest_ignores_the_path_of_the_weights() -> None:
    assert recipe(ckpt_path="a").digest == recipe(ckpt_path="b").digest
