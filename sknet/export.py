"""Export a checkpoint as MINDIR or ONNX, BatchNorm folded, checked against the network.

python -m sknet.export --ckpt_path FILE --format MINDIR|ONNX [--model NAME] [--resolution 224]

Beside FILE.onnx (or .mindir) goes FILE.onnx.json, an `ExportedFile`: how images become its input,
and its classes. The file itself holds the same.
"""

import argparse
import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from infra.base.records import Record, Sha256
from sknet import program
from sknet.errors import ExportError, UserError
from sknet.recipe import Recipe, load_recipe
from sknet.records import Checkpoint

IMAGENET_CLASSES = 1000
# The network's total stride, and what a gigabyte holds of one image's largest map.
_RANGES = (("resolution", 32, 2048), ("num_classes", 1, 100_000), ("batch_size", 1, 1024))
# Of the largest logit. Folding and another runtime's rounding stay below a tenth of it.
MAX_DIFFERENCE = 1e-5
MAX_CLASSES_BYTES = 1 << 24
_SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
_UNCHECKED = {
    ".onnx": "its outputs are unchecked: pip install onnxruntime to have them compared",
    ".air": "its outputs are unchecked: MindSpore can't run AIR",
}


class ExportedModel(Record):
    """What a user of an exported network has to know; the file holds each field as JSON text."""

    model: str
    """Name in `sknet.models.list_models()`."""
    num_classes: int
    classes: tuple[str, ...] | None
    """Names in the order of the logits; None if unknown."""
    input_shape: tuple[int, int, int, int]
    """(N, C, H, W), float32."""
    layout: Literal["NCHW"] = "NCHW"
    channel_order: Literal["RGB"] = "RGB"
    resize: int
    """First the image's shorter side is resized to this, in pixels, …"""
    interpolation: str
    """… in this way, …"""
    crop_pct: float
    """… then the centre is cropped to H and W: H / crop_pct is `resize`, rounded."""
    mean: tuple[float, float, float]
    """Per channel, subtracted from values in 0 … 255, …"""
    std: tuple[float, float, float]
    """… and the difference divided by this."""
    checkpoint_sha256: Sha256
    """Of the file that held the weights."""
    mindspore: str
    """Version that exported."""

    @property
    def notes(self) -> dict[str, str]:
        """As the file holds it: name → JSON."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}


class ExportedFile(ExportedModel):
    """`FILE.json` beside an exported file."""

    format_version: Literal[1] = 1
    format: Literal["MINDIR", "ONNX", "AIR"]
    sha256: Sha256
    """Of the exported file."""


def main(arguments: argparse.Namespace) -> None:
    """Export and check; prints one line."""
    suffix = _suffix(arguments)
    config = load_recipe(arguments.config) if arguments.config else None
    names = read_classes(arguments.classes) if arguments.classes else None
    # Otherwise MindSpore's warnings about itself bury the one line. Read when it is imported.
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
    set_device(arguments.device_target)
    network = create_model(model.model, num_classes=model.num_classes)
    load_weights(network, weights)
    out = arguments.out or Path(f"{model.model}{suffix}")
    make_place(out)
    images = np.random.default_rng(0).standard_normal(model.input_shape, np.float32)
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"model{suffix}"
        write(exportable(network), images, file, model.notes)
        logits = run(file, images)
        verdict = _UNCHECKED.get(suffix)
        if logits is not None:
            expected = network.set_train(False)(mindspore.Tensor(images)).asnumpy()
            difference = relative_difference(logits, expected)
            verdict = f"its logits differ from the network's by {difference:.1e} of the largest"
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
    """What to export, from everything that says something about it.

    A checkpoint of ours knows it all. Raises UserError if two sources differ or none names the
    model; preprocessing that none names is ImageNet's, as in a recipe.
    """
    run = state.run if state else None

    def choice(key: str, option: Any = None) -> Any:
        claims = {
            "state.json": run and getattr(run.recipe, key),
            "--config": config and getattr(config, key),
            f"--{key}": option,
        }
        return agreed(key, claims)

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


def agreed(what: str, claims: dict[str, Any]) -> Any:
    """The value that all claims but None have; None if all are. Raises UserError if two differ."""
    known = [(source, value) for source, value in claims.items() if value is not None]
    for source, value in known[1:]:
        if value != known[0][1]:
            raise UserError(
                f"{what} is {known[0][1]!r} in {known[0][0]}, but {value!r} in {source}: "
                "leave one out"
            )
    return known[0][1] if known else None


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of classes, one a line, in the order of the labels. Raises UserError naming a fault."""
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


def make_place(out: Path) -> None:
    """Make the directory of --out, before the work. Raises UserError if no file can go there."""
    if out.is_dir():
        raise UserError(f"--out {out} is a directory, expected a file")
    program.make_directory(out.parent, "--out")


def publish(file: Path, record: ExportedFile, out: Path) -> None:
    """Put the file at `out` and the record beside it, each whole or not at all.

    Raises UserError if that is not possible.
    """
    targets = (out.with_name(f"{out.name}.json"), out)
    parts = [target.with_name(f".{target.name}.{os.getpid()}") for target in targets]
    try:
        record.write(parts[0])
        # With the rights of any new file, not those that MindSpore leaves.
        shutil.copyfile(file, parts[1])
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
    except OSError as error:
        raise UserError(f"--out {out} can't be written: {error.strerror}") from None
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def parser() -> argparse.ArgumentParser:
    """The options; names as in MindCV where it has the option."""
    result = program.parser(__doc__.splitlines()[0])
    result.add_argument(
        "--ckpt_path",
        type=Path,
        required=True,
        help="model.ckpt or its directory, whose state.json names the rest; or published weights",
    )
    result.add_argument("--format", required=True, help="MINDIR or ONNX; AIR on Ascend")
    result.add_argument("--out", type=Path, help="file to write (default: MODEL.mindir or .onnx)")
    result.add_argument("--model", help="for weights without state.json")
    result.add_argument("--num_classes", type=int, help="for weights without state.json")
    result.add_argument("--classes", type=Path, help="text file of class names, one a line")
    result.add_argument("--config", "-c", help="recipe that names model and preprocessing")
    result.add_argument("--resolution", type=int, help="side of the input (default: the recipe's)")
    result.add_argument("--batch_size", type=int, default=1, help="images of one call, fixed")
    result.add_argument("--device_target", default="CPU", help="CPU or Ascend")
    return result


def _suffix(arguments: argparse.Namespace) -> str:
    """The suffix of the format, all options checked that need no file. Raises UserError."""
    if arguments.format not in _SUFFIXES:
        raise UserError(f"--format is {arguments.format!r}, expected MINDIR or ONNX")
    if arguments.format == "AIR" and arguments.device_target != "Ascend":
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
    """The file of weights, and the verified state beside it if it is a checkpoint of ours."""
    from sknet.training.checkpoint import MODEL_FILE, STATE_FILE, read_state

    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"checkpoint {file} does not exist")
    if file.name == MODEL_FILE and (file.parent / STATE_FILE).is_file():
        return file, read_state(file.parent)
    return file, None


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
