"""The README's commands, as a reader types them, on a data set of this test's own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mindspore import load_checkpoint

from infra.artifacts import open_store
from sknet.records import CheckpointChecks, Evaluation
from tests.documented import documented
from tests.flow_runs import harness_api
from tests.processes import ROOT
from tests.tiny_pipeline import Trained
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.slow

# The recipe skresnet18_folder trains for 30 epochs at 128 pixels.
CHANGES = ("model=tiny", "epoch_size=1", "warmup_epochs=0", "image_resize=32")
SHORTER = [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture
def directory(tmp_path: Path, trained: Trained) -> Path:
    """A reader's directory: images, a recipe, the sources, and a store with a run."""
    (tmp_path / "sknet").symlink_to(ROOT / "sknet")
    shutil.copy(ROOT / "prefect.toml", tmp_path)
    shutil.copytree(trained.images, tmp_path / "DIR")
    shutil.copy(trained.recipe, tmp_path / "RECIPE.yaml")
    shutil.copytree(trained.store, tmp_path / "artifacts", copy_function=shutil.copy2)
    return tmp_path


def run(directory: Path, words: list[str], **env: str) -> str:
    interpreter = Path(sys.executable).parent
    ended = subprocess.run(
        words,
        cwd=directory,
        env={
            **os.environ,
            "PATH": f"{interpreter}{os.pathsep}{os.environ['PATH']}",
            **harness_api(),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, f"{words}:\n{ended.stdout[-4000:]}{ended.stderr[-4000:]}"
    return ended.stdout + ended.stderr


@pytest.mark.long
def test_train_on_ones_own_images_through_the_flow(directory: Path) -> None:
    words = documented("sknet run --recipe")
    assert words[words.index("--recipe") + 1] == "skresnet18_folder"
    shutil.rmtree(directory / "artifacts/refs")  # so that any accuracy is promoted
    output = run(directory, [*words, *SHORTER, "--set", "batch_size=8"])
    # The store holds the same images from another recipe's run.
    assert "built       train, validate, promote, report" in output
    assert "reused      stage, convert" in output
    assert "promoted    refs/production" in output


@pytest.mark.timed  # --bind_core: a rank whose core another process uses waits for minutes
def test_train_on_two_workers(directory: Path) -> None:
    output = run(directory, documented("msrun"), MS_CPU_COMM_OP_TIMEOUT="600")
    assert "trained 12 steps: ckpt/step-00000012" in output


@pytest.mark.long
def test_train_in_one_process_then_validate(directory: Path) -> None:
    output = run(directory, documented("sknet train"))
    assert "trained 12 steps: ckpt/step-00000012" in output
    (shards,) = (directory / "shards").iterdir()
    assert (shards / "shards.json").is_file()

    step = {"ckpt/step-00000100": "ckpt/step-00000012"}
    words = documented("sknet validate", step)
    output = run(directory, [*words, "--json", "evaluation.json"])
    evaluation = Evaluation.read(directory / "evaluation.json")
    assert evaluation.seen == 18
    assert f"({evaluation.correct_top1}/18)" in output

    page = "docs/evaluation.md"
    run(directory, documented("sknet validate", step, page=page))
    assert CheckpointChecks.read(directory / "evaluation/checks.json").passed
    assert Evaluation.read(directory / "evaluation/evaluation.json") == evaluation
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    printed = run(directory, [sys.executable, "-c", snippet])
    assert printed.startswith(f"{evaluation.accuracy_top1} ")


def test_export_production(directory: Path) -> None:
    output = run(directory, documented("sknet export"))
    assert "wrote model.onnx for input (N, 3, 32, 32), and model.onnx.json; " in output
    assert (directory / "model.onnx").is_file()


@pytest.mark.long
def test_fine_tune(directory: Path, trained: Trained) -> None:
    old = open_store(str(trained.store)).load("checkpoint", trained.of("train").key)
    weights = {"ckpt_path=WEIGHTS": f"ckpt_path={old.path('model.ckpt')}"}
    words = documented("sknet train", weights, page="docs/recipes.md")
    output = run(directory, [*words, *SHORTER])
    assert "trained 3 steps: ckpt/step-00000003" in output
    before = load_checkpoint(str(old.path("model.ckpt")))
    after = load_checkpoint(str(directory / "ckpt/step-00000003/model.ckpt"))
    layers: dict[str, list[bool]] = {}
    for name in before:
        layer = name.split(".")[0]
        if layer in ("stem", "layer1", "layer2", "fc"):
            equal = before[name].asnumpy().tobytes() == after[name].asnumpy().tobytes()
            layers.setdefault(layer, []).append(equal)
    assert all(layers["stem"] + layers["layer1"])
    assert not any(layers["layer2"] + layers["fc"])


@pytest.mark.long
def test_look_at_the_images_and_convert_them(directory: Path) -> None:
    run(directory, documented("sknet data"))
    assert (directory / "data.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    run(directory, documented("sknet convert"))
    assert len(list((directory / "SHARDS").glob("*.mindrecord"))) == 16


def test_look_into_the_store(directory: Path, trained: Trained) -> None:
    listed = run(directory, documented("sknet store ls"))
    assert all(f"{result.kind}/{result.key}" in listed for result in trained.results)
    verified = run(directory, documented("sknet store verify"))
    assert verified.endswith("artifacts verified, 0 damages\n")
    assert trained.of("train").key in run(directory, documented("sknet store refs"))


@pytest.mark.long
def test_report_and_revalidate(directory: Path, trained: Trained) -> None:
    run(directory, documented("sknet report"))
    kept = Path(str(trained.of("report").facts["html"]))
    assert (directory / "reports/report.html").read_bytes() == kept.read_bytes()
    assert not (directory / "reports/manifest.json").exists()
    output = run(directory, documented("sknet revalidate"))
    counts = trained.of("validate").facts
    assert f"as recorded: accuracy@1 {counts['correct_top1']}/{counts['seen']}" in output
