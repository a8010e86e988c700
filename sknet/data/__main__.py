"""Write a page that shows a data set: python -m sknet.data --source SOURCE --out REPORT.html.

With --data_dir SHARDS, it shows converted shards instead.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from infra.base.commands import OPTIONS, Flag, app_of, parsed_by, start
from infra.base.files import is_file
from infra.base.options import positive_int
from sknet import outputs, program
from sknet.data.scan_cache import ScanCache
from sknet.data.shards import read_shards
from sknet.data.sources import ALL_SPLITS, open_source
from sknet.data.staging import stage_source
from sknet.data.survey import MAX_MEASURED, survey_shards, survey_source
from sknet.errors import UserError
from sknet.options import LaunchedOptions
from sknet.records.data import SHARDS_FILE
from sknet.report.data_contents import DataContents
from sknet.report.data_page import render_data_page


def main(arguments: "Options") -> None:
    """Write the page, and print what is suspect in one line."""
    if (arguments.source is None) == (arguments.data_dir is None):
        raise UserError("give either --source, for images, or --data-dir, for shards")
    out = arguments.out
    outputs.prepare_file(out, "--out")
    contents = _contents(arguments)
    outputs.write_file(out, render_data_page(contents).encode(), "--out")
    print(f"{out}: {summary(contents)}")


def _contents(arguments: "Options") -> DataContents:
    if arguments.data_dir:
        if not is_file(arguments.data_dir / SHARDS_FILE):
            raise UserError(
                f"--data_dir {arguments.data_dir} has no shards.json: expected a directory that "
                "sknet.convert wrote; for images, give --source"
            )
        shards = read_shards(arguments.data_dir, ALL_SPLITS)
        return survey_shards(shards, str(arguments.data_dir), max_measured=arguments.measure)
    name = str(arguments.source)
    source = open_source(name)
    # Whatever can't be used is shown, however much it is.
    staged = stage_source(
        source,
        ScanCache(source),
        full=arguments.full,
        max_quarantine=1.0,
        report=lambda _level, line: print(line, flush=True),
    )
    return survey_source(staged, source, name, max_measured=arguments.measure)


def summary(contents: DataContents) -> str:
    """Return the number of images and classes, and what is suspect, in one line."""
    parts = [f"{len(contents.samples):,} images of {len(contents.dataset.titles):,} classes"]
    parts += [f"{kind.title.lower()}: {len(kind.groups):,}" for kind in contents.copies]
    parts += [f"{kind.kind}: {len(kind.rows):,}" for kind in contents.suspects]
    if contents.left_out:
        parts.append(f"left out: {len(contents.left_out):,}")
    return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Options(LaunchedOptions):
    """The options; one of `source` and `data_dir` is given."""

    source: str | None = None
    """Images: digits, fashion-mnist:DIR, DIR or s3://…"""
    data_dir: Path | None = None
    """A directory of shards, instead of `--source`."""
    out: Path
    """The page to write, such as data.html."""
    measure: Annotated[int, parsed_by(positive_int)] = MAX_MEASURED
    """Most images that are decoded, chosen at random, to measure their sizes and brightness."""
    full: Flag = False
    """Read all files again, also those that haven't changed."""


def command(options: Annotated[Options, OPTIONS]) -> int:
    """Write a page that shows a data set: its images, classes, copies and suspects.

    Example: `sknet data --source digits --out data.html`
    """
    return program.run(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.data")))
