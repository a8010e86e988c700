"""The program `sknet/train.py` with a network of three layers, and what is to befall a rank.

The environment's DISTURBANCE, if it is there, is "RANK STEP WHAT": after that step the rank gets
the signal WHAT, or stands still if it is "hang".
"""

import os
import signal
import sys
import time
from typing import Any

from sknet import program, train
from sknet.training import metrics, trainer
from tests.sknet.three_layers import ThreeLayers


def disturb() -> None:
    rank, at, what = os.environ["DISTURBANCE"].split()
    if os.environ["RANK_ID"] != rank:
        return
    step_done = metrics.TrainingMetrics.step_done

    def act(self: metrics.TrainingMetrics, done: int, *values: Any, **named: Any) -> None:
        step_done(self, done, *values, **named)
        if done == int(at):
            stand_still() if what == "hang" else os.kill(os.getpid(), signal.Signals[what])

    metrics.TrainingMetrics.step_done = act


def stand_still() -> None:
    time.sleep(3600)


if __name__ == "__main__":
    trainer.create_model = lambda _name, num_classes: ThreeLayers(num_classes)
    if "DISTURBANCE" in os.environ:
        disturb()
    sys.exit(program.run(train.main, train.parser().parse_args()))
