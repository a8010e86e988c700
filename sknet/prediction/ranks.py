"""Predictions of many files by all ranks of a job, equal to those of one rank."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest

from pydantic import TypeAdapter

from sknet.evaluation.predictions import BATCH_SIZE
from sknet.prediction.predictor import Predictor
from sknet.prediction.results import Prediction, Unreadable

FILES_PER_ROUND = 16 * BATCH_SIZE
"""Files that a rank predicts between two exchanges of results."""

_RESULTS: TypeAdapter[tuple[Prediction | Unreadable, ...]] = TypeAdapter(
    tuple[Prediction | Unreadable, ...]
)


def predict_together(
    predictor: Predictor,
    files: Sequence[str],
    *,
    top: int,
    error_rate: float | None,
    done: Callable[[int], None],
) -> Iterator[Prediction | Unreadable]:
    """Yield the results of all files, in their order, on rank 0; nothing on the others.

    Of n ranks, rank r predicts the files r, r + n, … All of them have to read this to its end.

    Args:
        predictor: The network, with the ranks that share the work.
        files: The files, the same ones on every rank.
        top: Number of classes of each prediction.
        error_rate: See `Predictor.threshold`.
        done: Called with a number of files that are done.

    Raises:
        UserError: The error rate can't be kept.
        NonFiniteLossError: The weights have diverged.
    """
    world = predictor.world
    if world.size == 1:
        for each in predictor.stream(files, top=top, error_rate=error_rate):
            done(1)
            yield each
        return
    size = FILES_PER_ROUND * world.size
    for first in range(0, len(files), size):
        of_round = files[first : first + size]
        own = []
        for each in predictor.stream(
            of_round[world.rank :: world.size], top=top, error_rate=error_rate
        ):
            own.append(each)
            # The others are about as far.
            done(min(world.size, len(of_round) - world.size * (len(own) - 1)))
        parts = world.gather(_RESULTS.dump_json(tuple(own)))
        if world.rank == 0:
            rows = zip_longest(*(_RESULTS.validate_json(part) for part in parts))
            yield from (each for each in chain.from_iterable(rows) if each is not None)
