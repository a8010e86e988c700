"""Convert a source of images into MindRecord shards.

python -m sknet.convert --source SOURCE --out DIR --shards N|auto [--workers N] [--json OUT]

After a kill, the same command resumes from the finished shards.
"""

import argparse
import os
import sys
from pathlib import Path

from infra.base.options import positive_int, whole_number
from sknet import outputs, program
from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.converter import DEFAULT_QUALITY, reencoding_to
from sknet.data.conversion.progress import ProgressLine, progress_file
from sknet.data.copies.leaks import refuse_recorded_leaks
from sknet.data.scan_cache import ScanCache
from sknet.data.sources import open_source
from sknet.data.staging import read_staged, stage_source

AUTO = "auto"


def main(arguments: argparse.Namespace) -> None:
    """Convert; in the end `--out` holds the shards and shards.json."""
    if arguments.json:
        outputs.make_directory(arguments.json.parent, "--json")

    def report(_level: int, line: str) -> None:
        print(line, flush=True)

    if arguments.staged:
        staged = read_staged(arguments.staged)
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
    write_progress = progress_file(arguments.progress_file) if arguments.progress_file else None
    shards = write_shards(
        staged,
        arguments.source,
        arguments.out,
        num_shards=None if arguments.shards == AUTO else arguments.shards,
        num_workers=arguments.workers,
        reencoding=reencoding_to(shorter_side, arguments.quality) if shorter_side else None,
        max_quarantine=arguments.max_quarantine,
        on_progress=ProgressLine(before=write_progress),
        report=report,
    )
    dataset = shards.dataset
    left_out = len(dataset.quarantined) + len(dataset.dropped) + len(shards.quarantined)
    written = sum(file.num_samples for file in shards.files)
    print(f"{written} images converted, {left_out} left out", flush=True)
    outputs.write_json(shards, arguments.json)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    result = program.parser(__doc__.splitlines()[0])
    result.add_argument(
        "--source", required=True, help="images: digits, fashion-mnist:DIR, DIR or s3://…"
    )
    result.add_argument(
        "--staged", type=Path, help="directory of the staged source (default: stage it first)"
    )
    result.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory for the shards: new, empty, or that of a conversion to resume",
    )
    result.add_argument(
        "--shards",
        type=num_shards,
        required=True,
        help="number of shards of each split; auto: one for every 256 MiB of its images",
    )
    result.add_argument(
        "--workers",
        type=positive_int,
        default=os.cpu_count(),
        help="number of processes (default: one for each processor)",
    )
    result.add_argument(
        "--shorter-side",
        type=positive_int,
        metavar="PIXELS",
        help="shrink larger images to this shorter side (default: store the original bytes)",
    )
    result.add_argument(
        "--quality",
        type=whole_number(1, 100),
        default=DEFAULT_QUALITY,
        help=f"JPEG quality of resized images, 1 to 100 (default: {DEFAULT_QUALITY})",
    )
    program.add_quarantine_option(result)
    program.add_leak_option(result)
    result.add_argument(
        "--full", action="store_true", help="read all files again, also those that haven't changed"
    )
    result.add_argument("--json", type=Path, help="file to which shards.json is written, too")
    result.add_argument("--progress_file", type=Path, help=argparse.SUPPRESS)
    return result


def num_shards(text: str) -> int | str:
    """Parse the option --shards: a whole number, or `auto`."""
    if text == AUTO:
        return AUTO
    try:
        return positive_int(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor {AUTO!r}") from None


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
