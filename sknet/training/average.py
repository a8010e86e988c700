"""An exponential moving average of weights and BatchNorm's statistics."""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

# The share of the old average after t updates is decay · (1 - exp(-t / this)), as in MindCV.
WARM_UP = 2000
PREFIX = "ema"


class Average(nn.Cell):
    """The average of all of a network's parameters, which are named `ema.*` here."""

    def __init__(self, network: nn.Cell, decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.decay = decay
        self.followed = ms.ParameterTuple(list(network.get_parameters()))
        self.average = self.followed.clone(prefix=PREFIX, init="same")
        self.updates = Parameter(Tensor(0.0, mstype.float32), name=f"{PREFIX}.updates")

    def construct(self) -> bool:
        """Follow the network by one update."""
        ops.assign(self.updates, self.updates + 1)
        share = self.decay * (1 - ops.exp(-self.updates / WARM_UP))
        for index in range(len(self.average)):
            old, new = self.average[index], self.followed[index]
            ops.assign(old, old * share + new * (1 - share))
        return True
