"""revalidate: is the promoted checkpoint intact, and does it still give the recorded results?

python -m flows.revalidate --store URI [--replica URI] [--data SOURCE] [--tolerance FRACTION]
"""

import sys
from dataclasses import dataclass
from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.command import call, prepare, run_flow, stoppable
from flows.parameters import Fraction
from infra.artifacts import absolute_uri, default_store, open_store
from infra.base.commands import OPTIONS, STORE, ConsoleOptions, app_of, parsed_by, start
from infra.base.options import fraction
from sknet.data.sources import absolute, open_source
from sknet.judgement import TOLERANCE
from sknet.records import Revalidation
from tasks.catalog.production import PRODUCTION, promoted
from tasks.errors import RegressionError
from tasks.pages import KEY_DIGITS, complete_run_name, run_name
from tasks.revalidate import (
    begin_revalidation,
    caught_up,
    record_revalidation,
    reevaluate_promoted,
    verify_promoted,
)


@flow(name="revalidate", flow_run_name=run_name(lambda **_: PRODUCTION))
@stoppable
def revalidate(
    store: str | None = None,
    replica: str | None = None,
    data: str | None = None,
    tolerance: Fraction = TOLERANCE,
) -> Revalidation | State[Revalidation | None] | None:
    """Check production's bytes and results; the run fails, saying what differs, if they changed.

    Without a result it ends as CaughtUp: a later revalidation has begun already.

    Args:
        store: The artifact store: a path, or s3://BUCKET/PREFIX. Empty: what SKNET_STORE says on
            the worker, or artifacts.
        replica: A store with copies, to replace damaged artifacts.
        data: Source of the images, to rebuild damaged shards.
        tolerance: Largest fraction of the samples for which other software or another device may
            predict another class.
    """
    store = store or default_store()
    check(store, replica, data)
    if reason := caught_up(store):
        return Completed(name="CaughtUp", message=reason)
    target = begin_revalidation(store)
    complete_run_name(f"{PRODUCTION} {target.ref.key[:KEY_DIGITS]}")
    bytes_found = verify_promoted(target, store, replica, data)
    outcome = reevaluate_promoted(target, bytes_found, store, tolerance)
    found = record_revalidation(target, outcome, store)
    if not found.passed:
        message = f"production ({target.ref.key[:10]}) is {found.outcome}: {found.said}"
        # A state, as Prefect would log an exception with its traceback.
        return Failed(message=message, data=RegressionError(message))
    return found


def check(store: str, replica: str | None, data: str | None) -> None:
    """Check that there is a production in the store, and that the other parameters exist.

    Raises:
        UserError: One of them doesn't, or the store can't be written.
    """
    promoted(store)
    open_store(store)  # what is found is recorded there
    if replica:
        open_store(replica, create=False)
    if data:
        next(open_source(data).files(), None)  # raises if there is none


def main(arguments: "Options") -> None:
    """Check the input before anything starts, run the flow, print what was found."""
    store = arguments.store or default_store()
    check(store, arguments.replica, arguments.data)
    prepare()
    found = call(
        revalidate,
        absolute_uri(store),
        arguments.replica and absolute_uri(arguments.replica),
        arguments.data and absolute(arguments.data),
        arguments.tolerance,
    )
    if found is None:
        return
    for repair in found.repairs:
        print(f"{repair.artifact} was damaged and {repair.how}: {repair.damages[0]}")
    if found.outcome == "within tolerance":
        print(found.said)
    if counts := found.found:
        print(f"production is {found.outcome}: accuracy@1 {counts.correct_top1}/{counts.seen}")


@dataclass(frozen=True, kw_only=True)
class Options(ConsoleOptions):
    """The options of a revalidation."""

    store: Annotated[str | None, STORE] = None
    """The artifact store: a path, file:///… or s3://…"""
    replica: str | None = None
    """A store with copies, made by `sknet store push`, to replace damaged artifacts."""
    data: str | None = None
    """Source of the images, to rebuild damaged shards."""
    tolerance: Annotated[float, parsed_by(fraction)] = TOLERANCE
    """Largest fraction of the samples, from 0 to 1, for which other software or another device may
    predict another class."""


DEFAULTS = Options()


def command(options: Annotated[Options, OPTIONS] = DEFAULTS) -> int:
    """Check that the promoted checkpoint is intact and still gives the recorded results.

    Example: `sknet revalidate --store artifacts`
    """
    return run_flow(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m flows.revalidate")))
