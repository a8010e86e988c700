"""Predict images: the class of each, its probability, and the next most probable classes.

python -m sknet.predict [--store S --ref REF | --ckpt_path PATH | --onnx F] FILES|DIRS [--json OUT]
msrun --worker_num 2 --local_worker_num 2 --join=True sknet/predict.py --store S FILES …
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from infra.base.commands import OPTIONS, STORE, Texts, app_of, parsed_by, start
from infra.base.console import console
from infra.base.options import non_negative_float, positive_int
from infra.base.progress import Progress, work
from sknet import outputs, program
from sknet.class_names import read_classes
from sknet.errors import SampleError, UserError
from sknet.options import DeviceOptions, LaunchedOptions, RankOptions
from sknet.prediction.checkpoints import describe
from sknet.prediction.exported import classes_of, read_exported
from sknet.prediction.inputs import Found, find_files
from sknet.prediction.results import Prediction, Unreadable, document, table_file
from sknet.prediction.stores import REF, stored_checkpoint
from sknet.recipe import load_recipe
from sknet.records.calibration import Calibration, threshold_of

if TYPE_CHECKING:
    from sknet.prediction.predictor import Predictor

OUTPUTS = ("json", "csv", "parquet")
"""Options that name a file for the predictions."""


def main(options: "Options") -> None:
    """Predict; without a file for the predictions, print a line for each image."""
    distribute = program.is_distributed(options.distribute, "sknet/predict.py")
    _check(options, distribute=distribute)
    found = find_files(options.images)
    _prepare_outputs(options)
    warnings: list[str] = []
    predictor = _predictor(options, warnings.append, distribute=distribute)
    is_first = predictor.world.rank == 0
    for line in warnings if is_first else ():
        _warn(line)
    error_rate = None
    if options.error_rate is not None:
        threshold = predictor.threshold(options.error_rate)
        if is_first:
            print(threshold.describe(), flush=True)
        error_rate = {"chosen": options.error_rate, **threshold.fields()}
    predictions, unreadable = _predicted(options, predictor, found)
    if not is_first:
        predictor.world.sum(0.0)
        return
    _write(options, predictions, unreadable, predictor.source, error_rate)
    num_files = len(predictions) + len(unreadable)
    unsure = sum(each.is_unsure is True for each in predictions)
    print(
        f"predicted {len(predictions)} of {num_files} images with {predictor.source}"
        + (f", {unsure} of them unsure" if error_rate else ""),
        flush=True,
    )
    # msrun ends all ranks when the first one leaves, so they wait for each other.
    predictor.world.sum(0.0)
    if unreadable:
        raise SampleError(
            f"{len(unreadable)} of {num_files} files can't be read as images, which are named "
            "above: convert them to JPEG, PNG or BMP, or leave them out"
        )


def _check(options: "Options", *, distribute: bool) -> None:
    """Check the options as far as that needs no file."""
    named = {
        "--onnx": options.onnx,
        "--ckpt_path": options.ckpt_path,
        "--store or --ref": options.store or options.ref,
    }
    names = [name for name, value in named.items() if value]
    if len(names) > 1:
        raise UserError(f"{' and '.join(names)} all name a network: leave all but one out")
    if options.config and not options.ckpt_path:
        raise UserError("--config is for --ckpt_path: leave it out, or give both")
    if options.classes and not (options.ckpt_path or options.onnx):
        raise UserError("--classes is for --ckpt_path or --onnx: leave it out, or give one of them")
    if options.onnx and distribute:
        raise UserError("--onnx is predicted by one process: leave msrun out")
    if options.onnx and options.device_target not in (None, "auto", "CPU"):
        raise UserError(f"--onnx runs on CPU, not on {options.device_target}: leave it out")
    if options.error_rate is not None and options.error_rate >= 1:
        raise UserError(
            f"--error-rate is {options.error_rate}, expected at least 0 and less than 1"
        )


def _prepare_outputs(options: "Options") -> None:
    """Make the directories of the files for predictions, and refuse what can't be written."""
    files: dict[Path, str] = {}
    for name in OUTPUTS:
        path = getattr(options, name)
        if path is None:
            continue
        outputs.prepare_file(path, f"--{name}")
        other = files.setdefault(path.resolve(), name)
        if other != name:
            raise UserError(f"--{other} and --{name} are both {path}: give each a file of its own")


def _predictor(
    options: "Options", warn: Callable[[str], object], *, distribute: bool
) -> "Predictor":
    def tell(line: str) -> None:
        warn(f"warning: {line}")

    def refuse_rate(calibration: Calibration | None, source: str) -> None:
        if options.error_rate is not None:
            threshold_of(calibration, options.error_rate, source)

    recipe = load_recipe(options.config, warn=warn) if options.config else None
    classes = read_classes(options.classes) if options.classes else None
    if options.onnx:
        exported = read_exported(options.onnx)
        classes_of(exported, classes)
        refuse_rate(None, str(options.onnx))
        return _predictor_class().from_exported(exported, classes=classes)

    if options.ckpt_path:
        describe(options.ckpt_path, recipe, classes)
        refuse_rate(None, str(options.ckpt_path))
        return _predictor_class().from_checkpoint(
            options.ckpt_path,
            recipe=recipe,
            classes=classes,
            device_target=options.device_target,
            warn=tell,
            distribute=distribute,
        )
    console().show(Progress(phase="looking into the store"))
    stored = stored_checkpoint(options.store, options.ref or REF)
    refuse_rate(stored.calibration, stored.name)
    return _predictor_class().from_stored(
        stored,
        device_target=options.device_target,
        warn=tell,
        distribute=distribute,
    )


def _predictor_class() -> "type[Predictor]":
    """Import MindSpore, which takes seconds: wrong names are refused before."""
    console().show(Progress(phase="loading MindSpore"))
    from sknet.prediction.predictor import Predictor

    return Predictor


def _predicted(
    options: "Options", predictor: "Predictor", found: Found
) -> tuple[list[Prediction], list[Unreadable]]:
    """Return all results on rank 0, which says each as soon as it is known."""
    from sknet.prediction.ranks import predict_together

    says = predictor.world.rank == 0
    prints = says and not any(getattr(options, name) for name in OUTPUTS)
    predictions: list[Prediction] = []
    unreadable = [*found.unreadable]
    for skipped in unreadable if says else ():
        _say(skipped)
    with work("predicting", len(found.files)) as count:
        for each in predict_together(
            predictor, found.files, top=options.top, error_rate=options.error_rate, done=count
        ):
            if isinstance(each, Unreadable):
                unreadable.append(each)
                _say(each)
                continue
            predictions.append(each)
            if prints:
                print(each.describe(), flush=True)
    return predictions, unreadable


def _say(unreadable: Unreadable) -> None:
    _warn(f"unreadable: {unreadable.describe()}")


def _warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(
    options: "Options",
    predictions: list[Prediction],
    unreadable: list[Unreadable],
    source: str,
    error_rate: dict[str, Any] | None,
) -> None:
    """Write the files that the options name."""
    if options.json:
        text = document(predictions, unreadable, source, error_rate)
        outputs.write_file(options.json, text.encode(), "--json")
    kinds: tuple[Literal["csv", "parquet"], ...] = ("csv", "parquet")
    for name in kinds:
        if path := getattr(options, name):
            outputs.write_file(path, table_file(predictions, name), f"--{name}")


@dataclass(frozen=True)
class Images:
    """Positional arguments."""

    images: Texts
    """Files, directories, or quoted patterns such as 'photos/**/*.jpg'."""


@dataclass(frozen=True, kw_only=True)
class Options(RankOptions, DeviceOptions, LaunchedOptions, Images):
    """The options, which have MindCV's names where MindCV has them."""

    store: Annotated[str | None, STORE] = None
    """The store to predict from: a path, file:///abs/path or s3://bucket/prefix."""
    ref: Annotated[str | None, Parameter(show_default=REF)] = None
    """The store's ref to the checkpoint."""
    ckpt_path: Path | None = None
    """Directory of a checkpoint, or file of weights, instead of a store."""
    onnx: Path | None = None
    """ONNX file of `sknet export`, with its record beside it, instead of a store."""
    config: Annotated[str | None, Parameter(alias="-c")] = None
    """Recipe of weights without state.json: its name, or a YAML file."""
    classes: Path | None = None
    """Class names of weights without state.json, or of an ONNX file without them: a text file with
    one name a line."""
    top: Annotated[int, parsed_by(positive_int)] = 5
    """Number of classes of each prediction."""
    error_rate: Annotated[
        float | None, parsed_by(non_negative_float), Parameter(show_default="never unsure")
    ] = None
    """Say unsure where more than this fraction of the validation images would be wrong, from 0 to
    less than 1."""
    json: Path | None = None
    """File for the predictions as a JSON document."""
    csv: Path | None = None
    """File for the predictions as a CSV table."""
    parquet: Path | None = None
    """File for the predictions as a Parquet table."""


def command(options: Annotated[Options, OPTIONS]) -> int:
    """Predict images: the class of each, its probability, and the next most probable classes.

    Example: `sknet predict photos --store artifacts --json predictions.json`
    """
    return program.run(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.predict")))
