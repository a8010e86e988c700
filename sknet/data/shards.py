"""Shards: a data set as single-shard MindRecord files, written by several processes.

A file's bytes depend on the samples and its place only: the number of workers, the host and the
directory leave no trace. MindRecord has no checksums and drops invalid rows silently, so every
row is counted back and both files of a shard are hashed.
"""

import hashlib
import io
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sknet.data.order import epoch_order
from sknet.data.sources import SPLITS, Sample, open_source
from sknet.data.staging import Staged
from sknet.errors import UserError
from sknet.records import QuarantinedSample, ShardFile, Shards

SCHEMA = {"image": {"type": "bytes"}, "label": {"type": "int32"}, "key": {"type": "string"}}
# MindRecord's defaults make a 50 MB file of a 17 MB payload.
HEADER_BYTES = 1 << 14
PAGE_BYTES = 1 << 20
ROWS_PER_WRITE = 64
# Samples are spread by this fixed permutation, so that a few shards hold all classes.
SPREAD_SEED = 0
MAX_QUARANTINED_SHARE = 0.001


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its name says its place among those of the split."""

    split: str
    name: str
    rows: tuple[Sample, ...]


def plan_shards(staged: Staged, num_shards: int) -> list[ShardPlan]:
    """At most `num_shards` shards of each split, equal in length but for one sample."""
    plans = []
    for split in SPLITS:
        part = staged.index[staged.index["split"] == split]
        rows = [Sample(*row) for row in part.itertuples(index=False, name=None)]
        spread = [rows[i] for i in epoch_order(len(rows), SPREAD_SEED, 0)]
        count = min(num_shards, len(rows))
        bounds = [len(rows) * i // count for i in range(count + 1)]
        plans += [
            ShardPlan(split, f"{split}-{i:05}-of-{count:05}.mindrecord", tuple(spread[a:b]))
            for i, (a, b) in enumerate(itertools.pairwise(bounds))
        ]
    return plans


def write_shards(
    staged: Staged,
    source: str,
    directory: Path,
    *,
    num_shards: int,
    num_workers: int,
    on_progress: Callable[[int, int], None],
) -> Shards:
    """Write all shards and, last, shards.json into `directory`.

    Samples that don't decode are left out and listed. `on_progress` gets samples done and in all.
    Raises UserError if the source changed since staging, or if too many samples don't decode.
    """
    for old in directory.glob("*.mindrecord*"):
        old.unlink()
    plans = plan_shards(staged, num_shards)
    total = len(staged.index)
    done = 0
    files: dict[str, ShardFile] = {}
    quarantined: list[QuarantinedSample] = []
    # MindSpore's threads don't survive a fork.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(write_shard, plan, source, directory): plan for plan in plans}
        for future in as_completed(futures):
            plan = futures[future]
            files[plan.name], left_out = future.result()
            quarantined += left_out
            done += len(plan.rows)
            on_progress(done, total)
    if len(quarantined) > total * MAX_QUARANTINED_SHARE:
        first = min(quarantined, key=lambda sample: sample.key)
        raise UserError(
            f"{len(quarantined)} of {total} samples don't decode, more than "
            f"{MAX_QUARANTINED_SHARE:.1%}; the first is {first.key}: {first.reason}"
        )
    shards = Shards(
        dataset=staged.dataset,
        files=tuple(files[plan.name] for plan in plans),
        quarantined=tuple(sorted(quarantined, key=lambda sample: (sample.split, sample.key))),
    )
    shards.write(directory / "shards.json")
    return shards


def write_shard(
    plan: ShardPlan, source: str, directory: Path
) -> tuple[ShardFile, list[QuarantinedSample]]:
    """Write one shard and count its rows back."""
    from mindspore.mindrecord import FileWriter

    quarantined: list[QuarantinedSample] = []
    path = directory / plan.name
    writer = FileWriter(str(path), shard_num=1)
    writer.set_header_size(HEADER_BYTES)
    writer.set_page_size(PAGE_BYTES)
    writer.add_schema(SCHEMA, "sknet image classification")
    rows = _readable_rows(plan, source, quarantined)
    written = 0
    while block := list(itertools.islice(rows, ROWS_PER_WRITE)):
        writer.write_raw_data(block)
        written += len(block)
    writer.commit()
    if (counted := count_rows(path)) != written:
        raise RuntimeError(f"{plan.name} holds {counted} rows, {written} were written")
    index = path.with_name(f"{path.name}.db")
    file = ShardFile(
        split=plan.split,
        name=plan.name,
        num_samples=written,
        size=path.stat().st_size,
        sha256=file_sha256(path),
        index_size=index.stat().st_size,
        index_sha256=file_sha256(index),
    )
    return file, quarantined


def _readable_rows(
    plan: ShardPlan, source: str, quarantined: list[QuarantinedSample]
) -> Iterator[dict[str, object]]:
    opened = open_source(source)
    for row in plan.rows:
        try:
            content = opened.read(row)
        except OSError as error:
            raise UserError(f"sample {row.key} can't be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise UserError(
                f"sample {row.key} changed while the pipeline ran: start again to read it anew"
            )
        if reason := undecodable(content):
            quarantined.append(QuarantinedSample(split=plan.split, key=row.key, reason=reason))
        else:
            yield {"image": content, "label": row.label, "key": row.key}


def undecodable(content: bytes) -> str | None:
    """Why an image doesn't decode in full, or None if it does."""
    try:
        with warnings.catch_warnings():
            # A decompression bomb warns before it raises; both are refused.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
                image.load()
    except UnidentifiedImageError:
        # Pillow's own message holds an address, which differs from run to run.
        return "UnidentifiedImageError: not a JPEG, PNG or BMP image"
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds for bad bytes)
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def count_rows(path: Path) -> int:
    """Rows of one shard, as MindRecord counts them."""
    from mindspore.mindrecord import FileReader

    reader = FileReader([str(path)])
    try:
        return int(reader.len())
    finally:
        reader.close()


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_shards(directory: Path, splits: Sequence[str] = SPLITS) -> Shards:
    """The record of a directory of shards, its files verified by size and SHA-256.

    A damaged index would crash MindSpore and damaged data would be read without a word, so
    nothing is opened before this. Raises UserError naming the first file that doesn't fit.
    """
    shards = Shards.read(directory / "shards.json")
    for file in shards.files:
        if file.split not in splits:
            continue
        for name, sha256 in ((file.name, file.sha256), (file.index_name, file.index_sha256)):
            path = directory / name
            if not path.is_file():
                raise UserError(f"shard {path} is missing: convert the data again")
            if file_sha256(path) != sha256:
                raise UserError(f"shard {path} is damaged (SHA-256 differs): convert it again")
    return shards


class ProgressLine:
    """Prints a line of conversion progress at most every two seconds, and at the end."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Samples done and in all."""
        elapsed = time.monotonic() - self._start
        if done < total and elapsed - self._last < 2:
            return
        self._last = elapsed
        rate = done / max(elapsed, 1e-9)
        print(f"converted {done}/{total} images, {rate:.0f} images/s", flush=True)
