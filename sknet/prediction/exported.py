"""Exported ONNX files and their records, from which predictions are made without a checkpoint."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from infra.base.files import file_sha256
from sknet.errors import UserError
from sknet.evaluation.predictions import Floats, Forward, in_batch
from sknet.records.exported import ExportedFile, record_of


def read_exported(file: Path) -> ExportedFile:
    """Return the record beside an exported file, which is that of this file.

    Raises:
        UserError: One of the two is missing or damaged, or they don't belong together.
    """
    record_file = record_of(file)
    for each, what in ((file, "exported file"), (record_file, "record of an exported file")):
        if not each.is_file():
            raise UserError(
                f"{what} {each} does not exist: expected FILE.onnx and FILE.onnx.json, as "
                "`sknet export` writes them"
            )
    record = ExportedFile.read(record_file)
    if record.format != "ONNX":
        raise UserError(f"{file} is exported as {record.format}, expected ONNX")
    if file_sha256(file) != record.sha256:
        raise UserError(f"{file} is not the file that {record_file} describes: export it again")
    return record


def classes_of(record: ExportedFile, file: Path, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes in the order of the logits.

    Args:
        record: The file's record.
        file: The file, for messages.
        given: Names to use if the record has none.

    Raises:
        UserError: There are none, or another number than the file has classes.
    """
    if record.classes is not None and given is not None and tuple(given) != record.classes:
        raise UserError(f"other classes are named than those of {file}: leave --classes out")
    names = record.classes or given
    if names is None:
        raise UserError(f"{file} comes without names of its classes: give --classes")
    if len(names) != record.num_classes:
        raise UserError(f"{len(names)} classes are named, but {file} has {record.num_classes}")
    return tuple(names)


def forward_of(file: Path, record: ExportedFile) -> Forward:
    """Return what an ONNX file computes of any number of images.

    Raises:
        UserError: onnxruntime isn't installed, or refuses the file.
    """
    if not find_spec("onnxruntime"):
        raise UserError("--onnx needs the package onnxruntime: pip install 'sknet[export]'")
    from sknet.models.formats import loaded

    try:
        run = loaded(file)
    except Exception as error:  # noqa: BLE001 (onnxruntime's errors have no class in common)
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} can't be run by onnxruntime: {reason}") from None
    if run is None:
        raise UserError(f"--onnx is {file}, expected a name ending in .onnx")
    size = record.input_shape[0]

    def forward(images: Floats) -> Floats:
        if size is None:
            return run(images)
        firsts = range(0, len(images), size)
        parts = [in_batch(run, images[first : first + size], size) for first in firsts]
        return np.concatenate(parts)

    return forward
