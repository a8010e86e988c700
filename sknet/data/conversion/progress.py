"""How far a conversion is: its processes report through files in the directory that they share."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.base.files import replace_file
from sknet.progress import write_progress

REPORT_SECONDS = 0.5
"""Shortest time between two reports of one process."""
LINE_SECONDS = 2.0
"""Shortest time between two lines about the whole conversion."""


@dataclass(frozen=True)
class ConversionProgress:
    """How much of a conversion is done."""

    images: int
    """Images that are done, whoever did them."""
    total_images: int
    bytes: int
    """Bytes of the source that are done."""
    reused_images: int = 0
    """Those of `images` that an earlier attempt converted."""
    reused_bytes: int = 0
    """Those of `bytes` that an earlier attempt converted."""

    @property
    def fraction(self) -> float:
        """Fraction of the images that are done, 0 to 1."""
        return self.images / self.total_images if self.total_images else 1.0


ProgressSink = Callable[[ConversionProgress], None]


class ProgressLine:
    """A sink that prints a line at most every two seconds, and one at the end."""

    def __init__(
        self,
        print_line: Callable[[str], None] = lambda line: print(line, flush=True),
        *,
        before: ProgressSink | None = None,
    ) -> None:
        """Start the clock.

        Args:
            print_line: Prints or logs a line.
            before: Called before each line, with the progress that the line describes.
        """
        self._print_line = print_line
        self._before = before
        self._start = time.monotonic()
        self._last = 0.0
        self._ended = False

    def __call__(self, progress: ConversionProgress) -> None:
        """Print a line if it is time for one."""
        elapsed = time.monotonic() - self._start
        ends = progress.fraction >= 1
        if self._ended or (not ends and elapsed - self._last < LINE_SECONDS):
            return
        self._last, self._ended = elapsed, ends
        if self._before:
            self._before(progress)
        self._print_line(describe(progress, elapsed))


def progress_file(path: Path) -> ProgressSink:
    """Return a sink that writes the progress file of the program."""
    return lambda progress: write_progress(path, progress.fraction)


def describe(progress: ConversionProgress, seconds: float) -> str:
    """Describe the progress in one line, with rates and the time left.

    Args:
        progress: The progress now.
        seconds: How long this attempt has run. Rates leave out what earlier attempts converted.
    """
    seconds = max(seconds, sys.float_info.epsilon)
    rate = (progress.images - progress.reused_images) / seconds
    megabytes = (progress.bytes - progress.reused_bytes) / seconds / 1e6
    left = progress.total_images - progress.images
    eta = f", {left / rate:.0f} s left" if left and rate else ""
    return (
        f"converted {progress.images}/{progress.total_images} images ({progress.fraction:.1%}), "
        f"{rate:.0f} images/s, {megabytes:.1f} MB/s{eta}"
    )


class Tally:
    """One process's count of the shard that it writes, in a file that others may read."""

    def __init__(self, path: Path) -> None:
        self.images = self.bytes = 0
        self._path = path
        self._written = 0.0

    def add(self, size: int) -> None:
        """Count an image of `size` bytes."""
        self.images += 1
        self.bytes += size
        if (now := time.monotonic()) - self._written >= REPORT_SECONDS:
            self._written = now
            replace_file(self._path, f"{self.images} {self.bytes}".encode())


def read_tallies(paths: Iterable[Path]) -> tuple[int, int]:
    """Return the sums of images and of bytes; a tally that vanishes meanwhile counts nothing."""
    images = size = 0
    for path in paths:
        try:
            first, second = path.read_text("ascii").split()
        except (OSError, ValueError):
            continue
        images, size = images + int(first), size + int(second)
    return images, size
