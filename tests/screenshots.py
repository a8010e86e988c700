"""The pictures of a report that the documentation shows.

python -m tests.screenshots REPORT.html docs
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import PHONE, WIDE, Browser, chromium

MAX_BYTES = 300_000
PICTURES = {"report-wide.png": (WIDE, 3150), "report-phone.png": (PHONE, 1700)}
"""Name → width and height."""


def take(browser: Browser, page: Path, out: Path) -> list[Path]:
    """Write the pictures, in as few colours as their limit of size needs."""
    written = []
    for name, (width, height) in PICTURES.items():
        browser.open(page, width=width)
        with Image.open(io.BytesIO(browser.picture(height))) as picture:
            image = picture.convert("RGB")
        for colours in (256, 128, 64, 32):
            few = image.quantize(colours, dither=Image.Dither.NONE)
            few.save(out / name, optimize=True)
            if (out / name).stat().st_size <= MAX_BYTES:
                break
        written.append(out / name)
    return written


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as used:
        for path in take(used, Path(sys.argv[1]).resolve(), Path(sys.argv[2])):
            print(path, path.stat().st_size)
