"""The parts `resume` and `ranks`: the training program as jobs of the launcher."""

import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra.launch import Control, Job, JobResult, Outcome, run
from tests.bench.training_setup import Setup, print_turns, take_turns
from tests.processes import ROOT

# Epochs; jobs are killed or asked to stop long before.
ENDLESS = 1000
COLUMNS = ("detect", "start", "data", "compile and first step")


@dataclass
class JobRun:
    """A training job, which runs until `on_line` stops it."""

    directory: Path
    """Directory of its checkpoints and metrics."""
    workers: int
    cache: Path
    """Directory of compiled graphs."""

    def go(
        self, setup: Setup, on_line: Callable[[str], None], control: Control | None = None
    ) -> JobResult:
        """Run the job; each rank computes in one thread and reads in another."""
        attempt = setup.new_directory()
        recipe = attempt / "recipe.yaml"
        changes = {
            "image_resize": setup.options.job_resolution,
            "epoch_size": ENDLESS,
            "val_interval": ENDLESS,
            "checkpoint_every_steps": 1,
            "num_parallel_workers": 1,
        }
        recipe.write_text(json.dumps(setup.keys | changes), "utf-8")  # JSON is YAML
        job = Job(
            program=ROOT / "sknet/train.py",
            args=(
                *("--config", str(recipe), "--data_dir", str(setup.shards.directory)),
                *("--ckpt_save_dir", str(self.directory)),
                *("--outcome_file", str(attempt / "outcome.json")),
            ),
            workers=self.workers,
            log_dir=attempt / "logs",
            outcome_file=attempt / "outcome.json",
            cwd=attempt,
            env={
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "SKNET_CACHE": str(self.cache),
            },
            deadline=None,
            silence=None,
        )
        return run(job, on_line=on_line, control=control)

    def kill(self) -> float:
        """Send SIGKILL to the last rank; return the time."""
        ranks = [
            process
            for process in psutil.Process().children(recursive=True)
            if self._is_last_rank(process)
        ]
        (rank,) = ranks
        rank.send_signal(signal.SIGKILL)
        return time.monotonic()

    def _is_last_rank(self, process: psutil.Process) -> bool:
        if self.workers == 1:
            runs_program = any(word.endswith("train.py") for word in process.cmdline())
            return runs_program and not process.children()
        environment = process.environ()
        is_worker = environment.get("MS_ROLE") == "MS_WORKER"
        return is_worker and environment["RANK_ID"] == str(self.workers - 1)

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        text = (self.directory / "metrics.jsonl").read_text("utf-8")
        entries = [json.loads(line) for line in text.splitlines()]
        return [entry for entry in entries if entry["type"] == kind]


def is_step(line: str) -> bool:
    """Tell whether the line is rank 0's report of a step."""
    return " step " in line and " loss " in line


def measure_resume(setup: Setup) -> None:
    """Kill a rank once there is a checkpoint; start again as soon as the job has ended."""
    rounds = [_resume(setup) for _ in range(setup.options.rounds)]
    medians = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    names = (*COLUMNS, "all")
    print(f"\n| resume, ranks: {setup.options.ranks}, s | {' | '.join(names)} |")
    print("|---|" + "---:|" * len(names))
    cells = " | ".join(f"{medians[name]:.1f}" for name in names)
    print(f"| from SIGKILL to the first new step | {cells} |")
    shares = sorted(row["compile and first step"] / row["first compile"] for row in rounds)
    print(
        f"resume: {medians['all']:.1f} s; the first step takes {statistics.median(shares):.0%} "
        f"({shares[0]:.0%}-{shares[-1]:.0%}) of the {medians['first compile']:.1f} s of the first "
        "start, which filled the cache (goal at most 30 %)",
        flush=True,
    )


def _resume(setup: Setup) -> dict[str, float]:
    """Return the seconds of each column."""
    job = JobRun(setup.new_directory(), setup.options.ranks, setup.new_directory())
    killed: list[float] = []
    resumed: list[float] = []

    def kill_with_checkpoint(line: str) -> None:
        if not killed and is_step(line) and list(job.directory.glob("step-*")):
            killed.append(job.kill())

    def kill_after_step(line: str) -> None:
        if not resumed and is_step(line):
            resumed.append(time.monotonic())
            job.kill()

    _expect(job.go(setup, kill_with_checkpoint), Outcome.LOST_WORKER)
    restarted = time.monotonic()
    _expect(job.go(setup, kill_after_step), Outcome.LOST_WORKER)
    first, second = job.lines("compile")
    if second["step"] == 0:
        raise SystemExit("the job began anew instead of resuming")
    row = {
        "detect": restarted - killed[0],
        "data": second["first_batch_seconds"],
        "compile and first step": second["compile_seconds"],
    }
    row["all"] = resumed[0] - killed[0]
    row["start"] = row["all"] - sum(row[name] for name in COLUMNS if name != "start")
    return row | {"first compile": first["compile_seconds"]}


def measure_ranks(setup: Setup) -> None:
    """Measure the steps of whole jobs by their own metrics, with one global batch."""
    cache = setup.new_directory()

    def job(workers: int) -> Callable[[], float]:
        def rate() -> float:
            return _images_per_second(setup, JobRun(setup.new_directory(), workers, cache))

        return rate

    turns = take_turns({"2 ranks": job(2), "1 rank": job(1)}, setup.options.rounds)
    print_turns("ranks, images/s", turns, f"2 would be perfect; {os.cpu_count()} cores")


def _images_per_second(setup: Setup, job: JobRun) -> float:
    """Return images/s of the median step, without the first one, which compiles."""
    control, steps = Control(), setup.options.steps

    def stop_after_steps(line: str) -> None:
        nonlocal steps
        steps -= is_step(line)
        control.stop = steps < 0

    _expect(job.go(setup, stop_after_steps, control), Outcome.STOPPED)
    rates = [line["images_per_second"] for line in job.lines("step")[1:]]
    return float(statistics.median(rates))


def _expect(result: JobResult, status: Outcome) -> None:
    if result.status is not status:
        raise SystemExit(f"a job ended as {result.status}: {result.message}")
