"""revalidate: the promoted checkpoint, its bytes and its counts, against what was recorded.

python -m flows.revalidate --store URI
"""

import argparse
import sys
import tempfile
from pathlib import Path

from prefect import flow
from pydantic import JsonValue

from flows.command import quieten, run_flow
from tasks.promotion import promoted
from tasks.revalidation import reevaluate_promoted, verify_promoted


@flow(name="revalidate")
def revalidate(store: str = "artifacts") -> dict[str, JsonValue]:
    """Fails, saying what differs, unless everything is as it was recorded."""
    ref = verify_promoted(store)
    with tempfile.TemporaryDirectory(prefix="revalidate-") as scratch:
        return reevaluate_promoted(ref, store, Path(scratch))


def main(arguments: argparse.Namespace) -> None:
    """Check the input before anything starts, run the flow, say what was counted."""
    promoted(arguments.store)
    quieten()
    counts = revalidate(arguments.store)
    print(
        f"production is as recorded: accuracy@1 {counts['correct_top1']}/{counts['seen']}, "
        f"accuracy@5 {counts['correct_top5']}/{counts['seen']}"
    )


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--store", default="artifacts", help="a path, file:///… or s3://…")
    return result


if __name__ == "__main__":
    sys.exit(run_flow(main, parser().parse_args()))
