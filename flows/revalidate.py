"""revalidate: the promoted checkpoint, its bytes and its counts, against what was recorded.

python -m flows.revalidate --store URI [--replica URI] [--data SOURCE] [--tolerance SHARE]
"""

import argparse
import sys
from typing import cast

from prefect import flow
from prefect.states import Completed, Failed

from flows.command import quieten, run_flow
from infra.artifacts import open_store
from sknet.data.sources import open_source
from sknet.judgement import TOLERANCE
from sknet.records import Revalidation
from tasks.promote import promoted
from tasks.results import RegressionError
from tasks.revalidate import (
    begin_night,
    caught_up,
    record_night,
    reevaluate_promoted,
    verify_promoted,
)


@flow(name="revalidate")
def revalidate(
    store: str = "artifacts",
    replica: str | None = None,
    data: str | None = None,
    tolerance: float = TOLERANCE,
) -> Revalidation:
    """Fails, saying what differs, unless everything is as it was recorded."""
    if made_up := caught_up(store):
        return cast(Revalidation, Completed(name="CaughtUp", message=made_up))
    night = begin_night(store)
    soundness = verify_promoted(night, store, replica, data)
    found = record_night(night, reevaluate_promoted(night, soundness, store, tolerance), store)
    if not found.passed:
        said = f"production ({night.ref.key[:10]}) is {found.outcome}: {found.said}"
        # As a state, as an exception would be logged with its traceback.
        return cast(Revalidation, Failed(message=said, data=RegressionError(said)))
    return found


def main(arguments: argparse.Namespace) -> None:
    """Check the input before anything starts, run the flow, say what was found."""
    promoted(arguments.store)
    if arguments.replica:
        open_store(arguments.replica, create=False)
    if arguments.data:
        for _ in open_source(arguments.data).files():
            break
    quieten()
    found = revalidate(arguments.store, arguments.replica, arguments.data, arguments.tolerance)
    for repair in found.repairs:
        print(f"{repair.artifact} was damaged and {repair.how}: {repair.damages[0]}")
    if found.outcome == "within tolerance":
        print(found.said)
    if counts := found.found:
        print(
            f"production is {found.outcome}: accuracy@1 {counts.correct_top1}/{counts.seen}, "
            f"accuracy@5 {counts.correct_top5}/{counts.seen}"
        )


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    result.add_argument("--store", default="artifacts", help="a path, file:///… or s3://…")
    replica = "a store with copies (infra.artifacts push), to replace what is damaged"
    result.add_argument("--replica", metavar="URI", help=replica)
    result.add_argument("--data", metavar="SOURCE", help="to rebuild damaged shards from")
    result.add_argument(
        "--tolerance",
        type=share,
        default=TOLERANCE,
        metavar="SHARE",
        help="of the samples that other software may predict otherwise (%(default)s)",
    )
    return result


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return value


if __name__ == "__main__":
    sys.exit(run_flow(main, parser().parse_args()))
