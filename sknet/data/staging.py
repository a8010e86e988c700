"""Staging: what a source holds, as a record and a file index, read and hashed once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sknet.data.sources import SPLITS, Source
from sknet.errors import UserError
from sknet.records import Dataset

INDEX_COLUMNS = ["split", "key", "label", "size", "sha256"]


@dataclass(frozen=True)
class Staged:
    """A data set and the index of its samples: one row each, with INDEX_COLUMNS."""

    dataset: Dataset
    index: pd.DataFrame

    def write(self, directory: Path) -> None:
        """As dataset.json and samples.parquet."""
        self.dataset.write(directory / "dataset.json")
        self.index.to_parquet(directory / "samples.parquet", index=False)


def stage(source: Source) -> Staged:
    """Read every sample once. Raises UserError where the source has not its documented form."""
    rows = []
    for sample in source.samples():
        try:
            content = source.read(sample.key)
        except OSError as error:
            raise UserError(f"sample {sample.key} can't be read: {error.strerror}") from None
        digest = hashlib.sha256(content).hexdigest()
        rows.append((sample.split, sample.key, sample.label, len(content), digest))
    index = pd.DataFrame(rows, columns=INDEX_COLUMNS)
    counts = index["split"].value_counts()
    return Staged(
        Dataset(
            source=source.kind,
            classes=source.classes,
            splits={split: int(counts.get(split, 0)) for split in SPLITS},
            samples_digest=_samples_digest(rows),
        ),
        index,
    )


def read_staged(directory: Path) -> Staged:
    """What `Staged.write` wrote. Raises UserError if index and record don't agree."""
    dataset = Dataset.read(directory / "dataset.json")
    try:
        index = pd.read_parquet(directory / "samples.parquet", columns=INDEX_COLUMNS)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{directory / 'samples.parquet'} can't be read: {reason}") from None
    rows = list(index.itertuples(index=False, name=None))
    if _samples_digest(rows) != dataset.samples_digest:
        raise UserError(f"{directory / 'samples.parquet'} does not belong to its dataset.json")
    return Staged(dataset, index)


def _samples_digest(rows: "list[tuple[str, str, int, int, str]]") -> str:
    hasher = hashlib.sha256()
    for split, key, label, size, digest in rows:
        hasher.update(f"{split}\0{key}\0{label}\0{size}\0{digest}\n".encode())
    return hasher.hexdigest()
