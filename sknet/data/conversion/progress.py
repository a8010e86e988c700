"""How far a conversion is: told by its processes through the directory that they share."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sknet.progress import write_progress

REPORT_SECONDS = 0.5
LINE_SECONDS = 2.0


@dataclass(frozen=True)
class Progress:
    """Of a whole conversion."""

    images: int
    total_images: int
    bytes: int
    """Of the source."""
    kept_images: int = 0
    """Of `images`, those that an earlier attempt converted."""
    kept_bytes: int = 0

    @property
    def share(self) -> float:
        """0 … 1."""
        return self.images / self.total_images if self.total_images else 1.0


ProgressSink = Callable[[Progress], None]


def unheard(progress: Progress) -> None:
    """A sink for those who don't want to know."""


class Tally:
    """One process's count of the shard it writes, in a file that others may read at any time."""

    def __init__(self, path: Path) -> None:
        self.images = self.bytes = 0
        self._path = path
        self._written = 0.0

    def add(self, size: int) -> None:
        """An image of `size` bytes is done."""
        self.images += 1
        self.bytes += size
        if (now := time.monotonic()) - self._written >= REPORT_SECONDS:
            self._written = now
            replace_text(self._path, f"{self.images} {self.bytes}")


def read_tallies(paths: Iterable[Path]) -> tuple[int, int]:
    """Images and bytes in all; a tally that vanishes meanwhile counts nothing."""
    images = size = 0
    for path in paths:
        try:
            first, second = path.read_text("ascii").split()
        except (OSError, ValueError):
            continue
        images, size = images + int(first), size + int(second)
    return images, size


def replace_text(path: Path, text: str) -> None:
    """Write a file so that whoever reads it finds the old text or the new one."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8")
    part.replace(path)


class ProgressLine:
    """Says a line at most every two seconds, and at the end; before it, tells `also`."""

    def __init__(
        self, say: Callable[[str], None] | None = None, *, also: ProgressSink = unheard
    ) -> None:
        self._say = say or (lambda line: print(line, flush=True))
        self._also = also
        self._start = time.monotonic()
        self._last = 0.0
        self._ended = False

    def __call__(self, progress: Progress) -> None:
        """Called more often than a line is due."""
        elapsed = time.monotonic() - self._start
        ends = progress.share >= 1
        if self._ended or (not ends and elapsed - self._last < LINE_SECONDS):
            return
        self._last, self._ended = elapsed, ends
        self._also(progress)
        self._say(describe(progress, elapsed))


def progress_file(path: Path) -> ProgressSink:
    """Return a sink that writes the progress file of the program."""
    return lambda progress: write_progress(path, progress.share)


def describe(progress: Progress, seconds: float) -> str:
    """For a person; rates and time left count what these `seconds` brought."""
    seconds = max(seconds, sys.float_info.epsilon)
    rate = (progress.images - progress.kept_images) / seconds
    megabytes = (progress.bytes - progress.kept_bytes) / seconds / 1e6
    left = progress.total_images - progress.images
    eta = f", {left / rate:.0f} s left" if left and rate else ""
    return (
        f"converted {progress.images}/{progress.total_images} images ({progress.share:.1%}), "
        f"{rate:.0f} images/s, {megabytes:.1f} MB/s{eta}"
    )
