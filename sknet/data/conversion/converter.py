"""The conversion of one shard, in any process of any host."""

import hashlib
import io
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self

from PIL import Image

from infra.base.shortages import disk_full, memory_for, memory_refused
from sknet.data.conversion.directory import ShardRecord
from sknet.data.conversion.outputs import ShardOutput
from sknet.data.conversion.plan import ShardPlan
from sknet.data.conversion.progress import Tally
from sknet.data.images import FORMATS, decode, undecodable
from sknet.data.index import INDEX_COLUMNS
from sknet.data.shards import Row, write_shard
from sknet.data.sources import Sample, Source, open_source
from sknet.data.sources.trees import lasting_fault
from sknet.errors import UserError
from sknet.records import QuarantinedSample, Reencoding

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_QUALITY = 92
"""Quality of re-encoded JPEGs, on libjpeg's scale."""

MAX_JPEG_SIDE = 65_500
"""Longest side of a JPEG in pixels, as libjpeg limits it."""

ROWS_PER_BLOCK = 1024

MEMORY_OPTIONS = ["the number of workers"]
"""What the user can lower so that a conversion needs less memory."""

NUM_READS = 2
"""How often a sample is read before it counts as changed. A range of an S3 object has no checksum
that would reveal an error of the network."""


@dataclass(frozen=True)
class ConvertedShard:
    """A finished shard, as its process reports it."""

    record: ShardRecord
    source_bytes: int
    """Bytes of the source's images."""
    num_images: int
    """Number of images, quarantined ones included."""
    reused: bool
    """Whether an earlier attempt had finished it."""

    @classmethod
    def of(cls, shard: ShardPlan, record: ShardRecord, *, reused: bool) -> Self:
        """Return the finished shard of a plan."""
        return cls(record, shard.source_bytes, len(shard.rows), reused)


@dataclass(frozen=True)
class ShardConverter:
    """What a process needs to convert any shard of a plan. It is called with the shard."""

    source: str
    output: ShardOutput
    plan: str
    """Digest of the plan."""
    reencoding: Reencoding | None

    def __call__(self, shard: ShardPlan) -> ConvertedShard:
        """Convert a shard, unless it is finished.

        Raises:
            UserError: A sample changed or can't be read, or this host can't take part.
            DiskFullError: The disk is full.
            MemoryRefusedError: This process was refused memory.
            OSError: A source or a store can't be read or written at the moment.
        """
        if record := self.output.finished(shard.name):
            return ConvertedShard.of(shard, record, reused=True)
        try:
            with self.output.building(shard.name) as building:
                record = self._write(shard, building)
                self.output.publish(record, building)
        except (MemoryError, OSError, RuntimeError) as error:
            shortage = (
                memory_refused(error, options=MEMORY_OPTIONS)
                if isinstance(error, MemoryError)
                else disk_full(error, f"shard {shard.name}", shard.source_bytes, self.output.disk)
            )
            if shortage is None:
                raise
            raise shortage from None
        return ConvertedShard.of(shard, record, reused=False)

    def _write(self, shard: ShardPlan, building: Path) -> ShardRecord:
        quarantined: list[QuarantinedSample] = []
        rows = self._rows(shard, quarantined, Tally(building / "tally"))
        file = write_shard(building / shard.name, shard.split, rows, shard.sizes)
        return ShardRecord(plan=self.plan, file=file, quarantined=tuple(quarantined))

    def _rows(
        self, shard: ShardPlan, quarantined: list[QuarantinedSample], tally: Tally
    ) -> Iterator[Row]:
        """Yield the samples that decode; append the others to `quarantined`."""
        try:
            source = open_source(self.source)
        except UserError as error:
            raise UserError(f"on host {socket.gethostname()}: {error}") from None
        for sample in _samples(shard.rows):
            with memory_for(f"sample {sample.key}", MEMORY_OPTIONS):
                content = read_sample(source, sample)
                reason = undecodable(content)
                image = content
                if self.reencoding and not reason:
                    image = reencode(content, self.reencoding)
            if reason:
                quarantined.append(
                    QuarantinedSample(split=shard.split, key=sample.key, reason=reason)
                )
            elif len(image) >= shard.sizes.page_bytes:
                raise UserError(
                    f"sample {sample.key} takes {len(image)} bytes when re-encoded, "
                    f"expected fewer than {shard.sizes.page_bytes}: lower --quality"
                )
            else:
                yield Row(image, sample.label, sample.key)
            tally.add(len(content))


def _samples(rows: "pd.DataFrame") -> Iterator[Sample]:
    """Yield the samples of an index, block by block: as objects, a million rows take a gigabyte."""
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = rows.iloc[start : start + ROWS_PER_BLOCK]
        columns = (block[name].tolist() for name in INDEX_COLUMNS)
        yield from itertools.starmap(Sample, zip(*columns, strict=True))


def read_sample(source: Source, sample: Sample) -> bytes:
    """Return the image of a sample.

    Raises:
        UserError: It can't be read, or is not the one that was staged.
        SourceReadError: The disk or the network failed.
    """
    for _ in range(NUM_READS):
        try:
            content = source.read(sample)
        except OSError as error:
            reason = lasting_fault(error, f"sample {sample.key}")
            raise UserError(f"sample {sample.key} can't be read: {reason}") from None
        if hashlib.sha256(content).hexdigest() == sample.sha256:
            return content
    raise UserError(
        f"sample {sample.key} changed since it was staged: start again, with --full if its time "
        "stamp didn't change"
    )


def reencoding_to(shorter_side: int, quality: int) -> Reencoding:
    """Return the settings of a re-encoding, with the version of Pillow that is installed here."""
    return Reencoding(shorter_side=shorter_side, quality=quality, pillow=version("pillow"))


def reencode(content: bytes, settings: Reencoding) -> bytes:
    """Return an image as it is stored.

    An image whose shorter side exceeds the limit is resized to it (bicubic with antialiasing,
    aspect ratio unchanged) and becomes an RGB JPEG with 4:2:0 chroma. Others keep their bytes, and
    so do strips that would be too long for a JPEG.

    Args:
        content: An encoded image that decodes.
        settings: The limit in pixels, and the quality.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
    shorter = min(width, height)
    size = (
        round(width * settings.shorter_side / shorter),
        round(height * settings.shorter_side / shorter),
    )
    if shorter <= settings.shorter_side or max(size) > MAX_JPEG_SIDE:
        return content
    resized = Image.fromarray(decode(content)).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=settings.quality, subsampling="4:2:0")
    return buffer.getvalue()
