"""ILSVRC2012 as it is distributed: three archives, read in place and never unpacked.

    ILSVRC2012_img_train.tar        a tar for each class: n01440764.tar with n01440764_10026.JPEG …
    ILSVRC2012_img_val.tar          ILSVRC2012_val_00000001.JPEG …
    ILSVRC2012_devkit_t12.tar.gz    the labels of the validation images; the synsets and their words

The MD5 of each must be the published one, or the one that a file MD5SUMS beside them gives. Classes
are the synsets sorted by WordNet ID, as in every published set of weights.
"""

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from sknet.data.sources.mat import read_table as read_mat_table
from sknet.data.sources.source import (
    Assignment,
    GivenSplits,
    Sample,
    ScannedImage,
    read_table,
    required_file,
)
from sknet.data.sources.tars import ForwardReader, scan_tar
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"

# Published at https://image-net.org/challenges/LSVRC/2012/2012-downloads.php
PUBLISHED_MD5 = {
    TRAIN: "1d675b47d978889d74fa0da5fadfb00e",
    VAL: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT: "fa75699e90414af021442c21a62c3abf",
}

META = "ILSVRC2012_devkit_t12/data/meta.mat"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"

MAX_DEVKIT_BYTES = 1 << 26
MAX_UNPACKED_DEVKIT_BYTES = 1 << 27
MAX_MD5SUMS_BYTES = 1 << 16

SYNSET = re.compile(r"n\d{8}")
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


class IlsvrcArchives(GivenSplits):
    """The three archives in one directory."""

    kind = "ilsvrc2012"

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.location = tree.location
        present = set(tree.children("").files)
        for name in PUBLISHED_MD5:
            if name not in present:
                raise UserError(
                    f"data directory {tree.location} has no {name}: expected all of "
                    f"{', '.join(PUBLISHED_MD5)}"
                )
        self._md5 = PUBLISHED_MD5 | (self._md5sums() if "MD5SUMS" in present else {})

    @property
    def classes(self) -> tuple[str, ...]:
        """WordNet IDs by label, sorted."""
        return self._devkit.synsets

    @property
    def titles(self) -> tuple[str, ...]:
        """Words of the synsets by label."""
        return self._devkit.words

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the two archives of images, after the devkit has been checked."""
        _ = self._devkit
        for name in (TRAIN, VAL):
            yield required_file(self._tree, name)

    def scan(self, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
        """Yield the images of an archive, and check its MD5 at the end.

        Raises:
            OSError: The archive can't be read.
            UserError: The archive is damaged, or is another one than was published.
        """
        with self._tree.open(file.path) as archive:
            reader = ForwardReader(archive)
            depth = 2 if file.path == TRAIN else 1
            yield from scan_tar(reader, f"{self.location}/{file.path}", depth=depth)
        self._check_md5(file.path, reader.md5.hexdigest())

    def assign(self, file: str, name: str) -> Assignment | Skipped:
        """Return which sample an image is, with the key that unpacked archives give it.

        A key is train/<synset>/<image> or val/<synset>/<image>.
        """
        base = PurePosixPath(name).name
        if file == TRAIN:
            synset = PurePosixPath(name).parts[0].removesuffix(".tar")
            if synset not in self._labels:
                return Skipped(name, f"class {synset} is not in the devkit")
            return Assignment("train", f"train/{synset}/{base}", self._labels[synset])
        match = VAL_NAME.fullmatch(base)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(self._devkit.validation_labels):
            return Skipped(name, "the devkit has no label for this name")
        label = self._devkit.validation_labels[number - 1]
        return Assignment("val", f"val/{self.classes[label]}/{base}", label)

    def read(self, sample: Sample) -> bytes:
        """Return the sample's bytes of the archive."""
        return self._tree.read(sample.file, sample.offset, sample.size)

    @cached_property
    def _devkit(self) -> "Devkit":
        content = read_table(self._tree, DEVKIT, MAX_DEVKIT_BYTES)
        self._check_md5(DEVKIT, hashlib.md5(content, usedforsecurity=False).hexdigest())
        return parse_devkit(content, f"{self.location}/{DEVKIT}")

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {synset: label for label, synset in enumerate(self.classes)}

    def _check_md5(self, name: str, found: str) -> None:
        if found != self._md5[name]:
            raise UserError(
                f"archive {self.location}/{name} has MD5 {found}, expected {self._md5[name]}: "
                "download it again, or give its MD5 in a file MD5SUMS beside it"
            )

    def _md5sums(self) -> dict[str, str]:
        text = read_table(self._tree, "MD5SUMS", MAX_MD5SUMS_BYTES).decode("utf-8", "replace")
        sums = {}
        for number, line in enumerate(text.splitlines(), 1):
            match = re.fullmatch(r"([0-9a-f]{32}) [ *](\S+)", line)
            if not match:
                raise UserError(
                    f"{self.location}/MD5SUMS line {number} is {line[:80]!r}: expected lines as "
                    "md5sum prints them"
                )
            sums[match[2]] = match[1]
        return sums


@dataclass(frozen=True)
class Devkit:
    """What the development kit says about the images. Labels count sorted WordNet IDs."""

    synsets: tuple[str, ...]
    """WordNet IDs by label."""
    words: tuple[str, ...]
    """Synonyms of each synset by label, as one text."""
    validation_labels: tuple[int, ...]
    """Labels of ILSVRC2012_val_00000001.JPEG, …2.JPEG and so on."""


def parse_devkit(content: bytes, where: str) -> Devkit:
    """Parse the packed devkit.

    Args:
        content: The gzipped archive.
        where: Its path, for messages.

    Raises:
        UserError: The content is not the devkit of ILSVRC2012.
    """
    meta, truth = _unpack(content, where)
    by_id = _leaf_synsets(meta, where)
    order = sorted(by_id.values())
    labels = {synset: label for label, (synset, _) in enumerate(order)}
    validation = []
    for number, line in enumerate(truth.split(), 1):
        synset, _ = by_id.get(int(line) if line.isdigit() else -1, ("", ""))
        if synset not in labels:
            raise UserError(
                f"{where}: {TRUTH} line {number} is {line[:20]!r}, which is not a class of meta.mat"
            )
        validation.append(labels[synset])
    return Devkit(
        tuple(synset for synset, _ in order),
        tuple(words for _, words in order),
        tuple(validation),
    )


def _unpack(content: bytes, where: str) -> tuple[bytes, str]:
    """Return meta.mat and the text of the ground truth."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            unpacked = packed.read(MAX_UNPACKED_DEVKIT_BYTES + 1)
        if len(unpacked) > MAX_UNPACKED_DEVKIT_BYTES:
            raise UserError(f"{where} unpacks to more than {MAX_UNPACKED_DEVKIT_BYTES} bytes")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            parts = []
            for name in (META, TRUTH):
                member = tar.getmember(name)
                # A sparse member would be filled up with zeros to whatever size it claims.
                file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if file is None:
                    raise UserError(f"{where}: {name} is not a regular file")
                parts.append(file.read())
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is not an ILSVRC2012 devkit: {reason}") from None
    return parts[0], parts[1].decode("ascii", "replace")


def _leaf_synsets(meta: bytes, where: str) -> dict[int, tuple[str, str]]:
    """Return (WordNet ID, words) of the classes by their number in the ground truth."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    try:
        rows = [
            (int(number), str(synset), str(words))
            for number, synset, words, num_children in read_mat_table(meta, "synsets", fields)
            if not num_children
        ]
    except (ValueError, OverflowError) as error:  # a number may be infinite
        raise UserError(f"{where}: meta.mat can't be read: {error}") from None
    by_id = {number: (synset, words) for number, synset, words in rows}
    if len({synset for synset, _ in by_id.values()}) != len(rows) or not rows:
        raise UserError(
            f"{where}: meta.mat has {len(rows)} classes, expected at least one and no duplicates"
        )
    for synset, _ in by_id.values():
        if not SYNSET.fullmatch(synset):
            raise UserError(f"{where}: meta.mat has the WordNet ID {synset[:20]!r}")
    return by_id
