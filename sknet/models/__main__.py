"""Print the size and the work of every model: python -m sknet.models [--resolution 224]."""

import argparse
import sys

import pandas as pd

from sknet import program
from sknet.models import list_models, profile
from sknet.world import set_device


def main(arguments: argparse.Namespace) -> None:
    """Print a table with one row for each model."""
    set_device("CPU")
    rows = {name: profile(name, arguments.resolution) for name in list_models()}
    table = pd.DataFrame(
        {
            "params": [f"{row.params:,}" for row in rows.values()],
            "with statistics": [f"{row.params_with_statistics:,}" for row in rows.values()],
            f"GMACs @{arguments.resolution}": [f"{row.macs / 1e9:.2f}" for row in rows.values()],
        },
        index=pd.Index(list(rows), name="model"),
    )
    print(table.to_markdown(stralign="right", disable_numparse=True))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    result = program.parser(__doc__.split(":")[0])
    result.add_argument(
        "--resolution",
        type=int,
        default=224,
        metavar="PIXELS",
        help="side of the image for which multiply-accumulates are counted (default: 224)",
    )
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
