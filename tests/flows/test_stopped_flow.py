"""SIGUSR1 to a flow: its run ends as Stopped, is not retried, and the next run resumes from it."""

import os
import signal
import threading
from pathlib import Path

import pytest

from flows.train_sknet import train_sknet
from tasks.errors import JobStoppedError
from tests.tiny_pipeline import Trained, copy_shards, digests, run_flow_once, shown_by
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def test_a_stopped_run_says_so_and_the_next_one_resumes(trained: Trained, tmp_path: Path) -> None:
    store = tmp_path / "store"
    copy_shards(trained.store, store)
    checkpoints = ".work/checkpoint/*/checkpoints/step-*"

    def stop_after_the_first_checkpoint() -> None:
        wait_for(lambda: any(store.glob(checkpoints)))
        os.kill(os.getpid(), signal.SIGUSR1)

    stopper = threading.Thread(target=stop_after_the_first_checkpoint)
    stopper.start()
    stopped = train_sknet(
        recipe=str(trained.recipe),
        data=str(trained.images),
        store=str(store),
        workers=2,
        return_state=True,
    )
    stopper.join()
    assert (stopped.type.value, stopped.name) == ("CANCELLED", "Stopped")
    with pytest.raises(JobStoppedError, match=r"after step \d+ of 12, with checkpoint step-"):
        stopped.result()
    assert any(store.glob(checkpoints))
    assert not any(store.glob("checkpoint/*"))
    assert len(list(store.glob(".work/checkpoint/*/logs/train-*"))) == 1, "it was retried"

    flow_run, results = run_flow_once(trained.recipe, trained.images, store)
    assert [result.status for result in results][:3] == ["reused", "reused", "built"]
    assert digests(store) == digests(trained.store)
    bar = shown_by(flow_run)["training"]
    assert (bar.type, bar.data) == ("progress", 100.0)
