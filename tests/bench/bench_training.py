"""What the training loop costs besides its steps, and how it compares with MindCV's.

python -m tests.bench.bench_training [--images 96] [--batch 16] [--rounds 3] [--parts loop peer …]

| part | what is measured |
|---|---|
| loop | a step within our loop against the bare compiled step, both on a batch in memory |
| checkpoint | how much a save delays training, as a fraction of it at three intervals |
| resume | from SIGKILL of a rank to the first new step: detect, start, data, compile; and how much
  of the first compile remains with cached graphs |
| ranks | images/s of 2 ranks and of 1 on the same global batch, each with one thread |
| peer | an epoch (train, evaluate, save) of ours from shards against MindCV's `Model.train` with
  its StateMonitor, as its train.py calls them, from the same images in folders |

Contestants take turns, in reversed order every other round. Ratios are computed within each round;
the median over rounds is printed. Prints Markdown tables, and each turn to stderr; it checks no
limits.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.bench_input import print_conditions
from tests.bench.training_setup import Setup

# Read when MindSpore is imported.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

# The module that measures each part.
PARTS = {
    "loop": "training_loop",
    "checkpoint": "training_loop",
    "resume": "training_jobs",
    "ranks": "training_jobs",
    "peer": "training_peer",
}


def main(arguments: argparse.Namespace) -> None:
    """Measure the chosen parts."""
    print_conditions(arguments)
    with tempfile.TemporaryDirectory() as folder:
        # The user's own cache of compiled graphs is neither read nor written.
        os.environ["SKNET_CACHE"] = f"{folder}/cache"
        os.environ.pop("MS_COMPILER_CACHE_ENABLE", None)
        setup = Setup(Path(folder), arguments)
        for part in arguments.parts:
            module = importlib.import_module(f"tests.bench.{PARTS[part]}")
            began = time.perf_counter()
            getattr(module, f"measure_{part}")(setup)
            load = os.getloadavg()[0]
            print(f"({time.perf_counter() - began:.0f} s; load {load:.1f})", flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--images", type=int, default=96, help="images of each split (default 96)")
    result.add_argument("--batch", type=int, default=16, help="global batch (default 16)")
    result.add_argument("--resolution", type=int, default=224)
    result.add_argument("--job_resolution", type=int, default=112, help="in `resume` and `ranks`")
    result.add_argument("--rounds", type=int, default=3)
    result.add_argument("--steps", type=int, default=5, help="per turn of loop, checkpoint, ranks")
    result.add_argument("--interval", type=int, default=2, help="steps between checkpoints")
    result.add_argument("--ranks", type=int, default=2, help="of the job that is killed")
    result.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
