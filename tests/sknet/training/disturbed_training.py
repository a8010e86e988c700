"""The program `sknet/train.py` with a network of three layers, and a disturbance of one rank.

The environment variable DISTURBANCE, if set, is "RANK STEP WHAT": after this step the rank receives
the signal WHAT, or hangs if WHAT is "hang".
"""

import os
import signal
import sys
import time
from typing import Any

from sknet import program, train
from sknet.training import trainer
from sknet.training.metrics import TrainingMetrics
from tests.sknet.tiny_networks import ThreeLayers


def disturb() -> None:
    rank, at, what = os.environ["DISTURBANCE"].split()
    if os.environ["RANK_ID"] != rank:
        return
    step_done = TrainingMetrics.step_done

    def act(self: TrainingMetrics, done: int, *values: Any, **named: Any) -> None:
        step_done(self, done, *values, **named)
        if done == int(at):
            stand_still() if what == "hang" else os.kill(os.getpid(), signal.Signals[what])

    TrainingMetrics.step_done = act


def stand_still() -> None:
    time.sleep(3600)


if __name__ == "__main__":
    trainer.create_model = lambda _name, num_classes: ThreeLayers(num_classes)
    if "DISTURBANCE" in os.environ:
        disturb()
    sys.exit(program.run(train.main, train.parser().parse_args()))
