"""Trainings by the dozen: one process imports everything, and each training is a fork of it.

    python -m tests.sknet.training.forked_training SHARDS

reads lines from stdin, each a JSON list of jobs to start at the same time, and answers each with
the list of their exit codes. A job says what to do (`train` or `save`), where, and at which moment
the process is killed. The training is the real one, except for its network of three layers.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from sknet import program
from sknet.data.shards import read_shards
from sknet.options import LaunchedOptions
from sknet.planning import plan_run
from sknet.recipe import parse_recipe
from sknet.training import checkpoint, trainer
from sknet.training.inputs import InputMaker
from sknet.training.loop import Loop
from sknet.training.metrics import TrainingMetrics
from sknet.training.step import TrainStep
from sknet.training.stopping import StopRequest
from sknet.training.trainer import Options, Trainer
from sknet.world import ALONE, set_device
from tests.sknet.tiny_networks import ThreeLayers
from tests.sknet.training.checkpoints import new_step, state_at

RECIPE = {
    "model": "tiny",
    "image_resize": 32,
    "global_batch_size": 4,
    "epoch_size": 3,
    "lr": 0.01,
    "checkpoint_every_steps": 2,
    "keep_checkpoint_max": 2,
    "log_interval": 1,
}
FILLER = "filler"
FILE_EVENTS = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.truncate"}


class FileOperations:
    """Counts the operations that change a directory, and kills this process before one of them."""

    def __init__(self, directory: Path, kill_at: int | None) -> None:
        self.count = 0
        self._prefix, self._kill_at = str(directory), kill_at
        sys.addaudithook(self._hear)
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self._next()
            fsync(descriptor)

        os.fsync = counted

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            path, writes = (arguments or ("",))[0], event in FILE_EVENTS
        if writes and isinstance(path, str | Path) and str(path).startswith(self._prefix):
            self._next()

    def _next(self) -> None:
        self.count += 1
        if self.count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def report(line: str) -> None:
    """Print a line as the program does."""
    print(f"{line}\n", end="", flush=True)


def train(job: dict[str, Any], shards_dir: Path) -> int:
    """Train, and return the exit code of the program."""
    trainer.create_model = lambda _name, num_classes: ThreeLayers(num_classes)
    directory = Path(job["directory"])
    begin_step = Loop._begin_step

    def disturb(self: Loop, step: int, *inputs: Any) -> object:
        computed = begin_step(self, step, *inputs)
        if step in job.get("full_at_steps", ()):
            wait_for_saves()
            fill(directory)
        elif step in job.get("room_at_steps", ()):
            (directory / FILLER).unlink()
        if step == job.get("signal_at_step"):
            os.kill(os.getpid(), getattr(signal, job["signal"]))
        return computed

    Loop._begin_step = disturb
    if "seconds" in job:
        slow_down(job["seconds"])
    if "host_log" in job:
        watch_host(Path(job["host_log"]))
    recipe = parse_recipe(RECIPE | job["recipe"], where="recipe")
    set_device("CPU", recipe.mode)
    stop = StopRequest(distributed=False)
    options = Options(
        directory=directory,
        report=report,
        log_interval=recipe.log_interval,
        keep_checkpoint_max=recipe.keep_checkpoint_max,
        num_workers=recipe.num_parallel_workers,
        tensorboard=Path(job["tensorboard"]) if "tensorboard" in job else None,
    )

    def main(_: object) -> None:
        shards = read_shards(shards_dir)
        run = plan_run(recipe, shards.record, job.get("planned_workers", 1), "CPU")
        Trainer(run, shards, ALONE, stop, options).train()

    return program.run(main, LaunchedOptions(outcome_file=Path(f"{directory}.outcome")))


def watch_host(log: Path) -> None:
    """Log, as each step begins, the reads from the device so far and where its inputs were made."""
    num_reads, makers = 0, []
    as_numpy, make, take = Tensor.asnumpy, InputMaker.__call__, TrainStep.__call__

    def counted(self: Tensor) -> Any:
        nonlocal num_reads
        num_reads += 1
        return as_numpy(self)

    def watched(self: InputMaker, *values: Any) -> Any:
        makers.append(threading.current_thread().name)
        return make(self, *values)

    def logged(self: TrainStep, inputs: Any, **values: Any) -> Tensor:
        with log.open("a") as lines:
            print(json.dumps([num_reads, makers.pop(0)]), file=lines)
        return take(self, inputs, **values)

    Tensor.asnumpy, InputMaker.__call__, TrainStep.__call__ = counted, watched, logged


def slow_down(seconds: float) -> None:
    """Let each step take so much longer, and so does the host to note it."""
    take, note = TrainStep.__call__, TrainingMetrics.step_done

    def slow_step(self: TrainStep, *values: Any, **named: Any) -> Tensor:
        time.sleep(seconds)
        return take(self, *values, **named)

    def slow_note(self: TrainingMetrics, *values: Any, **named: Any) -> None:
        time.sleep(seconds)
        note(self, *values, **named)

    TrainStep.__call__, TrainingMetrics.step_done = slow_step, slow_note


def wait_for_saves() -> None:
    """Wait until no save is under way, so that the disk refuses the next one and no other."""
    for thread in threading.enumerate():
        if thread.name == "saver":
            thread.join()


def fill(disk: Path) -> None:
    """Fill a disk to the last byte."""
    with suppress(OSError), (disk / FILLER).open("wb", buffering=0) as file:
        for size in (1 << 12, 1):
            with suppress(OSError):
                while file.write(b"0" * size):
                    pass


def save(job: dict[str, Any]) -> int:
    """Save step 12 beside the steps 3, 6 and 9, and keep two."""
    statistics = np.ones((2, 3), np.float32)
    snapshot = checkpoint.Snapshot(checkpoint.parameters_of(new_step(12)), statistics)
    checkpoint.write(snapshot, Path(job["directory"]), state_at(12))
    checkpoint.remove_old(Path(job["directory"]), 2, best_step=3)
    return 0


def act(job: dict[str, Any], shards_dir: Path) -> int:
    """Do a job in the forked process."""
    os.environ |= job.get("environment", {})
    directory = Path(job["directory"])
    log = os.open(directory.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    operations = FileOperations(directory, job.get("kill_at"))
    if "file_limit" in job:
        if job["kill_at_limit"]:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
    code = save(job) if job["do"] == "save" else train(job, shards_dir)
    directory.with_suffix(".count").write_text(str(operations.count))
    return code


def start(job: dict[str, Any], shards_dir: Path) -> int:
    """Fork a process for a job and return its id."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = act(job, shards_dir)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):  # the limit of file sizes holds for the log too
                    stream.flush()
            os._exit(code)
    return pid


def main() -> None:
    """Do jobs until stdin ends."""
    for line in sys.stdin:
        pids = [start(job, Path(sys.argv[1])) for job in json.loads(line)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
