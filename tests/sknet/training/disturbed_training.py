"""The program `sknet/train.py` with a network of three layers, and a disturbance of one rank.

The environment variable DISTURBANCE, if set, is "RANK STEP WHAT": before this step the rank
receives the signal WHAT, or hangs if WHAT is "hang".
"""

import os
import signal
import sys
import time
from typing import Any

from infra.base.commands import app_of, start
from sknet import train
from sknet.training import trainer
from sknet.training.loop import Loop
from tests.sknet.tiny_networks import ThreeLayers


def disturb() -> None:
    rank, at, what = os.environ["DISTURBANCE"].split()
    if os.environ["RANK_ID"] != rank:
        return
    begin_step = Loop._begin_step

    def act(self: Loop, step: int, *inputs: Any) -> object:
        if step == int(at):
            stand_still() if what == "hang" else os.kill(os.getpid(), signal.Signals[what])
        return begin_step(self, step, *inputs)

    Loop._begin_step = act


def stand_still() -> None:
    time.sleep(3600)


if __name__ == "__main__":
    trainer.create_model = lambda _name, num_classes: ThreeLayers(num_classes)
    if "DISTURBANCE" in os.environ:
        disturb()
    sys.exit(start(app_of(train.command, "disturbed_training")))
