"""SIGUSR1 to a flow: its run ends as Stopped, once, and the next one goes on from there."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from flows.train_sknet import train_sknet
from tasks.results import JobStoppedError
from tests.tiny_pipeline import Trained, copy_shards, digests, run_flow_once, shown_by

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SECONDS_TO_START = 120


def test_stopped_run_says_so_and_is_gone_on_with(trained: Trained, tmp_path: Path) -> None:
    store = tmp_path / "store"
    copy_shards(trained.store, store)
    checkpoints = ".work/checkpoint/*/checkpoints/step-*"

    def ask_once_it_trains() -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while not any(store.glob(checkpoints)) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    asking = threading.Thread(target=ask_once_it_trains)
    asking.start()
    stopped = train_sknet(
        recipe=str(trained.recipe),
        data=str(trained.images),
        store=str(store),
        workers=2,
        return_state=True,
    )
    asking.join()
    assert (stopped.type.value, stopped.name) == ("CANCELLED", "Stopped")
    with pytest.raises(JobStoppedError, match=r"after step \d+ of 12, with checkpoint step-"):
        stopped.result()
    assert any(store.glob(checkpoints))
    assert not any(store.glob("checkpoint/*"))
    # Not tried again
    assert len(list(store.glob(".work/checkpoint/*/logs/train-*"))) == 1

    flow_run, results = run_flow_once(trained.recipe, trained.images, store)
    assert [result.status for result in results][:3] == ["reused", "reused", "built"]
    assert digests(store) == digests(trained.store)
    bar = shown_by(flow_run)["training"]
    assert (bar.type, bar.data) == ("progress", 100.0)
