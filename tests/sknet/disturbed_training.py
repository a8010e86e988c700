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
from sknet.training import metrics as progress
from sknet.training import trainer as starting
from tests.sknet.three_layers import ThreeLayers


def disturb() -> None:
    rank, at, what = os.environ["DISTURBANCE"].split()
    if os.environ["RANK_ID"] != rank:
        return
    step_done = progress.Progress.step_done

    def act(self: progress.Progress, done: int, *values: Any, **named: Any) -> None:
        step_done(self, done, *values, **named)
        if done == int(at):
            stand_still() if what == "hang" else os.kill(os.getpid(), signal.Signals[what])

    progress.Progress.step_done = act


def stand_still() -> None:
    time.sleep(3600)


if __name__ == "__main__":
    starting.create_model = lambda _name, num_classes: ThreeLayers(num_classes)
    if "DISTURBANCE" in os.environ:
        disturb()
    sys.exit(program.run(train.main, train.parser().parse_args()))
