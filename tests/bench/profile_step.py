"""Where a training step's time goes, operator by operator.

python -m tests.bench.profile_step [--model skresnet18] [--peer] [--batch 16] [--resolution 224]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd

from tests.bench.bench_model import in_mindspore, inputs

STEPS = 3


def main(arguments: argparse.Namespace) -> None:
    """Print milliseconds a step of each kind of operator."""
    from mindspore import profiler

    from sknet.models import create_model
    from sknet.training.device import set_device
    from tests.peers import mindcv_model

    set_device("CPU")
    network = (mindcv_model if arguments.peer else create_model)(arguments.model)
    step = in_mindspore(network, "step", *inputs(arguments.batch, arguments.resolution))
    for _ in range(2):
        step()
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
    table["ms"] = table["total_compute_time"] / STEPS
    table["calls"] = table["type_occurrences"] // STEPS
    table = table.sort_values("ms", ascending=False)[["op_type", "calls", "ms"]]
    print(table[table["ms"] >= 1].to_markdown(index=False, floatfmt=".0f"))
    print(f"all: {table['ms'].sum():.0f} ms")


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--model", default="skresnet18")
    result.add_argument("--peer", action="store_true", help="MindCV's network")
    result.add_argument("--batch", type=int, default=16)
    result.add_argument("--resolution", type=int, default=224)
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
