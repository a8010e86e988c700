"""Where the checkpoint of an export is from, and with what its predictions are compared."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sknet.class_names import agreed, agreed_classes
from sknet.errors import UserError
from sknet.planning import open_data
from sknet.prediction.stores import REF, stored_checkpoint
from sknet.recipe import Recipe
from sknet.records.evaluation import PREDICTIONS_FILE, SPLIT, predictions_file
from sknet.records.exported import ExportedModel
from sknet.records.training import MODEL_FILE, weights_file

if TYPE_CHECKING:
    from sknet.data.shards import ShardSet
    from sknet.evaluation.predictions import StoredPredictions
    from sknet.export import Options


@dataclass(frozen=True)
class Origin:
    """What is exported, and what its predictions are compared with."""

    weights: Path
    shards: "Callable[[], ShardSet] | None" = None
    """Returns the data whose validation images the file has to predict, if there is any."""
    classes: tuple[str, ...] | None = None
    """Names of the classes of this data, if they are known before it is read."""
    evaluation: Path | None = None
    """Directory of an evaluation that kept its predictions, if there is one."""
    is_stored: bool = False
    """Whether a store has all of it."""


def find_origin(arguments: "Options", report: Callable[[str], None]) -> Origin:
    """Find what the options name.

    Args:
        arguments: The options.
        report: Called with lines about the data, and about a checkpoint in doubt.

    Raises:
        UserError: It doesn't exist, or two options contradict each other.
    """
    is_unchecked = arguments.format == "AIR"  # nothing here runs it
    if arguments.store is not None or arguments.ckpt_path is None:
        for option in ("data_dir", "evaluation"):
            if getattr(arguments, option) is not None:
                raise UserError(
                    f"--{option} is for a checkpoint in no store: leave it out, or give "
                    "--ckpt_path without --store"
                )
        stored = stored_checkpoint(arguments.store, arguments.ckpt_path or REF)
        if stored.suspect:
            report(f"warning: {stored.name} is marked as suspect: {stored.suspect}")
        if is_unchecked:
            return Origin(stored.directory / MODEL_FILE)
        directory = stored.shards

        def read_stored(path: Path) -> "ShardSet":
            from sknet.data.shards import read_shards

            return read_shards(path, (SPLIT,))

        return Origin(
            stored.directory / MODEL_FILE,
            shards=None if directory is None else lambda: read_stored(directory()),
            evaluation=stored.evaluation,
            is_stored=True,
        )
    if arguments.evaluation is not None and arguments.data_dir is None:
        raise UserError("--evaluation needs --data_dir, the images of its predictions")
    given = Path(arguments.ckpt_path)
    if arguments.ckpt_path == REF and not given.exists():
        raise UserError(f"checkpoint {given} does not exist: a store's ref needs --store")
    weights = weights_file(given)
    data_dir = arguments.data_dir
    if data_dir is None or is_unchecked:
        return Origin(weights)
    classes = open_data(data_dir).classes

    def convert() -> "ShardSet":
        from sknet.data.data_directory import shards_at

        return shards_at(
            data_dir,
            arguments.shards_dir,
            rank=0,
            num_workers=os.cpu_count() or 1,
            splits=(SPLIT,),
            report=report,
        )

    return Origin(weights, convert, classes, arguments.evaluation)


def refuse_other_classes(model: ExportedModel, classes: tuple[str, ...]) -> None:
    """Check that data has the classes of the network, as far as it has names.

    Raises:
        UserError: It has others.
    """
    if model.classes:
        agreed_classes({"the checkpoint": model.classes, "--data_dir": classes})
    else:
        agreed("num_classes", {"the model": model.num_classes, "--data_dir": len(classes)})


def shards_of(origin: Origin, model: ExportedModel) -> "ShardSet | None":
    """Return the data, which has validation images and the classes of the network.

    Raises:
        UserError: It has none or others, or is damaged.
    """
    if origin.shards is None:
        return None
    shards = origin.shards()
    if not shards.num_samples(SPLIT):
        raise UserError(f"the split {SPLIT} has no samples: nothing can be compared")
    refuse_other_classes(model, shards.classes)
    return shards


def kept_predictions(
    origin: Origin, recipe: Recipe | None, model: ExportedModel
) -> "StoredPredictions | None":
    """Return the predictions that an evaluation kept at the file's resolution, if there are any.

    Raises:
        UserError: --evaluation has none.
    """
    if origin.evaluation is None:
        return None
    from sknet.evaluation.predictions import read_predictions

    file = origin.evaluation / (
        predictions_file(recipe, model.crop) if recipe else PREDICTIONS_FILE
    )
    if origin.is_stored and not file.is_file():
        return None  # no evaluation at this resolution
    return read_predictions(file)
