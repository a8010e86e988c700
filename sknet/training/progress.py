"""What a training tells while it runs: lines for people, metrics.jsonl for programs."""

import time
from collections.abc import Callable
from typing import Any

from sknet.records import Evaluation, Run
from sknet.training.metrics import Clock, MetricsLog, StepTimes, host_memory_mib


class Progress:
    """Of one rank; without a log (every rank but the first) it only measures."""

    def __init__(
        self,
        run: Run,
        rates: list[float],
        start: int,
        log: MetricsLog | None,
        say: Callable[[str], None],
    ) -> None:
        self._run, self._rates, self._log, self._say = run, rates, log, say
        self._start, self._clock = start, Clock(start, run.total_steps)
        self._times = StepTimes()
        self._reported = 0
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """The next step is the first that counts for the epoch."""
        self._losses: list[float] = []
        self._epoch_began, self._epoch_first = time.monotonic(), self._times.num_steps

    def step_done(self, step: int, loss: float, *, wait: float, compute: float) -> None:
        """The step took `wait` seconds until its data was there, then `compute`."""
        times, log = self._times, self._log
        times.add(wait, compute)
        self._losses.append(loss)
        if log is None:
            return
        if step == self._start + 1:
            log.write(
                "compile",
                self._start,
                compile_seconds=times.compile_seconds,
                first_batch_seconds=wait,
            )
        if step % self._run.recipe.log_interval == 0 or step == self._run.total_steps:
            measured = self._measured(self._reported)
            self._reported = times.num_steps
            epoch = (step - 1) // self._run.steps_per_epoch
            log.write("step", step, epoch=epoch, loss=loss, lr=self._rates[step - 1], **measured)
            self._say(
                f"epoch {epoch + 1}/{self._run.recipe.epoch_size} "
                f"step {step}/{self._run.total_steps} loss {loss:.4f} "
                f"{measured.get('images_per_second', 0):.0f} images/s ETA {self._clock.eta(step)}"
            )

    def epoch_done(self, step: int, evaluation: Evaluation | None) -> None:
        """The step was the epoch's last; its numbers are of the steps since the start, if later."""
        if self._log is None:
            return
        counted = {"seen", "correct_top1", "correct_top5", "loss_sum"}
        counts: dict[str, Any] = evaluation.model_dump(include=counted) if evaluation else {}
        self._log.write(
            "epoch",
            step,
            epoch=(step - 1) // self._run.steps_per_epoch,
            train_loss=sum(self._losses) / len(self._losses),
            lr=self._rates[step - 1],
            seconds=time.monotonic() - self._epoch_began,
            **self._measured(self._epoch_first),
            **counts,
        )

    def training_done(self, checkpoint_seconds: float) -> None:
        """All steps; `checkpoint_seconds` of the time no step was done because of checkpoints."""
        if self._log:
            self._log.write(
                "end",
                self._run.total_steps,
                compile_seconds=self._times.compile_seconds,
                checkpoint_seconds=checkpoint_seconds,
                restarts=self._log.restarts,
                **self._measured(0),
            )

    def _measured(self, first: int) -> dict[str, float]:
        summary = self._times.summary(self._run.global_batch_size, first)
        return {**summary, "host_memory_mib": host_memory_mib()}
