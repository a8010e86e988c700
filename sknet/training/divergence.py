"""What a training says when its loss or its weights are no finite numbers any more."""

from pathlib import Path

from sknet.data.diagnosis import sample_keys
from sknet.data.reading.segments import segment_indices
from sknet.errors import NonFiniteLossError
from sknet.records import Run, Shards
from sknet.training.world import World

# The others of the batch follow from the step.
KEYS_SHOWN = 16


def divergence(
    what: str, step: int, rate: float, run: Run, shards: Shards, shards_dir: Path, world: World
) -> NonFiniteLossError:
    """The error of one rank for step 1 … total_steps, with the keys of the samples it read there.

    `what` is the message's beginning, `rate` the learning rate of the step.
    """
    epoch, position = divmod(step - 1, run.steps_per_epoch)
    indices = segment_indices(run, shards, epoch, position, position + 1, world.rank, world.size)
    keys = sample_keys(shards, shards_dir, "train", indices[:KEYS_SHOWN])
    more = len(indices) - len(keys)
    return NonFiniteLossError(
        f"{what} step {step} (epoch {epoch + 1}, learning rate {rate:.6g}): lower lr or lengthen "
        f"the warm-up; samples of rank {world.rank}: {', '.join(keys)}"
        f"{f' and {more} more' if more else ''}"
    )
