"""Export a checkpoint as MINDIR or ONNX, with BatchNorm folded, and check the file's outputs.

python -m sknet.export --ckpt_path FILE --format MINDIR|ONNX [--model NAME] [--resolution 224]

A record, FILE.onnx.json (or FILE.mindir.json), is written beside the file. It describes the classes
and how images are turned into inputs. The file itself holds the same description.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

from infra.base.cann import version_warning
from infra.base.records import Record, Sha256
from sknet import outputs, program
from sknet.device import Device, choose_device
from sknet.errors import ExportError, UserError
from sknet.recipe import Recipe, load_recipe
from sknet.records import Checkpoint
from sknet.records.training import MODEL_FILE, STATE_FILE

IMAGENET_CLASSES = 1000
MAX_DIFFERENCE = 1e-5
"""Largest difference between logits of the file and of the network, as a fraction of the largest
logit. Folding and the rounding of another runtime stay below a tenth of it. With inputs of
convolutions rounded to HF32, as by default on Ascend, skresnet18 would differ by 5e-4."""
MAX_CLASSES_BYTES = 1 << 24
# The resolution's limits are the network's total stride, and what a gigabyte holds of the largest
# map of one image.
_RANGES = (("resolution", 32, 2048), ("num_classes", 1, 100_000), ("batch_size", 1, 1024))
_SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
_UNCHECKED = {
    ".onnx": "its outputs are unchecked: pip install onnxruntime to have them compared",
    ".air": "its outputs are unchecked: MindSpore can't run AIR",
}

_T = TypeVar("_T")


class ExportedModel(Record):
    """What a user of an exported network needs to know. The file stores each field as JSON text."""

    model: str
    """Name in `sknet.models.list_models()`."""
    num_classes: int
    classes: tuple[str, ...] | None
    """Names of the classes in the order of the logits; None if unknown."""
    input_shape: tuple[int, int, int, int]
    """(N, C, H, W), float32."""
    layout: Literal["NCHW"] = "NCHW"
    channel_order: Literal["RGB"] = "RGB"
    resize: int
    """Step 1: size in pixels to which the shorter side of an image is resized."""
    interpolation: str
    """Interpolation of step 1."""
    crop_pct: float
    """Step 2: the centre is cropped to H and W; `resize` is H / crop_pct, rounded."""
    mean: tuple[float, float, float]
    """Step 3: subtracted from the values 0 … 255 of each channel."""
    std: tuple[float, float, float]
    """Step 4: divides the differences of each channel."""
    checkpoint_sha256: Sha256
    """SHA-256 of the file that held the weights."""
    mindspore: str
    """Version of MindSpore that exported the file."""

    @property
    def notes(self) -> dict[str, str]:
        """The fields as the file stores them: JSON texts by name."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}


class ExportedFile(ExportedModel):
    """The record `FILE.json` beside an exported file."""

    format_version: Literal[1] = 1
    format: Literal["MINDIR", "ONNX", "AIR"]
    sha256: Sha256
    """SHA-256 of the exported file."""


def main(arguments: argparse.Namespace) -> None:
    """Export a file, check it and print one line; before it a warning if Ascend is replaced."""
    config = load_recipe(arguments.config) if arguments.config else None
    device = choose_device(arguments.device_target, config)
    suffix = _suffix(arguments, device)
    names = read_classes(arguments.classes) if arguments.classes else None
    if device.target == "Ascend" and (warning := version_warning(os.environ)):
        print(f"warning: {warning}", flush=True)
    # Suppresses MindSpore's warnings about itself, that about CANN among them. It is read when
    # MindSpore is imported.
    os.environ.setdefault("GLOG_v", "3")
    import mindspore
    import numpy as np

    from infra.base.files import file_sha256
    from sknet.models import create_model
    from sknet.models.formats import exportable, relative_difference, run, write
    from sknet.models.weights import load_weights
    from sknet.world import set_device

    weights, state = _checkpoint(arguments.ckpt_path)
    model = describe(
        arguments,
        state,
        config,
        names,
        checkpoint_sha256=file_sha256(weights),
        mindspore=mindspore.__version__,
    )
    set_device(device.target)
    if device.is_replacement:
        print(device, flush=True)
    network = create_model(model.model, num_classes=model.num_classes)
    load_weights(network, weights)
    out = arguments.out or Path(f"{model.model}{suffix}")
    prepare_output(out)
    images = np.random.default_rng(0).standard_normal(model.input_shape, np.float32)
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"model{suffix}"
        write(exportable(network), images, file, model.notes)
        logits = run(file, images)
        verdict = _UNCHECKED.get(suffix)
        if logits is not None:
            expected = network.set_train(False)(mindspore.Tensor(images)).asnumpy()
            difference = relative_difference(logits, expected)
            verdict = (
                f"its logits differ from the network's by {difference:.1e} of the largest "
                f"on {device.target}"
            )
            if not difference <= MAX_DIFFERENCE:
                raise ExportError(f"{verdict}, above {MAX_DIFFERENCE}: nothing was written")
        record = ExportedFile(
            **model.model_dump(), format=arguments.format, sha256=file_sha256(file)
        )
        publish(file, record, out)
    print(f"wrote {out} for input {model.input_shape}, and {out}.json; {verdict}")


def describe(
    arguments: argparse.Namespace,
    state: Checkpoint | None,
    config: Recipe | None,
    names: tuple[str, ...] | None,
    *,
    checkpoint_sha256: str,
    mindspore: str,
) -> ExportedModel:
    """Combine what checkpoint, recipe and options say about the model to export.

    A checkpoint of ours describes it completely. Preprocessing that no source describes is that of
    ImageNet, as in a recipe.

    Args:
        arguments: The options.
        state: The state of the checkpoint, if there is one.
        config: The recipe that --config names.
        names: The class names that --classes holds.
        checkpoint_sha256: See `ExportedModel`.
        mindspore: See `ExportedModel`.

    Raises:
        UserError: Two sources differ, or none names the model.
    """
    run = state.run if state else None

    def choice(key: str, option: Any = None) -> Any:
        values = {
            "state.json": run and getattr(run.recipe, key),
            "--config": config and getattr(config, key),
            f"--{key}": option,
        }
        return agreed(key, values)

    def preprocessing(key: str) -> Any:
        value = choice(key)
        return Recipe.model_fields[key].default if value is None else value

    model = choice("model", arguments.model)
    if model is None:
        raise UserError(
            f"{arguments.ckpt_path} comes without a state.json: give --model or --config"
        )
    num_classes = agreed(
        "num_classes",
        {
            "state.json": run and len(run.classes),
            "--config": config and config.num_classes,
            "--num_classes": arguments.num_classes,
            "--classes": names and len(names),
        },
    )
    if run and names:
        for index, pair in enumerate(zip(run.classes, names, strict=True)):
            agreed(f"class {index}", dict(zip(("state.json", "--classes"), pair, strict=True)))
    side = arguments.resolution or preprocessing("image_resize")
    crop_pct = preprocessing("crop_pct")
    return ExportedModel(
        model=model,
        num_classes=num_classes or IMAGENET_CLASSES,
        classes=run.classes if run else names,
        input_shape=(arguments.batch_size, 3, side, side),
        resize=round(side / crop_pct),
        interpolation=preprocessing("interpolation"),
        crop_pct=crop_pct,
        mean=preprocessing("mean"),
        std=preprocessing("std"),
        checkpoint_sha256=checkpoint_sha256,
        mindspore=mindspore,
    )


def agreed(what: str, values: Mapping[str, _T | None]) -> _T | None:
    """Return the value on which all sources that have one agree.

    Args:
        what: What the value describes, for the message.
        values: The value that each source has.

    Raises:
        UserError: Two sources have different values.
    """
    known = [(source, value) for source, value in values.items() if value is not None]
    for source, value in known[1:]:
        if value != known[0][1]:
            raise UserError(
                f"{what} is {known[0][1]!r} in {known[0][0]}, but {value!r} in {source}: "
                "leave one out"
            )
    return known[0][1] if known else None


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names in a file, which has one a line in the order of the labels.

    Raises:
        UserError: The file can't be read, is empty or has an empty line.
    """
    try:
        if path.stat().st_size > MAX_CLASSES_BYTES:
            raise UserError(f"--classes {path} is larger than {MAX_CLASSES_BYTES} bytes")
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"--classes {path} can't be read: {reason}") from None
    if not names:
        raise UserError(f"--classes {path} is empty, expected one name a line")
    if "" in names:
        raise UserError(f"--classes {path}: line {names.index('') + 1} is empty, expected a name")
    return names


def prepare_output(out: Path) -> None:
    """Make the directory of --out before the work starts.

    Raises:
        UserError: No file can be written there.
    """
    if out.is_dir():
        raise UserError(f"--out {out} is a directory, expected a file")
    outputs.make_directory(out.parent, "--out")


def publish(file: Path, record: ExportedFile, out: Path) -> None:
    """Copy the file to `out` and write the record beside it.

    Existing files are replaced only once both new ones are complete.

    Raises:
        UserError: They can't be written.
    """
    targets = (out.with_name(f"{out.name}.json"), out)
    parts = [target.with_name(f".{target.name}.{os.getpid()}") for target in targets]
    try:
        record.write(parts[0])
        # The copy has the permissions of a new file; MindSpore may leave its own read-only.
        shutil.copyfile(file, parts[1])
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
    except OSError as error:
        raise UserError(f"--out {out} can't be written: {error.strerror}") from None
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options, which have MindCV's names where MindCV has them."""
    result = program.parser(__doc__.splitlines()[0])
    result.add_argument(
        "--ckpt_path",
        type=Path,
        required=True,
        help="directory of a checkpoint, or a file of weights",
    )
    result.add_argument("--format", required=True, help="MINDIR or ONNX, or AIR on Ascend")
    result.add_argument("--out", type=Path, help="file to write (default: MODEL.mindir or .onnx)")
    result.add_argument("--model", help="name of the model, for weights without state.json")
    result.add_argument(
        "--num_classes",
        type=int,
        help=f"number of classes, for weights without state.json (default: {IMAGENET_CLASSES})",
    )
    result.add_argument("--classes", type=Path, help="text file with one class name a line")
    result.add_argument(
        "--config", "-c", help="recipe with model and preprocessing, for weights without state.json"
    )
    result.add_argument(
        "--resolution", type=int, help="side of the input in pixels (default: the recipe's)"
    )
    result.add_argument(
        "--batch_size", type=int, default=1, help="number of images in the input (default: 1)"
    )
    program.add_device_option(result)
    return result


def _suffix(arguments: argparse.Namespace, device: Device) -> str:
    """Check the options as far as that needs no file, and return the suffix of the format."""
    if arguments.format not in _SUFFIXES:
        raise UserError(f"--format is {arguments.format!r}, expected MINDIR or ONNX")
    if arguments.format == "AIR" and device.target != "Ascend":
        raise UserError(
            "--format AIR is written by MindSpore on Ascend only: "
            "use MINDIR, or --device_target Ascend there"
        )
    if arguments.format == "ONNX" and not find_spec("onnx"):
        raise UserError("--format ONNX needs the package onnx: pip install 'sknet[export]'")
    for option, least, most in _RANGES:
        value = getattr(arguments, option)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{option} is {value}, expected {least} to {most}")
    suffix, out = _SUFFIXES[arguments.format], arguments.out
    if out and out.suffix != suffix:
        raise UserError(f"--out is {out}, expected a name ending in {suffix}")
    return suffix


def _checkpoint(path: Path) -> tuple[Path, Checkpoint | None]:
    """Return the file of weights, and the verified state beside it if there is one."""
    from sknet.training.checkpoint import read_state

    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"checkpoint {file} does not exist")
    if file.name == MODEL_FILE and (file.parent / STATE_FILE).is_file():
        return file, read_state(file.parent)
    return file, None


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
