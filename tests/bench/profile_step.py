"""Where a training step's time goes, operator by operator.

python -m tests.bench.profile_step [--contestant ours|MindCV|timm] [--model skresnet18]
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests.bench.bench_model import contender, inputs

STEPS = 3


def main(arguments: argparse.Namespace) -> None:
    """Print the milliseconds per step of each operator that takes one or more."""
    os.environ |= {"OMP_NUM_THREADS": str(arguments.threads), "GLOG_v": "3"}
    images, labels = inputs(arguments.batch, arguments.resolution)
    step = contender(
        arguments.contestant, arguments.model, "step", images, labels, arguments.threads
    )
    for _ in range(2):
        step()
    table = (in_torch if arguments.contestant == "timm" else in_mindspore)(step)
    table = table.sort_values("ms", ascending=False)
    print(table[table["ms"] >= 1].to_markdown(index=False, floatfmt=".0f"))
    print(f"all: {table['ms'].sum():.0f} ms")


def in_mindspore(step: Callable[[], object]) -> pd.DataFrame:
    """Return operator, number of calls and milliseconds of one step."""
    from mindspore import profiler

    with tempfile.TemporaryDirectory() as folder:
        with profiler.profile(
            activities=[profiler.ProfilerActivity.CPU],
            on_trace_ready=profiler.tensorboard_trace_handler(folder),
        ) as profile:
            for _ in range(STEPS):
                step()
                profile.step()
        (file,) = Path(folder).rglob("cpu_op_type_info_*.csv")
        table = pd.read_csv(file)
    return pd.DataFrame(
        {
            "operator": table["op_type"],
            "calls": table["type_occurrences"] // STEPS,
            "ms": table["total_compute_time"] / STEPS,
        }
    )


def in_torch(step: Callable[[], object]) -> pd.DataFrame:
    """Return operator, number of calls and milliseconds of one step."""
    from torch import profiler

    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(STEPS):
            step()
    # Microseconds of the operator itself, without the operators that it calls.
    rows = [
        (event.key, event.count // STEPS, event.self_cpu_time_total / 1e3 / STEPS)
        for event in profile.key_averages()
    ]
    return pd.DataFrame(rows, columns=["operator", "calls", "ms"])


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--contestant", default="ours", choices=["ours", "MindCV", "timm"])
    result.add_argument("--model", default="skresnet18")
    result.add_argument("--batch", type=int, default=16)
    result.add_argument("--resolution", type=int, default=224)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
