"""Ten classes of grey images of 28 x 28 pixels that are hard to tell apart, in IDX files.

They stand in for Fashion-MNIST, whose files are not everywhere. Each class has three styles, which
are smooth shapes. The classes come in five pairs that look alike, as shirts and T-shirts do. An
image is a shape of its class that is moved, turned, stretched and lit at random, with noise.
"""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

NUM_CLASSES, NUM_STYLES, SIDE = 10, 3, 28
DETAIL = 0.2
"""Weight of what a shape has of its own; the rest it shares with the other class of its pair."""
NOISE = 0.8
"""Standard deviation of the noise, as a multiple of that of the shapes."""

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


def write_garments(directory: Path, *, train: int, val: int) -> None:
    """Write the four files of a data set in the form of Fashion-MNIST.

    Args:
        directory: Where they are written.
        train: Number of training images.
        val: Number of validation images.
    """
    directory.mkdir(parents=True)
    shapes = _shapes(np.random.default_rng(0))
    for seed, (prefix, number) in enumerate((("train", train), ("t10k", val)), 1):
        images, labels = _images(shapes, number, np.random.default_rng(seed))
        header = struct.pack(">4B3I", 0, 0, 8, 3, number, SIDE, SIDE)
        (directory / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, number)
        (directory / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def _shapes(numbers: np.random.Generator) -> Floats:
    """Draw the shapes of all classes and styles, (classes, styles, side, side)."""
    from scipy.ndimage import zoom

    common = np.repeat(numbers.normal(size=(NUM_CLASSES // 2, NUM_STYLES, 5, 5)), 2, axis=0)
    own = numbers.normal(size=(NUM_CLASSES, NUM_STYLES, 5, 5))
    coarse = (1 - DETAIL) * common + DETAIL * own
    shapes: Floats = zoom(coarse, (1, 1, SIDE / 5, SIDE / 5), order=3)
    shapes /= shapes.std(axis=(2, 3), keepdims=True)
    return shapes


def _images(shapes: Floats, number: int, numbers: np.random.Generator) -> tuple[Pixels, Labels]:
    """Draw images (N, side, side) of equally many of each class, and their labels, in any order."""
    from scipy.ndimage import affine_transform

    labels = numbers.permutation(np.arange(number) % NUM_CLASSES).astype(np.uint8)
    styles = numbers.integers(NUM_STYLES, size=number)
    angles = np.radians(numbers.uniform(-12, 12, number))
    stretches = numbers.uniform(0.85, 1.15, (number, 2))
    shifts = numbers.uniform(-3, 3, (number, 2))
    images = np.empty((number, SIDE, SIDE))
    middle = np.full(2, (SIDE - 1) / 2)
    for place, (label, style) in enumerate(zip(labels, styles, strict=True)):
        cosine, sine = np.cos(angles[place]), np.sin(angles[place])
        turn = np.array([[cosine, -sine], [sine, cosine]]) * stretches[place]
        images[place] = affine_transform(
            shapes[label, style],
            turn,
            middle - turn @ (middle + shifts[place]),
            order=1,
            mode="nearest",
        )
    images = images * numbers.uniform(0.7, 1.3, (number, 1, 1)) + NOISE * numbers.normal(
        size=images.shape
    )
    return (128 + 45 * images).clip(0, 255).round().astype(np.uint8), labels
