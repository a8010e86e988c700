"""Convert a source of images into MindRecord shards.

python -m sknet.convert --source SOURCE --out DIR --shards N|auto [--workers N] [--json OUT]

Killed at any time, the same command goes on from the shards that are finished.
"""

import argparse
import os
import sys
from pathlib import Path

from sknet import program
from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.converter import DEFAULT_QUALITY, reencoding_by
from sknet.data.conversion.progress import ProgressLine, progress_file, unheard
from sknet.data.sources import open_source
from sknet.data.staging import MAX_QUARANTINE, ScanCache, read_staged, stage_source
from sknet.errors import UserError

AUTO = "auto"


def main(arguments: argparse.Namespace) -> None:
    """Convert; `--out` ends up with the shards and shards.json."""
    for name in ("shards", "workers", "shorter_side", "quality"):
        value = getattr(arguments, name)
        if value is not None and value != AUTO and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
    if arguments.quality > 100:
        raise UserError(f"--quality is {arguments.quality}, expected at most 100")
    if not 0 <= arguments.max_quarantine <= 1:
        raise UserError(f"--max-quarantine is {arguments.max_quarantine}, expected a share: 0 to 1")
    if arguments.json:
        program.make_directory(arguments.json.parent, "--json")

    if arguments.staged:
        staged = read_staged(arguments.staged)
    else:
        source = open_source(arguments.source)
        staged = stage_source(
            source,
            ScanCache(source),
            full=arguments.full,
            max_quarantine=arguments.max_quarantine,
        )
    program.make_directory(arguments.out, "--out")
    smaller, told = arguments.shorter_side, arguments.progress_file
    record = write_shards(
        staged,
        arguments.source,
        arguments.out,
        num_shards=None if arguments.shards == AUTO else arguments.shards,
        num_workers=arguments.workers,
        reencoding=reencoding_by(smaller, arguments.quality) if smaller else None,
        max_quarantine=arguments.max_quarantine,
        on_progress=ProgressLine(also=progress_file(told) if told else unheard),
    )
    program.write_record(record, arguments.json)


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = program.parser(__doc__.splitlines()[0])
    result.add_argument("--source", required=True, help="digits, fashion-mnist:DIR, DIR or s3://…")
    result.add_argument("--staged", type=Path, help="directory of the staged data set, if any")
    result.add_argument("--out", type=Path, required=True, help="new, empty, or to be gone on with")
    result.add_argument(
        "--shards",
        type=shards_option,
        required=True,
        help="of each split; auto: one for every 256 MiB of the split's images",
    )
    result.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    result.add_argument(
        "--shorter-side",
        type=int,
        metavar="PIXELS",
        help="images with a greater shorter side are resized to it; default: the original bytes",
    )
    result.add_argument("--quality", type=int, default=DEFAULT_QUALITY, help="of resized JPEGs")
    result.add_argument(
        "--max-quarantine",
        type=float,
        default=MAX_QUARANTINE,
        metavar="SHARE",
        help=f"of samples that may be left out; default: {MAX_QUARANTINE}",
    )
    result.add_argument("--full", action="store_true", help="read unchanged files again, too")
    result.add_argument("--json", type=Path, help="where the record goes as well")
    result.add_argument("--progress_file", type=Path, help=argparse.SUPPRESS)
    return result


def shards_option(text: str) -> int | str:
    """A count, or `auto`."""
    if text == AUTO:
        return AUTO
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor {AUTO}") from None


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
