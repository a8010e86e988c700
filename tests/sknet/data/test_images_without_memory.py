"""Refused memory is never a fault of the image that needed it."""

import io
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from sknet.data.sources.source import ReadImage, scanned
from sknet.errors import MemoryRefusedError
from tests.sknet.conversions import convert

SIDE = 3000
"""9 megapixels: 36 MB in Pillow, and 27 MB more for the coefficients of a progressive JPEG."""


@pytest.mark.parametrize(
    ("kind", "judge", "megabytes"),
    [
        ("progressive", "undecodable", 20),  # no room for Pillow's pixels
        ("progressive", "undecodable", 45),  # nor for libjpeg, which doesn't say so
        ("png", "refused_by_mindspore", 20),
    ],
)
def test_sound_image_is_not_judged_when_memory_is_refused(
    tmp_path: Path, kind: str, judge: str, megabytes: int
) -> None:
    path = tmp_path / "image"
    image = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    if kind == "png":
        image.save(path, "PNG", compress_level=1)
    else:
        image.save(path, "JPEG", progressive=True)
    code = f"""
        import re, resource, sys
        from pathlib import Path
        from sknet.data.images import {judge}
        content = Path(sys.argv[1]).read_bytes()
        assert {judge}(content) is None
        (size,) = re.findall(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
        limit = int(size) * 1024 + {megabytes} * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            print({judge}(content))
        except MemoryError:
            print("refused")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.stdout == "refused\n", ended


def test_conversion_names_the_sample_for_which_memory_was_refused(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(content: bytes) -> None:
        raise MemoryError("the image's decoder was refused memory")

    monkeypatch.setattr("sknet.data.conversion.converter.undecodable", refuse)
    with pytest.raises(MemoryRefusedError) as caught:
        convert(folders, tmp_path / "shards")
    assert "out of memory: sample train/" in str(caught.value)


def test_staging_names_the_largest_of_the_images_that_are_being_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = threading.Barrier(2)
    small, large = (ReadImage(f"{side}.png", png_of(side)) for side in (8, 80))

    def decode(content: bytes) -> bytes:
        both.wait(60)  # both are being decoded
        if content == small.content:
            raise MemoryError
        both.wait(60)
        return b""

    monkeypatch.setattr("sknet.data.sources.source.fingerprint", decode)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(scanned, large)
        with pytest.raises(MemoryRefusedError, match=r"decoding 80\.png, the largest of"):
            scanned(small)
        both.wait(60)
        other.result()


def png_of(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()
