"""A folder of photographs as people have them: a rare class, copies, and files that are no images.

python -m tests.photographs DIR

The tiles are cut from the three photographs that scikit-learn and matplotlib ship, without overlap.
"""

import io
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_image

TILE = 48
"""Side of a tile, in pixels."""

NUM_TILES = {"flower": 54, "portrait": 16, "temple": 60}
NUM_VALIDATION = {"flower": 15, "portrait": 6, "temple": 15}


def photographs() -> dict[str, Image.Image]:
    """Return a photograph for each class."""
    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as portrait:
        return {
            "flower": Image.fromarray(load_sample_image("flower.jpg")),
            "portrait": portrait.convert("RGB"),
            "temple": Image.fromarray(load_sample_image("china.jpg")),
        }


def tiles(photograph: Image.Image, side: int = TILE) -> Iterator[Image.Image]:
    """Yield the tiles of a photograph that have structure: a blank sky is no picture of anything.

    They come in an order that mixes all its parts.
    """
    columns, rows = photograph.width // side, photograph.height // side
    for number in np.random.default_rng(7).permutation(columns * rows).tolist():
        left, top = side * (number % columns), side * (number // columns)
        tile = photograph.crop((left, top, left + side, top + side))
        if contrast(tile) > 8:
            yield tile


def contrast(image: Image.Image) -> float:
    """Return the standard deviation of the grey levels, 0 to 255."""
    return float(np.asarray(image.convert("L")).std())


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    """Return an image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_photographs(root: Path) -> Path:
    """Write `train/` and `val/` with a folder for each class, and what goes wrong in practice."""
    best: dict[str, Image.Image] = {}
    for name, photograph in photographs().items():
        cut = list(islice(tiles(photograph), NUM_TILES[name]))
        held_out = NUM_VALIDATION[name]
        best[name] = max(cut[:held_out], key=contrast)
        for number, tile in enumerate(cut):
            split = "val" if number < held_out else "train"
            write(root / split / name / f"{number:02}.jpg", encoded(tile))
    # A validation image of each class is in train, too: smaller, encoded again, and as it is.
    write(root / "train/flower/smaller.jpg", encoded(best["flower"].resize((36, 36))))
    write(root / "train/temple/encoded-again.jpg", encoded(best["temple"], quality=60))
    write(root / "train/portrait/the-same.jpg", encoded(best["portrait"]))
    # One image under two labels, what a file server leaves behind, and a file that is cut off.
    write(root / "train/temple/also-a-flower.jpg", (root / "train/flower/20.jpg").read_bytes())
    write(root / "train/temple/@eaDir/20.jpg", encoded(best["temple"].resize((16, 16))))
    write(root / "train/temple/cut-off.jpg", encoded(best["temple"])[:700])
    return root


def write(path: Path, content: bytes) -> None:
    """Write a file, and the folder that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    write_photographs(Path(sys.argv[1]))
