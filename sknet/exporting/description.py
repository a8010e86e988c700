"""What checkpoint, recipe and options say about the model to export."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sknet.architectures import IMAGENET_CLASSES
from sknet.class_names import agreed, agreed_classes
from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records import Run
from sknet.records.exported import ExportedModel
from sknet.records.preprocessing import SOURCE_CHOICES, Preprocessing, resized_side

if TYPE_CHECKING:
    from sknet.export import Options


def describe(
    arguments: "Options",
    run: Run | None,
    config: Recipe | None,
    names: tuple[str, ...] | None,
    source: Callable[[], str],
    *,
    checkpoint_sha256: str,
    mindspore: str,
) -> ExportedModel:
    """Combine what checkpoint, recipe and options say about the model to export.

    A checkpoint of ours describes it completely. Preprocessing that nothing describes is that of
    ImageNet; whose weights they are then decides how images are resized.

    Args:
        arguments: The options.
        run: The checkpoint's training, if it is known.
        config: The recipe that --config names.
        names: The class names that --classes holds.
        source: Returns whose names the weights have; called where nothing else describes them.
        checkpoint_sha256: See `ExportedModel`.
        mindspore: See `ExportedModel`.

    Raises:
        UserError: Two sources differ, or none names the model.
    """

    def choice(key: str, option: Any = None) -> Any:
        values = {
            "state.json": run and getattr(run.recipe, key),
            "--config": config and getattr(config, key),
            f"--{key}": option,
        }
        return agreed(key, values)

    model = choice("model", arguments.model)
    if model is None:
        raise UserError(
            f"{arguments.ckpt_path} comes without a state.json: give --model or --config"
        )
    num_classes = agreed(
        "num_classes",
        {
            "state.json": len(run.classes) if run else None,
            "--config": config.num_classes if config else None,
            "--num_classes": arguments.num_classes,
            "--classes": len(names) if names else None,
        },
    )
    if run and names:
        agreed_classes({"state.json": run.classes, "--classes": names})
    defaults = {
        **{key: field.default for key, field in Recipe.model_fields.items()},
        **(SOURCE_CHOICES[source()] if run is None and config is None else {}),
    }

    def preprocessing(key: str) -> Any:
        value = choice(key)
        return defaults[key] if value is None else value

    side = arguments.resolution or preprocessing("image_resize")
    steps = Preprocessing(
        eval_preprocessing=preprocessing("eval_preprocessing"),
        resize=resized_side(side, preprocessing("crop_pct")),
        interpolation=preprocessing("interpolation"),
        crop=side,
        mean=preprocessing("mean"),
        std=preprocessing("std"),
    )
    num_images = arguments.batch_size or (1 if arguments.format == "AIR" else None)
    return ExportedModel(
        **steps.model_dump(),
        model=model,
        num_classes=num_classes or IMAGENET_CLASSES,
        classes=run.classes if run else names,
        input_shape=(num_images, 3, side, side),
        crop_pct=preprocessing("crop_pct"),
        steps=steps.in_words(),
        precision="float16" if arguments.fp16 else "float32",
        checkpoint_sha256=checkpoint_sha256,
        mindspore=mindspore,
    )
