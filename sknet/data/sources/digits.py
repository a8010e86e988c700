"""1,797 real handwritten digits of 8x8 pixels (UCI ML repository), which scikit-learn ships."""

import hashlib
from collections.abc import Iterator
from functools import cached_property

from sknet.data.sources.source import Image, Place, Sample, grey_png
from sknet.data.sources.trees import Skipped, SourceFile
from sknet.errors import UserError

TRAIN = 1437  # the last 360 are held out, written by other people


class Digits:
    """The whole set, in its own order."""

    kind = "digits"
    location = "digits"
    classes = titles = tuple("0123456789")

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

    def files(self) -> Iterator[SourceFile | Skipped]:
        """The package's one file, by name only."""
        yield SourceFile("digits", 0, "")

    def scan(self, file: SourceFile) -> Iterator[Image | Skipped]:
        """See Source."""
        for index, content in enumerate(self._digits[0]):
            digest = hashlib.sha256(content).hexdigest()
            yield Image(f"{index:04}", index, len(content), digest)

    def place(self, file: str, name: str) -> Place:
        """See Source."""
        split = "train" if int(name) < TRAIN else "val"
        return Place(split, f"{split}/{name}.png", self._digits[1][int(name)])

    def read(self, sample: Sample) -> bytes:
        """As an 8x8 grey PNG."""
        return self._digits[0][sample.offset]
