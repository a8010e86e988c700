"""Peak memory of parent and worker of a conversion of tiny images that are not files."""

import hashlib
import io
import multiprocessing
import multiprocessing.connection
import resource
import time
from pathlib import Path

import pandas as pd
from PIL import Image

import sknet.data.conversion.converter
from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.plan import plan_shards, shard_counts
from sknet.data.index import INDEX_COLUMNS, open_staged, rows_digest
from sknet.data.sources import Sample
from sknet.data.staging import Staged
from sknet.records import Dataset
from sknet.records.data import INDEX_FILE
from tests.sknet.conversions import in_this_process

ROWS_PER_SHARD = 2500


def measure_memory(count: int, folder: Path) -> None:
    """Measure the peak memory of parent and worker, each in its own process."""
    context = multiprocessing.get_context("spawn")
    for side in (stored_index, parent_side, worker_side):
        ours, theirs = context.Pipe()
        process = context.Process(target=side, args=(theirs, count, folder))
        process.start()
        print(f"{count} images, {side.__name__.replace('_', ' ')}: {ours.recv()}", flush=True)
        process.join()


def stored_index(pipe: multiprocessing.connection.Connection, count: int, folder: Path) -> None:
    """Write the indexes, as staging does: that of the worker has images that can be read."""
    for name, is_read in (("of worker", True), ("of parent", False)):
        staged = Generated().staged(count, is_read=is_read)
        (folder / name).mkdir()
        staged.write(folder / name)
    columns = int(staged.index.memory_usage(deep=True).sum()) / 2**20
    size = (folder / "of parent" / INDEX_FILE).stat().st_size / 2**20
    pipe.send(f"{size:.0f} MiB (its columns in memory {columns:.0f})")


def parent_side(pipe: multiprocessing.connection.Connection, count: int, folder: Path) -> None:
    """Do the parent's work: read the index, and plan one shard after the other."""
    import pyarrow.parquet  # noqa: F401 (imported for its memory)

    before, began = peak_mib(), time.monotonic()
    index = open_staged(folder / "of parent")
    counts = shard_counts(index, max(1, count // ROWS_PER_SHARD))
    for plan in plan_shards(index, counts, folder):
        len(plan.rows)
    seconds = time.monotonic() - began
    pipe.send(f"peak {peak_mib():.0f} MiB (before: {before:.0f}) in {seconds:.0f} s")


def worker_side(pipe: multiprocessing.connection.Connection, count: int, folder: Path) -> None:
    """Do the workers' work: convert all shards in this process."""
    warm_up()
    sknet.data.conversion.converter.open_source = generated
    index = open_staged(folder / "of worker")
    before = peak_mib()
    (folder / "out").mkdir()
    num_shards = max(1, count // ROWS_PER_SHARD)
    write_shards(
        index, "generated", folder / "out", num_shards=num_shards, parallel_map=in_this_process
    )
    pipe.send(f"peak {peak_mib():.0f} MiB (before: {before:.0f})")


def warm_up() -> None:
    """Import what a worker imports at its first shard."""
    import mindspore.dataset
    import mindspore.mindrecord  # noqa: F401 (imported for its time)


class Generated:
    """A source of identical tiny JPEGs, which are not files."""

    kind = "generated"
    classes = ("one",)

    def __init__(self) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG")
        self.content = buffer.getvalue()

    def read(self, sample: Sample) -> bytes:
        del sample
        return self.content

    def staged(self, count: int, *, is_read: bool = True) -> Staged:
        """Return the staged source; if it is not to be read, with other SHA-256s, all different."""
        contents = [self.content] if is_read else (str(number).encode() for number in range(count))
        sha256 = [hashlib.sha256(content).hexdigest() for content in contents]
        sha256 *= count // len(sha256)
        index = pd.DataFrame({"key": [f"train/one/{number:07}.jpg" for number in range(count)]})
        index = index.assign(split="train", label=0, size=len(self.content), sha256=sha256)
        index = index.assign(file=index["key"], offset=0)[INDEX_COLUMNS]
        dataset = Dataset(
            source=self.kind,
            classes=self.classes,
            titles=self.classes,
            splits={"train": count, "val": 0},
            samples_digest="0" * 64,
            index_sha256=rows_digest(index.itertuples(index=False, name=None)),
            quarantined=(),
        )
        return Staged(dataset, index)


def generated(source: str) -> Generated:
    """Return the source; replaces `open_source`."""
    return Generated()


def peak_mib() -> float:
    """Return the peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
