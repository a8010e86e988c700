"""The benchmarks run and print what docs/performance.md says they print."""

import subprocess
import sys

import pytest

from tests.documented import ROOT

pytestmark = pytest.mark.slow


def run(module: str, *options: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_every_ratio_is_printed() -> None:
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    assert "$ python -m tests.bench.bench_model --iterations 1 --cache\n" in text
    small = ("--models", "skresnet18", "--batch", "2", "--resolution", "32", "--rounds", "1")
    printed = run("tests.bench.bench_model", "--iterations", "1", *small)
    for mode in ("step", "forward"):
        for peer in ("MindCV", "timm"):
            assert any(
                line.startswith(f"{mode}: ") and f"x {peer} " in line
                for line in printed.splitlines()
            )


def test_the_profile_adds_up() -> None:
    printed = run("tests.bench.profile_step", "--batch", "2", "--resolution", "32")
    assert "Conv2DBackpropFilter" in printed
    assert float(printed.splitlines()[-1].removeprefix("all: ").removesuffix(" ms")) > 0
