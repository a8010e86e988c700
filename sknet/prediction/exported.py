"""Exported ONNX files and their records, from which predictions are made without a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from infra.base.files import file_sha256, is_file
from sknet.class_names import agreed_classes
from sknet.errors import UserError
from sknet.evaluation.predictions import Floats, Forward, in_batch
from sknet.records.exported import ExportedFile, record_of


@dataclass(frozen=True)
class Exported:
    """An exported ONNX file, and what its record says of it."""

    file: Path
    record: ExportedFile


def read_exported(file: Path) -> Exported:
    """Return an exported file with its record, which is that of this file.

    Raises:
        UserError: onnxruntime isn't installed, one of the two is missing or damaged, or they don't
            belong together.
    """
    if file.suffix != ".onnx":
        raise UserError(f"--onnx is {file}, expected a name ending in .onnx")
    if not find_spec("onnxruntime"):
        raise UserError("--onnx needs the package onnxruntime: pip install 'sknet[export]'")
    record_file = record_of(file)
    for each, what in ((file, "exported file"), (record_file, "record of an exported file")):
        if not is_file(each):
            raise UserError(
                f"{what} {each} does not exist: expected FILE.onnx and FILE.onnx.json, as "
                "`sknet export` writes them"
            )
    record = ExportedFile.read(record_file)
    if record.format != "ONNX":
        raise UserError(f"{file} is exported as {record.format}, expected ONNX")
    try:
        sha256 = file_sha256(file)
    except OSError as error:
        raise UserError(f"exported file {file} can't be read: {error.strerror}") from None
    if sha256 != record.sha256:
        raise UserError(f"{file} is not the file that {record_file} describes: export it again")
    return Exported(file, record)


def classes_of(exported: Exported, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes in the order of the logits.

    Args:
        exported: The file.
        given: Names to use if its record has none.

    Raises:
        UserError: There are none, others than the record's, or another number than the file has
            classes.
    """
    file, record = exported.file, exported.record
    if record.classes is not None and given is not None:
        agreed_classes({record_of(file).name: record.classes, "--classes": tuple(given)})
    names = record.classes or given
    if names is None:
        raise UserError(f"{file} comes without names of its classes: give --classes")
    if len(names) != record.num_classes:
        raise UserError(f"{len(names)} classes are named, but {file} has {record.num_classes}")
    return tuple(names)


def forward_of(exported: Exported) -> Forward:
    """Return what an ONNX file computes of any number of images.

    Raises:
        UserError: onnxruntime refuses the file.
    """
    from sknet.models.formats import load_onnx

    try:
        run = load_onnx(exported.file)
    except Exception as error:  # noqa: BLE001 (onnxruntime's errors have no class in common)
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{exported.file} can't be run by onnxruntime: {reason}") from None
    size = exported.record.input_shape[0]

    def forward(images: Floats) -> Floats:
        if size is None:
            return run(images)
        firsts = range(0, len(images), size)
        parts = [in_batch(run, images[first : first + size], size) for first in firsts]
        return np.concatenate(parts)

    return forward
