"""A survey of a data set: sizes and brightness of its images, and small pictures of some."""

import io
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image

from infra.base.progress import work
from infra.base.shortages import memory_for
from sknet.data.conversion.converter import read_sample
from sknet.data.copies.fingerprint import eight_bits, open_image
from sknet.data.images import is_out_of_memory, undecodable
from sknet.data.index import INDEX_COLUMNS
from sknet.data.order import order_slice
from sknet.data.reading.threads import read_pipeline
from sknet.data.shards import ShardSet, read_rows
from sknet.data.sources import Sample, Source
from sknet.data.staging import NUM_READERS, Staged
from sknet.records import Dataset, QuarantinedSample
from sknet.report.data_contents import MEASURES, MEASURES_FILE, DataContents, picture_name

MAX_MEASURED = 20_000
"""Default of the most images that are decoded. That takes about a minute for photographs."""

MAX_IN_FLOW = 2000
"""Most images of a data set that staging measures for the report."""

PICTURE_SIDE = 96
"""Longer side of a picture, in pixels."""

PICTURE_QUALITY = 80
"""JPEG quality of a picture, on libjpeg's scale."""

IMAGES_PER_ROUND = 256

Reader = Callable[[pd.DataFrame], Iterator[bytes]]
"""Reads the images of rows of the samples, in their order."""

Measures = tuple[int, float, float, float, float]
"""Size of the encoded image in bytes, and the values of MEASURES."""

WHOLE_NUMBERS = dict.fromkeys(("size", "width", "height"), "int64")

NOT_MEASURED: Measures = (0, math.nan, math.nan, math.nan, math.nan)


def survey_source(
    staged: Staged,
    source: Source,
    name: str,
    *,
    max_measured: int = MAX_MEASURED,
    for_page: bool = True,
) -> DataContents:
    """Return what the page of a staged source shows.

    Args:
        staged: The data set.
        source: Its source.
        name: The source as the user wrote it.
        max_measured: Most images that are measured.
        for_page: Whether the result is for a page of its own, which also has pictures of samples
            that are not suspect, and names images that the conversion will leave out.

    Raises:
        UserError: A sample can't be read.
        SourceReadError: The disk or the network failed.
    """

    def read(rows: pd.DataFrame) -> Iterator[bytes]:
        samples = [Sample(*row) for row in rows[INDEX_COLUMNS].itertuples(index=False, name=None)]
        with ThreadPoolExecutor(NUM_READERS) as pool:
            for start in range(0, len(samples), IMAGES_PER_ROUND):
                round_of = samples[start : start + IMAGES_PER_ROUND]
                yield from pool.map(partial(read_sample, source), round_of)

    contents = _survey(
        name, staged.dataset, staged.index, (), read, max_measured, for_page=for_page
    )
    ignored = tuple((file.name, file.reason) for file in staged.ignored)
    return replace(contents, ignored=ignored, notes=tuple(source.notes))


def write_survey(staged: Staged, source: Source, directory: Path) -> None:
    """Write what the report of a store shows of a data set: measures, and pictures of suspects.

    Raises:
        UserError: A sample can't be read.
        SourceReadError: The disk or the network failed.
        MemoryRefusedError: The decoder of an image was refused memory.
    """
    contents = survey_source(staged, source, "", max_measured=MAX_IN_FLOW, for_page=False)
    contents.measured.to_parquet(directory / MEASURES_FILE, index=False)
    for key in contents.suspect_keys():
        if picture := contents.pictures.get(key):
            (directory / picture_name(key)).write_bytes(picture)


def survey_shards(shards: ShardSet, name: str, *, max_measured: int = MAX_MEASURED) -> DataContents:
    """Return what the page of converted shards shows.

    Args:
        shards: The shards, all splits of them verified.
        name: The directory as the user wrote it.
        max_measured: Most images that are measured.
    """
    record = shards.record
    samples = pd.DataFrame(
        [
            (file.split, key, label, file.name, number)
            for file in record.files
            for number, (label, key) in enumerate(_labels_and_keys(shards.directory / file.name))
        ],
        columns=["split", "key", "label", "file", "number"],
    )

    def read(rows: pd.DataFrame) -> Iterator[bytes]:
        # Neighbouring rows of one shard are read together.
        for file, of_file in itertools.groupby(
            zip(rows["file"], rows["number"], strict=True), key=itemgetter(0)
        ):
            numbers = [number for _, number in of_file]
            for start in range(0, len(numbers), IMAGES_PER_ROUND):
                round_of = numbers[start : start + IMAGES_PER_ROUND]
                yield from (row.image for row in read_rows(shards.directory / file, round_of))

    return _survey(name, record.dataset, samples, record.quarantined, read, max_measured)


def _labels_and_keys(path: Path) -> Iterator[tuple[int, str]]:
    """Yield label and key of each row of a shard."""
    from mindspore.dataset import MindDataset

    rows = read_pipeline(
        lambda: MindDataset(
            [str(path)], columns_list=["label", "key"], shuffle=False, num_parallel_workers=1
        ).create_tuple_iterator(num_epochs=1, output_numpy=True)
    )
    for label, key in rows:
        yield int(label), str(key)


def _survey(
    name: str,
    dataset: Dataset,
    samples: pd.DataFrame,
    unreadable: tuple[QuarantinedSample, ...],
    read: Reader,
    max_measured: int,
    *,
    for_page: bool = True,
) -> DataContents:
    chosen = np.sort(order_slice(len(samples), 0, 0, 0, min(max_measured, len(samples))))
    rows = samples.iloc[chosen]
    measures: list[Measures] = []
    left_out = [*dataset.quarantined, *dataset.dropped, *unreadable]
    with work(f"measuring {len(rows)} images", len(rows)) as count:
        for split, key, content in zip(rows["split"], rows["key"], read(rows), strict=True):
            try:
                with memory_for(f"decoding {key}"):
                    if for_page and (reason := undecodable(content)):
                        raise ValueError(reason)
                    measures.append(measure(content))
            except ValueError as error:
                measures.append(NOT_MEASURED)
                left_out.append(QuarantinedSample(split=split, key=key, reason=str(error)))
            count(1)
    table = pd.DataFrame(measures, columns=["size", *MEASURES], index=rows.index)
    contents = DataContents(
        name=name,
        dataset=dataset,
        samples=samples[["split", "key", "label"]],
        measured=rows[["split", "key", "label"]].join(table).dropna().astype(WHOLE_NUMBERS),
        is_complete=len(rows) == len(samples),
        left_out=tuple(sorted(left_out, key=lambda sample: sample.key)),
    )
    shown_keys = contents.shown_keys() if for_page else contents.suspect_keys()
    shown = samples[samples["key"].isin(shown_keys)]
    pictures = {}
    for key, content in zip(shown["key"], read(shown), strict=True):
        with suppress(ValueError), memory_for(f"decoding {key}"):
            pictures[key] = small_jpeg(pixels_of(content))
    return replace(contents, pictures=pictures)


def measure(content: bytes) -> Measures:
    """Return the measures of an encoded image.

    Raises:
        ValueError: It doesn't decode; the message says why.
        MemoryError: The decoder was refused memory.
    """
    pixels = pixels_of(content)
    # Counts of the grey values 0 to 255, by the weights of ITU-R BT.601.
    counts = np.asarray(pixels.convert("L").histogram(), np.float64)
    values = np.arange(256)
    mean = float(counts @ values / counts.sum())
    deviation = math.sqrt(float(counts @ (values - mean) ** 2 / counts.sum()))
    return len(content), pixels.width, pixels.height, mean, deviation


def pixels_of(content: bytes) -> PIL.Image.Image:
    """Return an encoded image as RGB, decoded in full by Pillow, which needs no MindSpore here.

    Raises:
        ValueError: It doesn't decode; the message says why.
        MemoryError: The decoder was refused memory.
    """
    try:
        with open_image(content) as image:
            return eight_bits(image).copy()
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds for bad bytes)
        if is_out_of_memory(error):
            raise MemoryError("the image's decoder was refused memory") from None
        raise ValueError(undecodable(content) or str(error)) from None


def small_jpeg(image: PIL.Image.Image) -> bytes:
    """Return an RGB image as a small JPEG, without the metadata of its file."""
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=PICTURE_QUALITY)
    return buffer.getvalue()
