"""Convert a source of images into MindRecord shards.

python -m sknet.convert --source SOURCE --out DIR --shards N [--workers N] [--json OUT]
"""

import argparse
import os
import sys
from pathlib import Path

from sknet import program
from sknet.errors import UserError


def main(arguments: argparse.Namespace) -> None:
    """Convert; `--out` ends up with the shards and shards.json."""
    for name in ("shards", "workers"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} is {getattr(arguments, name)}, expected at least 1")
    from sknet.data.shards import ProgressLine, write_shards
    from sknet.data.sources import open_source
    from sknet.data.staging import read_staged, stage

    if arguments.staged:
        staged = read_staged(arguments.staged)
    else:
        staged = stage(open_source(arguments.source))
    program.make_directory(arguments.out, "--out")
    shards = write_shards(
        staged,
        arguments.source,
        arguments.out,
        num_shards=arguments.shards,
        num_workers=arguments.workers,
        on_progress=ProgressLine(),
    )
    program.write_record(shards, arguments.json)


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = program.parser(__doc__.splitlines()[0])
    result.add_argument("--source", required=True, help="folders of images, or 'digits'")
    result.add_argument("--staged", type=Path, help="directory of the staged data set, if any")
    result.add_argument("--out", type=Path, required=True)
    result.add_argument("--shards", type=int, required=True, help="of each split")
    result.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    result.add_argument("--json", type=Path, help="where the record goes as well")
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
