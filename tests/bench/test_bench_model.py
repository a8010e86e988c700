"""The benchmarks run and print what docs/internals/performance.md says they print."""

import re
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.slow


def run(module: str, *options: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_every_ratio_is_printed() -> None:
    text = (ROOT / "docs/internals/performance.md").read_text("utf-8")
    assert "$ python -m tests.bench.bench_model --iterations 1 --rounds 9 --cache\n" in text
    small = ("--models", "skresnet18", "--batch", "2", "--resolution", "32", "--rounds", "1")
    printed = run("tests.bench.bench_model", "--iterations", "1", *small)
    ratios = re.findall(r"^(step|forward): [\d.]+x (.+) \(", printed, re.MULTILINE)
    assert ratios == [
        *(("step", "MindCV"), ("step", "timm")),
        *(("forward", "MindCV"), ("forward", "timm"), ("forward", "timm folded")),
    ]


@pytest.mark.parametrize(
    ("contestant", "operator"),
    [("ours", "Conv2DBackpropFilter"), ("timm", "aten::convolution_backward")],
)
def test_the_profile_adds_up(contestant: str, operator: str) -> None:
    options = ("--contestant", contestant, "--batch", "2", "--resolution", "32")
    printed = run("tests.bench.profile_step", *options)
    *table, total = printed.splitlines()
    rows = [line.split("|")[1:4] for line in table if line.startswith("| ")][1:]
    assert operator in {name.strip() for name, _, _ in rows}
    shown = sum(float(milliseconds) for _, _, milliseconds in rows)
    # below a millisecond isn't shown, and what is shown is rounded
    assert shown - len(rows) / 2 <= float(total.removeprefix("all: ").removesuffix(" ms"))
