"""The README's commands, as a reader types them, on a data set of this test's own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mindspore import load_checkpoint
from prefect.settings import PREFECT_API_URL

from infra.artifacts import open_store
from sknet.records import CheckpointChecks, Evaluation
from tests.documented import documented
from tests.tiny_pipeline import ROOT, Trained

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path, trained: Trained) -> Path:
    """A directory with the reader's images and recipe, the sources, and a store with a run."""
    (tmp_path / "sknet").symlink_to(ROOT / "sknet")
    shutil.copy(ROOT / "prefect.toml", tmp_path)
    shutil.copytree(trained.images, tmp_path / "DIR")
    shutil.copy(trained.recipe, tmp_path / "RECIPE.yaml")
    shutil.copytree(trained.store, tmp_path / "artifacts", copy_function=shutil.copy2)
    return tmp_path


def run(place: Path, words: list[str], **env: str) -> str:
    interpreter = Path(sys.executable).parent
    api = PREFECT_API_URL.value()
    assert api, "the flow harness has no server"
    ended = subprocess.run(
        words,
        cwd=place,
        env={
            **os.environ,
            "PATH": f"{interpreter}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_API_URL": api,
            **env,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, f"{words}:\n{ended.stdout[-4000:]}{ended.stderr[-4000:]}"
    return ended.stdout + ended.stderr


def test_train_on_ones_own_images_through_the_flow(place: Path) -> None:
    words = documented("python -m flows.train_sknet")
    assert words[words.index("--recipe") + 1] == "skresnet18_folder"
    # The recipe trains for 30 epochs at 128 pixels.
    shorter = ["epoch_size=1", "warmup_epochs=0", "image_resize=32", "batch_size=8"]
    said = run(place, [*words, *(word for value in shorter for word in ("--set", value))])
    # The store holds the same images from another recipe's run.
    assert "built       train, validate, promote, report" in said
    assert "reused      stage, convert" in said
    assert "promoted    refs/production" in said


@pytest.mark.alone  # --bind_core: a rank whose core another test holds waits for minutes
def test_train_on_two_workers_then_alone_then_validate(place: Path) -> None:
    said = run(place, documented("msrun"), MS_CPU_COMM_OP_TIMEOUT="600")
    assert "trained 12 steps: ckpt/step-00000012" in said
    two_workers = (place / "ckpt/step-00000012/model.ckpt").read_bytes()
    shutil.move(place / "ckpt", place / "ckpt-of-two")

    said = run(place, documented("python -m sknet.train"))
    assert "trained 12 steps: ckpt/step-00000012" in said
    assert (place / "ckpt/step-00000012/model.ckpt").read_bytes() != two_workers
    (shards,) = (place / "shards").iterdir()
    assert (shards / "shards.json").is_file()

    step = {"ckpt/step-00000100/model.ckpt": "ckpt/step-00000012/model.ckpt"}
    words = documented("python -m sknet.validate", step)
    said = run(place, [*words, "--json", "evaluation.json"])
    evaluation = Evaluation.read(place / "evaluation.json")
    assert evaluation.seen == 18
    assert f"({evaluation.correct_top1}/18)" in said

    page = "docs/evaluation.md"
    step = {"ckpt/step-00000100": "ckpt/step-00000012"}
    run(place, documented("python -m sknet.validate", step, page=page))
    assert CheckpointChecks.read(place / "evaluation/checks.json").passed
    assert Evaluation.read(place / "evaluation/evaluation.json") == evaluation
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert run(place, [sys.executable, "-c", snippet]).startswith(f"{evaluation.accuracy_top1} ")

    words = documented("python -m sknet.export", {"ckpt/step-00000100": "ckpt/step-00000012"})
    assert "wrote skresnet18.onnx for input (1, 3, 32, 32)" in run(place, words)
    assert (place / "skresnet18.onnx").is_file()


def test_fine_tune(place: Path, trained: Trained) -> None:
    old = open_store(str(trained.store)).load("checkpoint", trained.of("train").key)
    weights = {"ckpt_path=WEIGHTS": f"ckpt_path={old.path('model.ckpt')}"}
    words = documented("python -m sknet.train", weights, page="docs/recipes.md")
    shorter = ["epoch_size=1", "warmup_epochs=0", "image_resize=32"]
    options = (word for value in shorter for word in ("--set", value))
    said = run(place, [*words, *options])
    assert "trained 3 steps: ckpt/step-00000003" in said
    before = load_checkpoint(str(old.path("model.ckpt")))
    after = load_checkpoint(str(place / "ckpt/step-00000003/model.ckpt"))
    layers: dict[str, list[bool]] = {}
    for name in before:
        layer = name.split(".")[0]
        if layer in ("stem", "layer1", "layer2", "fc"):
            equal = before[name].asnumpy().tobytes() == after[name].asnumpy().tobytes()
            layers.setdefault(layer, []).append(equal)
    assert all(layers["stem"] + layers["layer1"])
    assert not any(layers["layer2"] + layers["fc"])


def test_convert(place: Path) -> None:
    run(place, documented("python -m sknet.convert"))
    assert len(list((place / "SHARDS").glob("*.mindrecord"))) == 16


def test_look_into_the_store(place: Path, trained: Trained) -> None:
    listed = run(place, documented("python -m infra.artifacts ls"))
    assert all(f"{result.kind}/{result.key}" in listed for result in trained.results)
    verified = run(place, documented("python -m infra.artifacts verify"))
    assert verified.endswith("artifacts verified, 0 damages\n")
    assert trained.of("train").key in run(place, documented("python -m infra.artifacts refs"))


def test_report_and_revalidate(place: Path, trained: Trained) -> None:
    run(place, documented("python -m flows.report"))
    kept = Path(str(trained.of("report").facts["html"]))
    assert (place / "reports/report.html").read_bytes() == kept.read_bytes()
    assert not (place / "reports/manifest.json").exists()
    said = run(place, documented("python -m flows.revalidate"))
    counts = trained.of("validate").facts
    assert f"as recorded: accuracy@1 {counts['correct_top1']}/{counts['seen']}" in said
