"""Small pictures of copies, for reports, which can't read the source."""

import io
from pathlib import Path

import PIL.Image

from sknet.data.conversion.converter import read_sample
from sknet.data.copies.fingerprint import eight_bits, open_image
from sknet.data.images import is_out_of_memory
from sknet.data.sources import Sample, Source
from sknet.data.staging import INDEX_COLUMNS, Staged
from sknet.report.data_contents import members, picture_name, shown_copies

PICTURE_SIDE = 96
"""Longer side of a picture, in pixels."""

PICTURE_QUALITY = 80
"""JPEG quality of a picture, on libjpeg's scale."""


def write_pictures(staged: Staged, source: Source, directory: Path) -> None:
    """Write pictures of the copies that a report shows, under their `picture_name`.

    Raises:
        UserError: A sample can't be read, or has changed.
        SourceReadError: The disk or the network failed.
        MemoryError: The decoder was refused memory.
    """
    keys = {key for group in shown_copies(staged.dataset.copies) for key, *_ in members(group)}
    rows = staged.index[staged.index["key"].isin(keys)]
    for row in rows[INDEX_COLUMNS].itertuples(index=False, name=None):
        sample = Sample(*row)
        if picture := _picture(read_sample(source, sample)):
            (directory / picture_name(sample.key)).write_bytes(picture)


def _picture(content: bytes) -> bytes | None:
    """Return a small picture of an encoded image; None if it doesn't decode."""
    try:
        with open_image(content) as image:
            image.draft("RGB", (2 * PICTURE_SIDE, 2 * PICTURE_SIDE))
            return small_jpeg(eight_bits(image))
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds for bad bytes)
        if is_out_of_memory(error):
            raise MemoryError("the image's decoder was refused memory") from None
        return None


def small_jpeg(image: PIL.Image.Image) -> bytes:
    """Return an RGB image as a small JPEG, without the metadata of its file."""
    small = image.copy()
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    small.info.clear()
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=PICTURE_QUALITY)
    return buffer.getvalue()
