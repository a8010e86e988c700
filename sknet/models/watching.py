"""Look at what passes through a network's cells, without a trace in its plain forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mindspore as ms
from mindspore import Tensor, nn

Watcher = Callable[[str, nn.Cell, Tensor], None]


@contextmanager
def watching(
    network: nn.Cell, kinds: type[nn.Cell] | tuple[type[nn.Cell], ...], watcher: Watcher
) -> Iterator[None]:
    """While this is open, `watcher(name, cell, output)` sees each forward of a cell of the kinds.

    The network runs operation by operation then, in evaluation mode; compiled graphs stay as they
    are.
    """

    def hook(name: str) -> Callable[[nn.Cell, object, Tensor], None]:
        return lambda cell, _, output: watcher(name, cell, output)

    handles = [
        cell.register_forward_hook(hook(name))
        for name, cell in network.cells_and_names()
        if isinstance(cell, kinds)
    ]
    mode, training = ms.get_context("mode"), network.training
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network.set_train(False)
    try:
        yield
    finally:
        network.set_train(training)
        ms.set_context(mode=mode)
        for handle in handles:
            handle.remove()
