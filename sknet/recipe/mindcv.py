"""MindCV's YAML files as recipes: its keys, and its parser's defaults for keys that are missing.

A file is MindCV's if it has a key that MindCV knows and a recipe doesn't, such as `dataset` or
`distribute`; all files that MindCV publishes have some. Source: config.py of MindCV 0.3, and two
keys of 0.2.
"""

from collections.abc import Mapping
from typing import Any

from sknet.errors import UserError

# The parser's defaults of keys that a recipe has too; a recipe's own default may differ.
# `model` has none here, as MindCV's default is no SKNet.
DEFAULTS: dict[str, Any] = {
    "mode": 0,
    "val_interval": 1,
    "log_interval": 100,
    "seed": 42,
    "num_parallel_workers": 8,
    "image_resize": 224,
    "scale": [0.08, 1.0],
    "ratio": [0.75, 1.333],
    "hflip": 0.5,
    "vflip": 0.0,
    "color_jitter": 0.4,
    "interpolation": "bilinear",
    "eval_preprocessing": "mindcv",  # no key of MindCV's, but what it does
    "auto_augment": None,
    "re_prob": 0.0,
    "re_scale": [0.02, 0.33],
    "re_ratio": [0.3, 3.3],
    "re_value": 0,
    "re_max_attempts": 10,
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "crop_pct": 0.875,
    "mixup": 0.0,
    "cutmix": 0.0,
    "cutmix_prob": 1.0,
    "num_classes": None,
    "drop_path_rate": 0.0,
    "ckpt_path": "",
    "keep_checkpoint_max": 10,
    "epoch_size": 90,
    "ema": False,
    "ema_decay": 0.9999,
    "clip_grad": False,
    "clip_value": 15.0,
    "gradient_accumulation_steps": 1,
    "opt": "adam",
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "use_nesterov": False,
    "weight_decay_filter": "disable",
    "scheduler": "cosine_decay",
    "lr": 0.001,
    "min_lr": 1e-6,
    "warmup_epochs": 3,
    "warmup_factor": 0.0,
    "decay_epochs": 100,
    "decay_rate": 0.9,
    "multi_step_decay_milestones": [30, 60, 90],
    "loss": "CE",
    "label_smoothing": 0.0,
    "amp_level": "O0",
    "loss_scale_type": "fixed",
    "loss_scale": 1.0,
    "drop_overflow_update": False,
}

BATCH_SIZE = 128

# Keys that are ignored, with a warning: the program decides them, or has other options for them.
WITHOUT_EFFECT = frozenset(
    {
        *("distribute", "val_while_train", "dataset", "data_dir"),
        *("dataset_download", "dataset_sink_mode", "eval_shuffle", "eps", "amp_cast_list"),
        *("val_amp_level", "ckpt_save_dir", "ckpt_save_policy"),
        *("enable_modelarts", "multi_data_url", "data_url", "ckpt_url", "train_url"),
    }
)

# Keys with the values that describe what this project does anyway; others would train something
# else, so they are refused.
ONLY: dict[str, tuple[Any, ...]] = {
    "train_split": ("train",),
    "val_split": ("val",),
    "drop_remainder": (True,),
    "num_samples": (None,),
    "aug_splits": (0,),
    "aug_repeats": (0, 1),
    "in_channels": (3,),
    "drop_rate": (None, 0.0),
    "resume_opt": (False,),
    "layer_decay": (None,),
    "lr_epoch_stair": (False,),
    "num_cycles": (1,),
    "cycle_decay": (1.0,),
    "aux_factor": (0.0,),
    "reduction": ("mean",),
}

# Keys that `translate` replaces by keys of a recipe.
TRANSLATED = frozenset(
    {"pretrained", "filter_bias_and_bn", "dynamic_loss_scale", "ckpt_save_interval"}
)

# Keys that only MindCV knows.
OWN_KEYS = WITHOUT_EFFECT | ONLY.keys() | TRANSLATED


def is_mindcv(values: Mapping[str, Any]) -> bool:
    """Tell whether the values are of a file of MindCV."""
    return not OWN_KEYS.isdisjoint(values) or isinstance(values.get("shuffle"), bool)


def translate(values: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a recipe, and the sorted keys that have no effect here.

    Keys that MindCV doesn't know are passed on.

    Raises:
        UserError: A value asks for something that this project doesn't do.
    """
    for key, possible in ONLY.items():
        if key in values and values[key] not in possible:
            expected = " or ".join(str(value) for value in possible)
            raise UserError(f"{where}: {key} is {values[key]!r}, only {expected} is possible here")
    if values.get("pretrained") and not values.get("ckpt_path"):
        raise UserError(
            f"{where}: pretrained is true, but weights aren't downloaded: give ckpt_path"
        )
    result = DEFAULTS | {key: value for key, value in values.items() if key not in OWN_KEYS}
    if result.keys().isdisjoint({"batch_size", "global_batch_size"}):
        result["batch_size"] = BATCH_SIZE
    if result["drop_path_rate"] is None:
        result["drop_path_rate"] = 0.0
    if "ckpt_save_interval" in values:
        result.setdefault("checkpoint_every_epochs", values["ckpt_save_interval"])
    if "filter_bias_and_bn" in values:
        filtered = "norm_and_bias" if values["filter_bias_and_bn"] else "disable"
        result["weight_decay_filter"] = values.get("weight_decay_filter", filtered)
    if result["mode"] == 0:
        # MindCV's train.py sets it in graph mode.
        result.setdefault("jit_level", "O2")
    if values.get("dynamic_loss_scale"):
        result |= {"loss_scale_type": "dynamic", "drop_overflow_update": True}
    return result, sorted(WITHOUT_EFFECT & values.keys())
