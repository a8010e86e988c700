"""Predict images: the class of each, its probability, and the next most probable classes.

python -m sknet.predict [--store S --ref REF | --ckpt_path PATH] FILES|DIRS|PATTERNS [--json OUT]
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.base.options import positive_int
from infra.base.progress import work
from sknet import outputs, program
from sknet.errors import SampleError, UserError
from sknet.export import read_classes
from sknet.prediction.inputs import Found, find_files
from sknet.prediction.results import Prediction, Unreadable, document, write_table
from sknet.recipe import load_recipe

if TYPE_CHECKING:
    from sknet.prediction.predictor import Predictor

REF = "production"

DEFAULT_TOP = 5

OUTPUTS = ("json", "csv", "parquet")
"""Options that name a file for the predictions."""


def main(arguments: argparse.Namespace) -> None:
    """Predict; without a file for the predictions, print a line for each image."""
    _check(arguments)
    found = find_files(arguments.images)
    predictor = _predictor(arguments, lambda line: print(line, file=sys.stderr, flush=True))
    error_rate = None
    if arguments.error_rate is not None:
        threshold = predictor.threshold(arguments.error_rate)
        print(threshold.describe(), flush=True)
        error_rate = {"chosen": arguments.error_rate, **threshold._asdict()}
        error_rate["error"] = threshold.error._asdict()
    predictions: list[Prediction] = []
    unreadable = [*found.unreadable]
    for skipped in unreadable:
        _say(skipped)
    is_printed = not any(getattr(arguments, name) for name in OUTPUTS)
    for each in _predicted(arguments, predictor, found):
        if isinstance(each, Unreadable):
            unreadable.append(each)
            _say(each)
            continue
        predictions.append(each)
        if is_printed:
            print(each.describe(), flush=True)
    _write(arguments, predictions, unreadable, predictor.source, error_rate)
    num_files = len(predictions) + len(unreadable)
    unsure = sum(each.is_unsure is True for each in predictions)
    print(
        f"predicted {len(predictions)} of {num_files} images with {predictor.source}"
        + (f", {unsure} of them unsure" if error_rate else ""),
        flush=True,
    )
    if unreadable:
        raise SampleError(
            f"{len(unreadable)} of {num_files} files can't be read as images, which are named "
            "above: convert them to JPEG, PNG or BMP, or leave them out"
        )


def _check(arguments: argparse.Namespace) -> None:
    """Check the options as far as that needs no file."""
    if arguments.ckpt_path and (arguments.store or arguments.ref):
        raise UserError("--ckpt_path and --store or --ref both name a network: leave one out")
    if (arguments.config or arguments.classes) and not arguments.ckpt_path:
        raise UserError("--config and --classes are for --ckpt_path: leave them out, or give it")
    if arguments.error_rate is not None and not 0 <= arguments.error_rate < 1:
        raise UserError(
            f"--error-rate is {arguments.error_rate}, expected at least 0 and less than 1"
        )
    for name in OUTPUTS:
        path = getattr(arguments, name)
        if path is None:
            continue
        if path.is_dir():
            raise UserError(f"--{name} {path} is a directory, expected a file")
        outputs.make_directory(path.parent, f"--{name}")


def _predictor(arguments: argparse.Namespace, warn: Callable[[str], object]) -> "Predictor":
    recipe = load_recipe(arguments.config, warn=warn) if arguments.config else None
    classes = read_classes(arguments.classes) if arguments.classes else None
    # Importing MindSpore takes seconds, so wrong options are refused before.
    from sknet.prediction.predictor import Predictor

    if arguments.ckpt_path:
        return Predictor.from_checkpoint(
            arguments.ckpt_path,
            recipe=recipe,
            classes=classes,
            device_target=arguments.device_target,
        )
    return Predictor.from_store(
        arguments.store,
        arguments.ref or REF,
        device_target=arguments.device_target,
        warn=warn,
    )


def _predicted(
    arguments: argparse.Namespace, predictor: "Predictor", found: Found
) -> Iterator[Prediction | Unreadable]:
    """Yield the results of all files, and count them for whoever watches."""
    with work("predicting", len(found.files)) as count:
        for each in predictor.stream(
            found.files, top=arguments.top, error_rate=arguments.error_rate
        ):
            count(1)
            yield each


def _say(unreadable: Unreadable) -> None:
    print(f"unreadable: {unreadable.file}: {unreadable.reason}", file=sys.stderr, flush=True)


def _write(
    arguments: argparse.Namespace,
    predictions: list[Prediction],
    unreadable: list[Unreadable],
    source: str,
    error_rate: dict[str, Any] | None,
) -> None:
    """Write the files that the options name."""
    if arguments.json:
        with outputs.writing(arguments.json, "--json"):
            text = document(predictions, unreadable, source, error_rate)
            arguments.json.write_text(text, "utf-8")
    kinds: tuple[Literal["csv", "parquet"], ...] = ("csv", "parquet")
    for name in kinds:
        if path := getattr(arguments, name):
            with outputs.writing(path, f"--{name}"):
                write_table(predictions, path, name)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    result = program.parser(__doc__.splitlines()[0])
    result.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, directories, or patterns such as 'photos/**/*.jpg'",
    )
    result.add_argument(
        "--store", help="a path, file:///… or s3://… (default: SKNET_STORE, or artifacts)"
    )
    result.add_argument("--ref", help=f"the store's ref to the checkpoint (default: {REF})")
    result.add_argument(
        "--ckpt_path", type=Path, help="directory of a checkpoint, or file of weights, instead"
    )
    result.add_argument(
        "--config", "-c", help="recipe of weights without state.json: its name, or a YAML file"
    )
    result.add_argument(
        "--classes", type=Path, help="class names of weights without state.json, one a line"
    )
    result.add_argument(
        "--top",
        type=positive_int,
        default=DEFAULT_TOP,
        help="number of classes of each prediction (default: %(default)s)",
    )
    result.add_argument(
        "--error-rate",
        type=float,
        metavar="FRACTION",
        help="say unsure where more than this fraction of the validation images would be wrong "
        "(default: never)",
    )
    for name, kind in (
        ("json", "JSON document"),
        ("csv", "CSV table"),
        ("parquet", "Parquet table"),
    ):
        result.add_argument(
            f"--{name}", type=Path, metavar="FILE", help=f"write the predictions as a {kind}"
        )
    program.add_device_option(result)
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
