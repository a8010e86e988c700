"""Export a checkpoint as ONNX or MINDIR, with BatchNorm folded, and check the file's predictions.

python -m sknet.export [--store S | --ckpt_path PATH] [--format ONNX|MINDIR] [--out FILE]

A record, FILE.onnx.json (or FILE.mindir.json), is written beside the file. It describes the classes
and how images are turned into inputs. The file itself holds the same description.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from infra.base.cann import version_warning
from infra.base.commands import OPTIONS, STORE, Flag, app_of, parsed_by, start
from infra.base.console import console
from infra.base.files import file_sha256
from infra.base.options import whole_number
from infra.base.progress import Progress
from sknet import outputs, program
from sknet.class_names import read_classes
from sknet.device import Device, choose_device
from sknet.errors import ExportError, UserError
from sknet.exporting.description import describe
from sknet.exporting.origin import (
    find_origin,
    kept_predictions,
    refuse_other_classes,
    shards_of,
)
from sknet.options import DeviceOptions, LaunchedOptions
from sknet.prediction.stores import REF
from sknet.recipe import load_recipe
from sknet.records.exported import (
    ExportComparison,
    ExportedFile,
    ExportedModel,
    Format,
    record_of,
)
from sknet.records.preprocessing import other_than_source
from sknet.records.training import run_of
from sknet.sizes import MAX_RESOLUTION, MIN_RESOLUTION

if TYPE_CHECKING:
    from sknet.data.shards import ShardSet
    from sknet.models.sknet import SKNet

MAX_LISTED = 100
"""Differing predictions that are printed; the record of a published file has all of them."""
_SUFFIXES: dict[Format, str] = {"ONNX": ".onnx", "MINDIR": ".mindir", "AIR": ".air"}


def main(arguments: "Options") -> None:
    """Export a file, check it and print one line; before it a warning if Ascend is replaced."""
    config = load_recipe(arguments.config) if arguments.config else None
    device = choose_device(arguments.device_target, config)
    suffix = _suffix(arguments, device)
    names = read_classes(arguments.classes) if arguments.classes else None
    if arguments.out:
        prepare_output(arguments.out)
    console().show(Progress(phase="looking for the checkpoint"))
    origin = find_origin(arguments, lambda line: print(line, flush=True))
    run = run_of(origin.weights)
    if device.target == "Ascend" and (warning := version_warning(os.environ)):
        print(f"warning: {warning}", flush=True)
    model = describe(
        arguments,
        run,
        config,
        names,
        lambda: _source_of(origin.weights),
        checkpoint_sha256=file_sha256(origin.weights),
        mindspore=version("mindspore"),
    )
    if origin.classes is not None:
        refuse_other_classes(model, origin.classes)
    out = arguments.out or Path(f"{model.model}{suffix}")
    prepare_output(out)
    kept = kept_predictions(origin, run.recipe if run else config, model)
    console().show(Progress(phase="loading MindSpore"))
    from sknet.exporting.comparison import kept_classes
    from sknet.models import create_model
    from sknet.models.weights import load_weights
    from sknet.training.checkpoint import read_state
    from sknet.world import set_device

    if run:
        read_state(origin.weights.parent)
    elif config and (other := other_than_source(config, _source_of(origin.weights))):
        print(f"warning: {other}", flush=True)
    set_device(device.target)
    if device.is_replacement:
        print(device, flush=True)
    network = create_model(model.model, num_classes=model.num_classes)
    load_weights(network, origin.weights)
    shards = shards_of(origin, model)
    classes = kept_classes(kept, shards) if kept and shards else None
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"model{suffix}"
        console().show(Progress(phase="exporting"))
        model = _write(network, model, file)
        comparison, verdict = _checked(network, model, file, shards, classes, device)
        if comparison:
            _refuse_differences(comparison, model, arguments.max_differences)
        record = ExportedFile(
            **model.model_dump(),
            format=arguments.format,
            sha256=file_sha256(file),
            comparison=comparison,
        )
        publish(file, record, out)
    count, *sides = model.input_shape
    shape = ", ".join(str(size) for size in (count or "N", *sides))
    print(f"wrote {out} for input ({shape}), and {record_of(out)}; {verdict}")


def _write(network: "SKNet", model: ExportedModel, file: Path) -> ExportedModel:
    """Write the file, and return its description with the version of ONNX's operators."""
    from sknet.models.formats import exportable, write

    def described(opset: int | None) -> ExportedModel:
        return model.model_copy(update={"opset": opset})

    opset = write(
        exportable(network),
        model.input_shape,
        file,
        lambda opset: described(opset).notes,
        is_float16=model.precision == "float16",
    )
    return described(opset)


def _checked(
    network: "SKNet",
    model: ExportedModel,
    file: Path,
    shards: "ShardSet | None",
    classes: list[int] | None,
    device: Device,
) -> tuple[ExportComparison | None, str]:
    """Compare what the file computes with the network, and what it predicts with an evaluation.

    Returns:
        The comparison of predictions, if there are images, and what was found in one line.

    Raises:
        ExportError: The logits differ too much.
    """
    from mindspore import Tensor

    from sknet.evaluation.predictions import Floats
    from sknet.exporting.comparison import compare_logits, compare_predictions
    from sknet.models import fold
    from sknet.models.formats import loaded

    found = loaded(file)
    if found is None:
        return None, "its outputs are unchecked: MindSpore can't run AIR"
    network = fold(network)

    def expected(images: Floats) -> Floats:
        logits: Floats = network(Tensor(images)).asnumpy()
        return logits

    difference = compare_logits(found, expected, model)
    verdict = (
        f"its logits differ from the network's by {difference:.1e} of the largest on "
        f"{device.target}"
    )
    if shards is None:
        return None, f"{verdict}; its predictions are unchecked: --data_dir or --store has images"
    comparison = compare_predictions(
        found,
        classes or expected,
        model,
        shards,
        on_progress=lambda done: console().show(
            Progress(phase="comparing predictions", fraction=done)
        ),
    )
    same = comparison.seen - len(comparison.differing)
    return comparison, (
        f"{verdict}; it predicts the class of the {comparison.expected_from} for {same} of "
        f"{comparison.seen} validation images"
    )


def _refuse_differences(
    comparison: ExportComparison, model: ExportedModel, max_differences: int
) -> None:
    """Print the images that are predicted differently.

    Raises:
        ExportError: There are more than `max_differences`.
    """

    def name(label: int) -> str:
        return repr(model.classes[label]) if model.classes else f"class {label}"

    number = len(comparison.differing)
    for each in comparison.differing[:MAX_LISTED]:
        print(f"differs: {each.key} is {name(each.found)} instead of {name(each.expected)}")
    if number > MAX_LISTED:
        print(f"differs: {number - MAX_LISTED} more")
    if number > max_differences:
        raise ExportError(
            f"the file predicts other classes than the {comparison.expected_from} for {number} of "
            f"{comparison.seen} validation images, which are named above, and {max_differences} "
            "may differ: nothing was written"
        )


def prepare_output(out: Path) -> None:
    """Make the directory of --out, and refuse it if it or its record can't be written."""
    for file in (out, record_of(out)):
        outputs.prepare_file(file, "--out")


def publish(file: Path, record: ExportedFile, out: Path) -> None:
    """Copy the file to `out` and write the record beside it.

    Existing files are replaced only once both new ones are complete.

    Raises:
        UserError: They can't be written.
    """
    targets = (record_of(out), out)
    parts = [target.with_name(f".{target.name}.{os.getpid()}") for target in targets]
    try:
        with outputs.writing(out, "--out"):
            record.write(parts[0])
            # The copy has the permissions of a new file; MindSpore may leave its own read-only.
            shutil.copyfile(file, parts[1])
            for part, target in zip(parts, targets, strict=True):
                part.replace(target)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Options(DeviceOptions, LaunchedOptions):
    """The options, which have MindCV's names where MindCV has them."""

    ckpt_path: Annotated[str | None, Parameter(show_default=REF)] = None
    """Directory of a checkpoint, or a file of weights; with `--store`, the store's ref to a
    checkpoint. Without both, the default store's."""
    store: Annotated[str | None, STORE] = None
    """Store of the checkpoint, its data and its evaluation: a path, file:///… or s3://…"""
    data_dir: str | None = None
    """For a checkpoint that is in no store: directory of image folders or of shards, or `digits`.
    The file has to predict the same class of each validation image as the network."""
    evaluation: Path | None = None
    """Directory that `sknet validate --out` has written: its predictions are the expected ones."""
    shards_dir: Path = Path("shards")
    """Directory for shards converted from `--data-dir`."""
    format: Format = "ONNX"
    """Format of the file; AIR on Ascend only."""
    out: Annotated[Path | None, Parameter(show_default="MODEL.onnx, or .mindir")] = None
    """File to write."""
    batch_size: Annotated[
        int | None, parsed_by(whole_number(1, 1024)), Parameter(show_default="any; of AIR 1")
    ] = None
    """Number of images in the input, if it is to be fixed."""
    resolution: Annotated[
        int | None,
        parsed_by(whole_number(MIN_RESOLUTION, MAX_RESOLUTION)),
        Parameter(show_default="the recipe's"),
    ] = None
    """Side of the input, in pixels."""
    fp16: Flag = False
    """Compute in float16 (ONNX only), in half the size; inputs and logits stay float32."""
    max_differences: Annotated[int, parsed_by(whole_number(0, 1_000_000))] = 0
    """Most validation images whose predicted class may differ. Their names are in the record."""
    model: str | None = None
    """Name of the model, for weights without state.json."""
    num_classes: Annotated[
        int | None, parsed_by(whole_number(1, 100_000)), Parameter(show_default="1000")
    ] = None
    """Number of classes, for weights without state.json."""
    classes: Path | None = None
    """Text file with one class name a line, for weights without state.json."""
    config: Annotated[str | None, Parameter(alias="-c")] = None
    """Recipe with model and preprocessing, for weights without state.json."""


DEFAULTS = Options()


def command(options: Annotated[Options, OPTIONS] = DEFAULTS) -> int:
    """Export a checkpoint as ONNX or MINDIR, and check that the file predicts what it should.

    Example: `sknet export --store artifacts --out model.onnx`
    """
    return program.run(main, options)


def _suffix(arguments: Options, device: Device) -> str:
    """Check the options as far as that needs no file, and return the suffix of the format."""
    if arguments.format == "AIR" and device.target != "Ascend":
        raise UserError(
            "--format AIR is written by MindSpore on Ascend only: "
            "use MINDIR, or --device_target Ascend there"
        )
    if arguments.format == "ONNX":
        for package in ("onnx", "onnxruntime"):
            if not find_spec(package):
                raise UserError(
                    f"--format ONNX needs the package {package}: pip install 'sknet[export]'"
                )
    elif arguments.fp16:
        raise UserError(f"--fp16 is for --format ONNX, not for {arguments.format}: leave it out")
    suffix, out = _SUFFIXES[arguments.format], arguments.out
    if out and out.suffix != suffix:
        raise UserError(f"--out is {out}, expected a name ending in {suffix}")
    return suffix


def _source_of(weights: Path) -> str:
    """Return whose names the weights have; this imports MindSpore, which reads them."""
    console().show(Progress(phase="loading MindSpore"))
    from sknet.models.weights import source_of

    return source_of(weights)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.export")))
