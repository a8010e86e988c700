"""The development kit of ILSVRC2012: which synsets there are, and the labels of the val images."""

import gzip
import io
import re
import tarfile
import zlib
from dataclasses import dataclass

import numpy as np
from scipy.io import loadmat

from sknet.errors import UserError

FOLDER = "ILSVRC2012_devkit_t12/data"
META = f"{FOLDER}/meta.mat"
TRUTH = f"{FOLDER}/ILSVRC2012_validation_ground_truth.txt"
MAX_UNPACKED_BYTES = 1 << 27
SYNSET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Devkit:
    """Synsets sorted by WordNet ID, and by this order the label of each validation image."""

    synsets: tuple[str, ...]
    words: tuple[str, ...]
    """Of each synset: its synonyms."""
    validation_labels: tuple[int, ...]
    """Of ILSVRC2012_val_00000001.JPEG and on."""


def parse_devkit(content: bytes, where: str) -> Devkit:
    """Read the packed kit. Raises UserError if it has not its form."""
    meta, truth = _unpack(content, where)
    by_id = _leaf_synsets(meta, where)
    order = sorted(by_id.values())
    labels = {synset: label for label, (synset, _) in enumerate(order)}
    validation = []
    for number, line in enumerate(truth.split(), 1):
        synset, _ = by_id.get(int(line) if line.isdigit() else -1, ("", ""))
        if synset not in labels:
            raise UserError(
                f"{where}: {TRUTH} line {number} is {line[:20]!r}, which is no class of meta.mat"
            )
        validation.append(labels[synset])
    return Devkit(
        tuple(synset for synset, _ in order),
        tuple(words for _, words in order),
        tuple(validation),
    )


def _unpack(content: bytes, where: str) -> tuple[bytes, str]:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            unpacked = packed.read(MAX_UNPACKED_BYTES + 1)
        if len(unpacked) > MAX_UNPACKED_BYTES:
            raise UserError(f"{where} unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            parts = []
            for name in (META, TRUTH):
                member = tar.getmember(name)
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise UserError(f"{where}: {name} is no plain file")
                parts.append(file.read())
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is no ILSVRC2012 devkit: {reason}") from None
    return parts[0], parts[1].decode("ascii", "replace")


def _leaf_synsets(meta: bytes, where: str) -> dict[int, tuple[str, str]]:
    """(WordNet ID, words) of the classes by their number in the ground truth."""
    try:
        table = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        rows = [
            (int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"]))
            for row in table
            if int(row["num_children"]) == 0
        ]
    except Exception as error:  # noqa: BLE001 (scipy raises what its parser meets, as it comes)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: meta.mat can't be read: {reason}") from None
    by_id = {number: (synset, words) for number, synset, words in rows}
    if len({synset for synset, _ in by_id.values()}) != len(rows) or not rows:
        raise UserError(f"{where}: meta.mat names {len(rows)} classes, some of them twice or none")
    for synset, _ in by_id.values():
        if not SYNSET.fullmatch(synset):
            raise UserError(f"{where}: meta.mat has the WordNet ID {synset[:20]!r}")
    return by_id
