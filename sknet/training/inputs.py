"""What a training step takes: the tensors of its batch, made on the host before they are needed."""

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn

from sknet.data.order import generator
from sknet.data.reading.training_batches import TrainBatch
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe
from sknet.world import World

MicroBatch = tuple[Tensor, Tensor, Tensor | None]
"""Images (N, 3, R, R) as pixels in uint8 or normalised in float32; labels (N,) or fractions of
classes (N, C); factors of the residual branches (blocks, N), where the recipe has stochastic depth.
"""

_DROP_PATH_STREAM = int.from_bytes(b"droppath")


class InputMaker:
    """Makes the tensors of one rank's batches. Any thread may use it."""

    def __init__(self, network: SKNet, recipe: Recipe, world: World) -> None:
        self._num_blocks = sum(network.architecture.depths)
        self._recipe, self._world = recipe, world

    def __call__(self, batch: TrainBatch, step: int) -> tuple[MicroBatch, ...]:
        """Return the tensors of a batch, one micro-batch for each accumulated pass.

        Tensors share the memory of the arrays, because a copy of a batch takes longer than all else
        that the host does for a step.

        Args:
            batch: This rank's part of the global batch.
            step: Number of steps done before.
        """
        images, labels = batch
        factors = self._factors(len(images), step)
        size = len(images) // self._recipe.gradient_accumulation_steps
        parts = (slice(start, start + size) for start in range(0, len(images), size))
        return tuple(
            (
                Tensor.from_numpy(images[part]),
                Tensor.from_numpy(labels[part]),
                None if factors is None else Tensor(factors[:, part]),
            )
            for part in parts
        )

    def _factors(self, batch_size: int, step: int) -> npt.NDArray[np.float32] | None:
        """Return this rank's part of the factors of the global batch."""
        if not self._recipe.drop_path_rate:
            return None
        drawn = branch_factors(
            self._num_blocks,
            self._recipe.drop_path_rate,
            seed=self._recipe.seed,
            step=step,
            global_batch=batch_size * self._world.size,
        )
        return drawn[:, self._world.rank * batch_size : (self._world.rank + 1) * batch_size]


class Normalise(nn.Cell):
    """Normalises images that arrive as pixels, with the numbers of `batch_operations.normalise`."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.mean, self.std = (
            Tensor(np.reshape(np.array(values, np.float32), (1, -1, 1, 1)))
            for values in (recipe.mean, recipe.std)
        )

    def construct(self, images: Tensor) -> Tensor:
        """Map pixels (N, 3, R, R) in uint8 to (x - mean) / std in float32; keep float images."""
        if images.dtype != ms.uint8:
            return images
        return (images.astype(ms.float32) - self.mean) / self.std


def branch_factors(
    num_blocks: int, rate: float, *, seed: int, step: int, global_batch: int
) -> npt.NDArray[np.float32]:
    """Draw the factors of all residual branches for one step of stochastic depth.

    They depend on seed and step, not on the ranks or the device, so that a resumed run repeats
    them. (The random numbers of nn.Dropout on CPU depend on the order of its threads.)

    Returns:
        (num_blocks, global_batch): 0 where a sample skips a block, otherwise the reciprocal of the
        probability not to skip it, so that the mean of the branch stays.
    """
    kept = 1 - drop_rates(num_blocks, rate)[:, None]
    drawn = generator(_DROP_PATH_STREAM, seed, step).random((num_blocks, global_batch))
    return np.where(drawn < kept, 1 / kept, 0).astype(np.float32)


def drop_rates(num_blocks: int, rate: float) -> npt.NDArray[np.float64]:
    """Return each block's probability of being skipped: linear from 0 to `rate`, as in MindCV."""
    return np.linspace(0, rate, num_blocks)
