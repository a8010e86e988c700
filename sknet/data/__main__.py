"""Write a page that shows a data set: python -m sknet.data --source SOURCE --out REPORT.html.

With --data_dir SHARDS, it shows converted shards instead.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from infra.base.files import replace_file
from infra.base.options import positive_int
from sknet import outputs, program
from sknet.data.scan_cache import ScanCache
from sknet.data.shards import read_shards
from sknet.data.sources import ALL_SPLITS, open_source
from sknet.data.staging import stage_source
from sknet.data.survey import MAX_MEASURED, survey_shards, survey_source
from sknet.errors import UserError
from sknet.report.data_contents import DataContents
from sknet.report.data_page import render_data_page


def main(arguments: argparse.Namespace) -> None:
    """Write the page, and print what is suspect in one line."""
    out: Path = arguments.out
    if out.is_dir():
        raise UserError(f"--out {out} is a directory: expected a file, such as {out / 'data.html'}")
    outputs.make_directory(out.parent, "--out")
    with outputs.writing(out, "--out"), tempfile.TemporaryFile(dir=out.parent):
        pass  # permissions aren't enough: the file system may be full or read-only
    contents = _contents(arguments)
    with outputs.writing(out, "--out"):
        replace_file(out, render_data_page(contents).encode())
    print(f"{out}: {summary(contents)}")


def _contents(arguments: argparse.Namespace) -> DataContents:
    if arguments.data_dir:
        if not (arguments.data_dir / "shards.json").is_file():
            raise UserError(
                f"--data_dir {arguments.data_dir} has no shards.json: expected a directory that "
                "sknet.convert wrote; for images, give --source"
            )
        shards = read_shards(arguments.data_dir, ALL_SPLITS)
        return survey_shards(shards, str(arguments.data_dir), max_measured=arguments.measure)
    source = open_source(arguments.source)
    # Whatever can't be used is shown, however much it is.
    staged = stage_source(
        source,
        ScanCache(source),
        full=arguments.full,
        max_quarantine=1.0,
        report=lambda _level, line: print(line, flush=True),
    )
    return survey_source(staged, source, arguments.source, max_measured=arguments.measure)


def summary(contents: DataContents) -> str:
    """Return the number of images and classes, and what is suspect, in one line."""
    parts = [f"{len(contents.samples):,} images of {len(contents.dataset.titles):,} classes"]
    parts += [f"{kind.title.lower()}: {len(kind.groups):,}" for kind in contents.copies]
    parts += [f"{kind.kind}: {len(kind.rows):,}" for kind in contents.suspects]
    if contents.left_out:
        parts.append(f"left out: {len(contents.left_out):,}")
    return ", ".join(parts)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    result = program.parser(__doc__.split(":")[0])
    data = result.add_mutually_exclusive_group(required=True)
    data.add_argument("--source", help="images: digits, fashion-mnist:DIR, DIR or s3://…")
    data.add_argument("--data_dir", type=Path, metavar="SHARDS", help="a directory of shards")
    result.add_argument(
        "--out", type=Path, required=True, metavar="REPORT.html", help="the page to write"
    )
    result.add_argument(
        "--measure",
        type=positive_int,
        default=MAX_MEASURED,
        metavar="N",
        help="most images that are decoded, chosen at random, to measure their sizes and "
        f"brightness (default: {MAX_MEASURED})",
    )
    result.add_argument(
        "--full", action="store_true", help="read all files again, also those that haven't changed"
    )
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
