"""Convert a source of images into MindRecord shards.

python -m sknet.convert --source SOURCE --out DIR --shards N|auto [--workers N] [--json OUT]

After a kill, the same command resumes from the finished shards.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from infra.base.commands import OPTIONS, Flag, app_of, parsed_by, start
from infra.base.options import positive_int, whole_number
from sknet import outputs, program
from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.converter import DEFAULT_QUALITY, reencoding_to
from sknet.data.conversion.progress import Shown
from sknet.data.copies.leaks import refuse_recorded_leaks
from sknet.data.index import SampleIndex, open_staged
from sknet.data.scan_cache import ScanCache
from sknet.data.sources import open_source
from sknet.data.staging import stage_source
from sknet.options import ImageOptions, LaunchedOptions


def main(arguments: "Options") -> None:
    """Convert; in the end `--out` holds the shards and shards.json."""
    outputs.prepare_file(arguments.json, "--json")

    def report(_level: int, line: str) -> None:
        print(line, flush=True)

    if arguments.staged:
        staged: SampleIndex = open_staged(arguments.staged)
        held = f"the staged samples in {arguments.staged}"
        refuse_recorded_leaks(staged.dataset, arguments.on_leak, held)
    else:
        source = open_source(arguments.source)
        staged = stage_source(
            source,
            ScanCache(source),
            full=arguments.full,
            max_quarantine=arguments.max_quarantine,
            on_leak=arguments.on_leak,
            report=report,
        )
    outputs.make_directory(arguments.out, "--out")
    shorter_side = arguments.shorter_side
    shards = write_shards(
        staged,
        arguments.source,
        arguments.out,
        num_shards=None if arguments.shards == "auto" else arguments.shards,
        num_workers=arguments.workers,
        reencoding=reencoding_to(shorter_side, arguments.quality) if shorter_side else None,
        max_quarantine=arguments.max_quarantine,
        on_progress=Shown(),
        report=report,
    )
    dataset = shards.dataset
    left_out = len(dataset.quarantined) + len(dataset.dropped) + len(shards.quarantined)
    written = sum(file.num_samples for file in shards.files)
    print(f"{written} images converted, {left_out} left out", flush=True)
    outputs.write_json(shards, arguments.json)


def num_shards(text: str) -> int | Literal["auto"]:
    """Parse the option --shards: a whole number, or `auto`."""
    if text == "auto":
        return "auto"
    try:
        return positive_int(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor 'auto'") from None


@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, LaunchedOptions):
    """The options of a conversion."""

    source: str
    """Images: digits, fashion-mnist:DIR, DIR or s3://…"""
    staged: Path | None = None
    """Directory of the staged source; without it, the source is staged first."""
    out: Path
    """Directory for the shards: new, empty, or that of a conversion to resume."""
    shards: Annotated[int | Literal["auto"], parsed_by(num_shards)]
    """Number of shards of each split; auto: one for every 256 MiB of its images."""
    workers: Annotated[
        int, parsed_by(positive_int), Parameter(show_default="one for each processor")
    ] = os.cpu_count() or 1
    """Number of processes."""
    shorter_side: Annotated[int | None, parsed_by(positive_int)] = None
    """Shrink larger images to this shorter side, in pixels; without it, the original bytes are
    stored."""
    quality: Annotated[int, parsed_by(whole_number(1, 100))] = DEFAULT_QUALITY
    """JPEG quality of resized images, 1 to 100."""
    full: Flag = False
    """Read all files again, also those that haven't changed."""
    json: Path | None = None
    """File to which shards.json is written, too."""


def command(options: Annotated[Options, OPTIONS]) -> int:
    """Convert a source of images into MindRecord shards; the same command resumes it.

    Example: `sknet convert --source digits --out shards --shards 4`
    """
    return program.run(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.convert")))
