"""Peak memory of parent and worker of a conversion of tiny images that are not files."""

import hashlib
import io
import multiprocessing
import multiprocessing.connection
import resource
from pathlib import Path

import pandas as pd
from PIL import Image

import sknet.data.conversion.converter
from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.plan import plan_shards, shard_counts
from sknet.data.sources import Sample
from sknet.data.staging import Staged
from sknet.records import Dataset
from tests.sknet.conversions import in_this_process


def measure_memory(count: int, folder: Path) -> None:
    """Measure the peak memory of parent and worker, each in its own process."""
    context = multiprocessing.get_context("spawn")
    for side in (parent_side, worker_side):
        ours, theirs = context.Pipe()
        process = context.Process(target=side, args=(theirs, count, folder))
        process.start()
        print(f"{count} images, {side.__name__.replace('_', ' ')}: {ours.recv()}")
        process.join()


def parent_side(pipe: multiprocessing.connection.Connection, count: int, folder: Path) -> None:
    """Do the parent's work: hold the index, and plan one shard after the other."""
    staged = Generated().staged(count)
    held = peak_mib()
    counts = shard_counts(staged, max(1, count // 2500))
    for plan in plan_shards(staged, counts):
        len(plan.rows)
    index = int(staged.index.memory_usage(deep=True).sum()) / 2**20
    pipe.send(f"peak {peak_mib():.0f} MiB (index made: {held:.0f}, its columns {index:.0f})")


def worker_side(pipe: multiprocessing.connection.Connection, count: int, folder: Path) -> None:
    """Do the workers' work: convert all shards in this process."""
    warm_up()
    sknet.data.conversion.converter.open_source = generated
    staged = Generated().staged(count)
    before = peak_mib()
    (folder / "out").mkdir()
    num_shards = max(1, count // 2500)
    write_shards(
        staged, "generated", folder / "out", num_shards=num_shards, parallel_map=in_this_process
    )
    pipe.send(f"peak {peak_mib():.0f} MiB (with the index, before: {before:.0f})")


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

    def staged(self, count: int) -> Staged:
        """Return the staged source."""
        sha256 = hashlib.sha256(self.content).hexdigest()
        index = pd.DataFrame({"key": [f"train/one/{number:07}.jpg" for number in range(count)]})
        index = index.assign(split="train", label=0, size=len(self.content), sha256=sha256)
        index = index.assign(file=index["key"], offset=0)
        dataset = Dataset(
            source=self.kind,
            classes=self.classes,
            titles=self.classes,
            splits={"train": count, "val": 0},
            samples_digest="0" * 64,
            index_sha256="0" * 64,
            quarantined=(),
        )
        return Staged(dataset, index)


def generated(source: str) -> Generated:
    """Return the source; replaces `open_source`."""
    return Generated()


def peak_mib() -> float:
    """Return the peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
