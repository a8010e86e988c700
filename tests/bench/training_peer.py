"""The part `peer`: an epoch of MindCV's training against one of ours."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.bench.bench_input import NUM_CLASSES
from tests.bench.training_loop import compiled_training
from tests.bench.training_setup import MODEL, Setup, print_turns, take_turns
from tests.peers import mindcv_data, mindcv_model, mindcv_module

# Threads that read JPEGs, as many as ours.
NUM_WORKERS = 2


class MindCV:
    """MindCV's loader, network, loss, optimizer, Model and StateMonitor, as in its train.py."""

    def __init__(self, setup: Setup) -> None:
        data, self._utils = mindcv_data(), mindcv_module("mindcv.utils")
        self._loaders = {}
        for split in ("train", "val"):
            training = split == "train"
            dataset = data.create_dataset(
                name="",
                root=str(setup.folders),
                split=split,
                shuffle=training,
                num_parallel_workers=NUM_WORKERS,
            )
            self._loaders[split] = data.create_loader(
                dataset,
                setup.options.batch,
                drop_remainder=training,
                is_training=training,
                num_classes=NUM_CLASSES,
                transform=data.create_transforms(
                    "", setup.options.resolution, is_training=training
                ),
                num_parallel_workers=NUM_WORKERS,
            )
        self.steps_per_epoch = self._loaders["train"].get_dataset_size()
        network = mindcv_model(MODEL, num_classes=NUM_CLASSES)
        optimizer = mindcv_module("mindcv.optim").create_optimizer(
            network.trainable_params(),
            opt="momentum",
            lr=setup.keys["lr"],
            momentum=setup.keys["momentum"],
            weight_decay=0.0,
        )
        metrics = mindcv_module("mindcv.utils.trainer_factory").get_metrics(NUM_CLASSES)
        loss = mindcv_module("mindcv.loss").create_loss("CE")
        self._metric_names = list(metrics)
        self._model = self._utils.create_trainer(
            network, loss, optimizer, metrics, "O0", None, "fixed"
        )
        self._directory = str(setup.new_directory())

    def epoch(self) -> float:
        """Return the seconds of an epoch, with its evaluation and checkpoints."""
        monitor = self._utils.StateMonitor(
            self._model,
            model_name=MODEL,
            dataset_sink_mode=False,
            dataset_val=self._loaders["val"],
            metric_name=self._metric_names,
            ckpt_save_dir=self._directory,
            summary_dir=self._directory,
            rank_id=0,
            device_num=1,
        )
        began = time.perf_counter()
        with quiet_stdout():
            self._model.train(
                1, self._loaders["train"], callbacks=[monitor], dataset_sink_mode=False
            )
        return time.perf_counter() - began


def measure_peer(setup: Setup) -> None:
    """Measure an epoch of each (train, evaluate, save) after both have compiled."""
    ours, peer = compiled_training(setup), MindCV(setup)
    assert ours.run.steps_per_epoch == peer.steps_per_epoch
    contestants = {"MindCV": peer.epoch, "ours": ours.epoch}
    for epoch in contestants.values():
        epoch()  # compiles
    turns = take_turns(contestants, setup.options.rounds)
    print_turns("peer, s an epoch", turns, "goal at least 1.5")


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Hide what MindSpore's callbacks print."""
    with Path(os.devnull).open("w") as nowhere, mock.patch.object(sys, "stdout", nowhere):
        yield
