"""How far a conversion is: its processes report through files in the directory that they share."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.base.console import console
from infra.base.files import replace_file
from infra.base.progress import Progress

REPORT_SECONDS = 0.5
"""Shortest time between two reports of one process."""
SECONDS_TO_KNOW = 2.0
"""Time until a rate is known well enough to say how long the rest will take."""


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


class Shown:
    """A sink that shows the progress on the console of this process, and its end as a line."""

    def __init__(self) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._ended = False

    def __call__(self, progress: ConversionProgress) -> None:
        """Show the progress."""
        if self._ended:
            return
        elapsed = time.monotonic() - self._start
        if self._first is None and progress.images > progress.reused_images:
            self._first = elapsed, progress.images
        console().show(progress_of(progress, elapsed, self._first))
        if progress.fraction >= 1:
            self._ended = True
            console().say(describe(progress, elapsed))


def progress_of(
    progress: ConversionProgress, seconds: float, first: tuple[float, int] | None
) -> Progress:
    """Return the progress as a console shows it.

    Args:
        progress: The progress now.
        seconds: How long this attempt has run.
        first: How long it had run when its first images were seen to be done, and how many images
            were done then, whoever did them; None: before that.
    """
    images_per_second, megabytes_per_second = _rates(progress, seconds)
    return Progress(
        phase="converting",
        fraction=progress.fraction,
        figures=(
            f"{progress.images}/{progress.total_images} images",
            f"{images_per_second:.0f} images/s",
            f"{megabytes_per_second:.1f} MB/s",
        ),
        seconds_left=_seconds_left(progress, seconds, first),
    )


def _seconds_left(
    progress: ConversionProgress, seconds: float, first: tuple[float, int] | None
) -> float | None:
    """Return how long the rest takes; None if it can't be known yet.

    The processes take seconds to start, which tell nothing of their rate.
    """
    if first is None:
        return None
    at_work, done = seconds - first[0], progress.images - first[1]
    if at_work < SECONDS_TO_KNOW or not done:
        return None
    return (progress.total_images - progress.images) * at_work / done


def describe(progress: ConversionProgress, seconds: float) -> str:
    """Describe what was done in one line, with rates.

    Args:
        progress: The progress now.
        seconds: How long this attempt has run. Rates leave out what earlier attempts converted.
    """
    images_per_second, megabytes_per_second = _rates(progress, seconds)
    return (
        f"converted {progress.images}/{progress.total_images} images ({progress.fraction:.1%}), "
        f"{images_per_second:.0f} images/s, {megabytes_per_second:.1f} MB/s"
    )


def _rates(progress: ConversionProgress, seconds: float) -> tuple[float, float]:
    """Return the images and the megabytes that this attempt converted per second."""
    seconds = max(seconds, sys.float_info.epsilon)
    images = (progress.images - progress.reused_images) / seconds
    return images, (progress.bytes - progress.reused_bytes) / seconds / 1e6


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
