"""One shard of a conversion, as any process of any host makes it."""

import hashlib
import io
import itertools
import shutil
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from infra.base.shortages import disk_full, memory_refused
from sknet.data.conversion.directory import PLAN_FILE, WORK, ShardRecord, sync, write_durably
from sknet.data.conversion.plan import ShardPlan
from sknet.data.conversion.progress import Tally
from sknet.data.images import undecodable
from sknet.data.shards import Layout, Row, is_sound, layout_for, write_shard
from sknet.data.sources import Sample, Source, open_source
from sknet.data.sources.trees import lasting_fault
from sknet.data.staging import INDEX_COLUMNS
from sknet.errors import UserError
from sknet.records import QuarantinedSample, Reencoding

DEFAULT_QUALITY = 92


def reencoding_by(shorter_side: int, quality: int) -> Reencoding:
    """The settings, with the version of Pillow that carries them out here."""
    return Reencoding(shorter_side=shorter_side, quality=quality, pillow=version("pillow"))


def reencode(content: bytes, settings: Reencoding) -> bytes:
    """A sound image as it is to be stored: RGB JPEG with 4:2:0 chroma if its shorter side exceeds
    the limit, resized to it (bicubic with antialiasing, aspect kept); else the bytes unchanged.
    """
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
        shorter = min(image.size)
        if shorter <= settings.shorter_side:
            return content
        size = tuple(round(side * settings.shorter_side / shorter) for side in image.size)
        resized = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=settings.quality, subsampling="4:2:0")
    return buffer.getvalue()


if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_BLOCK = 1024

# A range of an S3 object has no checksum on its way: what arrives wrong once is read once more.
READS = 2


@dataclass(frozen=True)
class ConvertedShard:
    """A finished shard, as its process reports it."""

    record: ShardRecord
    source_bytes: int
    num_images: int
    """Quarantined ones included."""
    kept: bool
    """Whether an earlier attempt had finished it."""


@dataclass(frozen=True)
class ShardConverter:
    """What every process needs to convert any shard; called with the shard's plan."""

    source: str
    directory: Path
    plan: str
    attempt: str
    """Of the conversion as a whole: a host that reads another one sees another directory."""
    reencoding: Reencoding | None

    def __call__(self, shard: ShardPlan) -> ConvertedShard:
        """Convert unless that is done. Raises UserError where sample, source or directory fail."""
        self._check_host()
        images, size = len(shard.rows), int(shard.rows["size"].sum())
        work = self.directory / WORK
        if record := self._finished(shard.name):
            return ConvertedShard(record, size, images, kept=True)
        building = work / f"{shard.name}.{uuid.uuid4().hex[:8]}"
        try:
            record = self._write(shard, building)
        except (MemoryError, OSError, RuntimeError) as error:
            shutil.rmtree(building, ignore_errors=True)
            short = (
                memory_refused(error)
                if isinstance(error, MemoryError)
                else disk_full(error, f"shard {shard.name}", size, self.directory)
            )
            if short is None:
                raise
            raise short from None
        return ConvertedShard(record, size, images, kept=False)

    def _write(self, shard: ShardPlan, building: Path) -> ShardRecord:
        building.mkdir()
        quarantined: list[QuarantinedSample] = []
        layout = layout_for(shard.rows["size"].tolist(), int(shard.rows["key"].str.len().sum()) * 4)
        rows = self._rows(shard, layout, quarantined, Tally(building / "tally"))
        file = write_shard(building / shard.name, shard.split, rows, layout)
        for name in (file.name, file.index_name):
            sync(building / name)
            (building / name).replace(self.directory / name)
        sync(self.directory)
        record = ShardRecord(plan=self.plan, file=file, quarantined=tuple(quarantined))
        write_durably(record, self.directory / WORK / f"{shard.name}.json")
        shutil.rmtree(building)
        return record

    def _check_host(self) -> None:
        try:
            seen = (self.directory / WORK / PLAN_FILE).read_text("ascii")
        except OSError:
            seen = ""
        if seen != self.attempt:
            raise UserError(
                f"host {socket.gethostname()} does not see the directory {self.directory}: "
                "all hosts that convert must share it"
            )

    def _finished(self, name: str) -> ShardRecord | None:
        path = self.directory / WORK / f"{name}.json"
        record = ShardRecord.read(path) if path.is_file() else None
        return record if record and is_sound(record.file, self.directory) else None

    def _rows(
        self,
        shard: ShardPlan,
        layout: Layout,
        quarantined: list[QuarantinedSample],
        tally: Tally,
    ) -> Iterator[Row]:
        try:
            opened = open_source(self.source)
        except UserError as error:
            raise UserError(f"on host {socket.gethostname()}: {error}") from None
        for sample in _samples(shard.rows):
            key = sample.key
            content = _read(opened, sample)
            if reason := undecodable(content):
                quarantined.append(QuarantinedSample(split=shard.split, key=key, reason=reason))
            else:
                image = reencode(content, self.reencoding) if self.reencoding else content
                if len(image) >= layout.page_bytes:
                    raise UserError(f"sample {key} takes {len(image)} bytes when re-encoded")
                yield Row(image, sample.label, key)
            tally.add(len(content))


def _read(source: Source, sample: Sample) -> bytes:
    """The sample as it was staged."""
    for _ in range(READS):
        try:
            content = source.read(sample)
        except OSError as error:
            reason = lasting_fault(error, f"sample {sample.key}")
            raise UserError(f"sample {sample.key} can't be read: {reason}") from None
        if hashlib.sha256(content).hexdigest() == sample.sha256:
            return content
    raise UserError(
        f"sample {sample.key} changed since it was staged: start again to read it anew, with "
        "--full if its time stamp didn't change"
    )


def _samples(rows: "pd.DataFrame") -> Iterator[Sample]:
    """Block by block: a million rows as objects would take a gigabyte."""
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = rows.iloc[start : start + ROWS_PER_BLOCK]
        columns = (block[name].tolist() for name in INDEX_COLUMNS)
        yield from itertools.starmap(Sample, zip(*columns, strict=True))
