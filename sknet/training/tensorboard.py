"""The numbers of metrics.jsonl as TensorBoard event files, for those who compare runs there."""

from pathlib import Path
from typing import Any

from sknet.errors import UserError


class TensorBoard:
    """A sink of MetricsLog: tags are `step/loss`, `epoch/train_loss` and so on."""

    def __init__(self, directory: Path, start_step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs tensorboardX: pip install 'sknet[tensorboard]'"
            ) from None
        # TensorBoard hides what an interrupted run wrote from this step on.
        self._writer = SummaryWriter(str(directory), purge_step=start_step + 1)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Everything that is a number."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush."""
        self._writer.close()
