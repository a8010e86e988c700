"""What shards on demand change: what comes before the first step, and what a host holds."""

from dataclasses import dataclass
from functools import cache

from sknet.data.block_order import BlockOrder
from sknet.data.reading.training_batches import WINDOWS_AHEAD
from sknet.recipe.choices import DEFAULT_PARTS, DEFAULT_WINDOW
from tests.bench import scale_costs as costs
from tests.bench.scale_costs import Case

EPOCHS = 3
"""Epochs of which the busiest host is looked for; the order of the shards changes with each."""


@dataclass(frozen=True)
class OnDemand:
    """Shards of the order by blocks on the host that needs most of them."""

    parts: int
    """Parts into which an epoch is divided."""
    first: float
    """Bytes that come before the first step: those of one window of each part of the host."""
    held: float
    """Bytes that are on the host's disk at a time: the window that is read, those that are
    announced, and the validation split."""
    epoch: float
    """Bytes that come in an epoch, if none of them is still there."""

    @property
    def first_seconds(self) -> float:
        """Seconds that these bytes take on the link of the host."""
        return self.first / costs.BYTES_PER_SECOND_AND_HOST


@cache
def on_demand(case: Case, hosts: int, num_shards: int | None = None) -> OnDemand:
    """Return what comes to a host, and is held there, with the default window.

    There are as many parts as hosts where the default doesn't give each host a part.

    Args:
        case: The data set.
        hosts: Number of hosts.
        num_shards: Number of shards of all splits; None: as many as `--shards auto` makes.
    """
    parts = max(DEFAULT_PARTS, hosts)
    ranks = hosts * costs.CARDS_PER_HOST
    train = 1 - case.val / case.images
    num_shards = num_shards or costs.num_shards(case)
    shard_bytes = case.bytes / num_shards
    per_shard = int(case.images / num_shards)
    first = held = 0
    for epoch in range(EPOCHS):
        order = BlockOrder.of(
            [per_shard] * round(num_shards * train),
            parts=parts,
            window=DEFAULT_WINDOW,
            batch=ranks * costs.BATCH_PER_CARD,
            seed=42,
            epoch=epoch,
        )
        window = order.steps_of_window()
        for host in range(hosts):
            begin, _ = order.parts_of(host * costs.CARDS_PER_HOST, ranks)
            _, end = order.parts_of((host + 1) * costs.CARDS_PER_HOST - 1, ranks)
            first = max(first, len(order.shards_of(begin, end, 0, 1)))
            stop = (1 + WINDOWS_AHEAD) * window
            held = max(held, len(order.shards_of(begin, end, 0, stop)))
    return OnDemand(
        parts=parts,
        first=first * shard_bytes,
        held=held * shard_bytes + (1 - train) * case.bytes,
        epoch=train * case.bytes / hosts,
    )
