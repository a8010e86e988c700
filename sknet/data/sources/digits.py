"""1,797 handwritten digits of 8x8 pixels (UCI ML repository), which scikit-learn ships."""

import hashlib
from collections.abc import Iterator
from functools import cached_property

from sknet.data.sources.source import Assignment, GivenSplits, Sample, ScannedImage, grey_png
from sknet.data.sources.trees import Skipped, SourceFile
from sknet.errors import UserError

NUM_TRAIN = 1437
"""Number of training images. The last 360 are validation images, written by other people."""


class Digits(GivenSplits):
    """The digits, in scikit-learn's order."""

    kind = "digits"
    location = "digits"
    classes = titles = tuple("0123456789")

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield one file without a size, which stands for the package's."""
        yield SourceFile("digits", 0, "")

    def scan(self, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
        """Yield all images; their names are their numbers."""
        for index, content in enumerate(self._images):
            digest = hashlib.sha256(content).hexdigest()
            yield ScannedImage(f"{index:04}", index, len(content), digest)

    def assign(self, file: str, name: str) -> Assignment:
        """Return which sample an image is: the first 1,437 are for training."""
        split = "train" if int(name) < NUM_TRAIN else "val"
        return Assignment(split, f"{split}/{name}.png", self._labels[int(name)])

    def read(self, sample: Sample) -> bytes:
        """Return the image as an 8x8 grey PNG."""
        return self._images[sample.offset]

    @property
    def _images(self) -> list[bytes]:
        return self._digits[0]

    @property
    def _labels(self) -> list[int]:
        return self._digits[1]

    @cached_property
    def _digits(self) -> tuple[list[bytes], list[int]]:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UserError(
                "the data source 'digits' needs scikit-learn: pip install 'sknet[demo]'"
            ) from None
        digits = load_digits()
        # Pixels are 0 … 16.
        pixels = (digits.images * (255 / 16)).round().astype("uint8")
        return [grey_png(image) for image in pixels], [int(label) for label in digits.target]
