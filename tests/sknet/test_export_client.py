"""An exported file predicts what was evaluated, also by a client that knows its record alone."""

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from sknet import export
from sknet.data.reading.pipeline import eval_batches, sample_keys
from sknet.data.shards import ShardSet, read_shards
from sknet.evaluation.predicting import predict
from sknet.evaluation.predictions import Floats, read_predictions, write_predictions
from sknet.exporting import origin
from sknet.exporting.comparison import compare_predictions, kept_classes
from sknet.models import formats
from sknet.models.sknet import SKNet
from sknet.recipe import parse_recipe
from sknet.records import Checkpoint, Run
from sknet.records.exported import ExportedFile
from sknet.training.checkpoint import Snapshot, parameters_of, write
from tests.processes import ROOT
from tests.sknet.conversions import convert
from tests.sknet.tiny_networks import tiny_network

SIDE = 32
RECIPE = {
    "model": "tiny",
    "image_resize": SIDE,
    "crop_pct": 0.875,
    "eval_preprocessing": "pillow",
    "global_batch_size": 3,
    "epoch_size": 1,
    "lr": 0.1,
    "num_parallel_workers": 1,
}
CLASSES = ("cat", "dog", "emu")
IMAGES = {
    "wide.png": ((300, 41), "RGB"),
    "tall.jpg": ((37, 250), "RGB"),
    "odd.png": ((101, 67), "RGB"),
    "tiny.png": ((3, 2), "RGB"),
    "strip.png": ((400, 5), "RGB"),
    "large.jpg": ((640, 480), "RGB"),
    "grey.jpg": ((90, 64), "L"),
    "cmyk.jpg": ((64, 90), "CMYK"),
    "alpha.png": ((77, 50), "RGBA"),
    "palette.png": ((50, 77), "P"),
}

Call = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("program_state")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders whose validation images have all kinds of sizes and colours."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(4)
    for name in CLASSES:
        (root / "train" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), tuple(random.integers(0, 256, 3))).save(
            root / "train" / name / "0.png"
        )
    for number, (file, ((width, height), mode)) in enumerate(IMAGES.items()):
        folder = root / "val" / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3))
        pixels = np.kron(coarse, np.ones((9, 9, 1)))[:height, :width]
        pixels = np.clip(pixels + random.normal(0, 30, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / file)
    return root


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    directory = tmp_path_factory.mktemp("client") / "shards"
    convert(photos, directory, num_shards=1)
    return read_shards(directory)


@pytest.fixture(scope="module")
def network(shards: ShardSet) -> SKNet:
    """A network that predicts several classes, with probabilities that depend on each pixel."""
    ms.set_seed(11)
    network = tiny_network(len(CLASSES)).set_train(False)
    recipe = parse_recipe(RECIPE, where="test")
    indices = np.arange(len(IMAGES))
    (((images,), _),) = eval_batches(recipe, shards, "val", indices, len(IMAGES), [SIDE])
    logits = network(ms.Tensor(images)).asnumpy()
    factor = 2 / logits.std(axis=0)
    network.fc.weight.set_data(network.fc.weight * ms.Tensor(factor[:, None]))
    network.fc.bias.set_data(ms.Tensor(-logits.mean(axis=0) * factor))
    return network


@pytest.fixture(scope="module")
def checkpoint(network: SKNet, shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run(
        recipe=parse_recipe(RECIPE, where="test"),
        classes=CLASSES,
        shards_digest=shards.record.content_digest,
        world_size=1,
        global_batch_size=3,
        steps_per_epoch=1,
        device_target="CPU",
        mindspore=ms.__version__,
    )
    state = Checkpoint(
        run=run,
        layouts=(),
        step=1,
        epoch=1,
        samples_seen=3,
        num_params=1,
        best_top1=None,
        best_step=None,
        evaluations=(),
        files=(),
    )
    directory = tmp_path_factory.mktemp("client-checkpoints")
    return write(Snapshot(parameters_of(network)), directory, state)


@pytest.fixture(scope="module")
def evaluation(network: SKNet, shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation keeps of its predictions."""
    recipe = parse_recipe(RECIPE, where="test")
    ms.set_context(mode=ms.GRAPH_MODE)
    predictions = predict(network, recipe, shards, batch_size=16, resolutions=[SIDE])[SIDE]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    directory = tmp_path_factory.mktemp("evaluation")
    keys = sample_keys(shards, "val", np.arange(len(predictions)))
    write_predictions(directory / "predictions.parquet", keys, predictions)
    return directory


@pytest.fixture(scope="module")
def exported(
    checkpoint: Path, shards: ShardSet, evaluation: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The file, as the program publishes it."""
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    words = ["--ckpt_path", checkpoint, "--data_dir", shards.directory, "--out", out]
    from infra.base.commands import app_of, start

    words += ["--evaluation", evaluation]
    with contextlib.redirect_stdout(io.StringIO()):
        assert start(app_of(export.command, "export"), [str(word) for word in words]) == 0
    return out


@pytest.fixture
def no_export(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces MindSpore's export, which takes seconds, by the file that it has made before."""

    def write(_network: SKNet, _shape: object, file: Path, _notes: object, **_: object) -> None:
        shutil.copyfile(exported, file)

    monkeypatch.setattr(formats, "write", write)


def test_the_record_says_that_every_validation_image_was_compared(exported: Path) -> None:
    record = ExportedFile.read(exported.with_name("model.onnx.json"))
    assert record.comparison is not None
    assert (record.comparison.seen, record.comparison.differing) == (len(IMAGES), ())
    assert record.comparison.expected_from == "evaluation"


def test_the_client_of_the_page_gets_the_evaluation_s_predictions(
    exported: Path, photos: Path, evaluation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Pillow and onnxruntime alone, for all sizes and colours of images."""
    page = (ROOT / "docs/export.md").read_text("utf-8")
    (client,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "sknet" not in client
    kept = read_predictions(evaluation / "predictions.parquet")
    assert len(set(kept.predicted.tolist())) > 1
    monkeypatch.chdir(exported.parent)
    monkeypatch.setattr(sys, "argv", ["client.py", *(str(photos / key) for key in kept.keys)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(client, "docs/export.md", "exec"), {})  # noqa: S102 (it is what is tested)
    lines = printed.getvalue().splitlines()
    assert len(lines) == len(IMAGES)
    for line, key, label, expected in zip(
        lines, kept.keys, kept.predicted, kept.probability, strict=True
    ):
        path, name, probability = line.rsplit(" ", 2)
        assert path == str(photos / key)
        assert name == CLASSES[label]
        assert abs(float(probability) - expected) < 1e-4, key


@pytest.fixture
def wrong_evaluation(evaluation: Path, away: Path) -> Path:
    """An evaluation with other predictions of two images."""
    kept = read_predictions(evaluation / "predictions.parquet")
    top = kept.top.copy()
    top[:2] = np.roll(top[:2], 1, axis=1)
    kept.__dict__["top"] = top
    (away / "wrong").mkdir()
    write_predictions(away / "wrong/predictions.parquet", kept.keys, kept)
    return away / "wrong"


def test_a_file_that_predicts_something_else_is_not_published_and_the_images_are_listed(
    call: Call,
    checkpoint: Path,
    shards: ShardSet,
    wrong_evaluation: Path,
    no_export: None,
    away: Path,
) -> None:
    kept = read_predictions(wrong_evaluation / "predictions.parquet")
    options = ["--ckpt_path", checkpoint, "--data_dir", shards.directory]
    options += ["--evaluation", wrong_evaluation, "--out", "model.onnx"]
    code, output, errors = call(export, *options)
    assert code == 1
    lines = [line for line in output.splitlines() if line.startswith("differs: ")]
    assert [line.split()[1] for line in lines] == list(kept.keys[:2])
    assert lines[0].endswith(f" instead of {CLASSES[kept.predicted[0]]!r}")
    assert errors.splitlines()[-1] == (
        "error: the file predicts other classes than the evaluation for 2 of 10 validation images, "
        "which are named above, and 0 may differ: nothing was written"
    )
    assert not list(away.glob("model*"))

    assert call(export, *options, "--max-differences", 2)[0] == 0
    comparison = ExportedFile.read(away / "model.onnx.json").comparison
    assert comparison is not None
    assert [each.key for each in comparison.differing] == list(kept.keys[:2])


def test_without_an_evaluation_the_network_s_predictions_are_expected(
    call: Call, checkpoint: Path, shards: ShardSet, no_export: None, away: Path
) -> None:
    code, output, errors = call(export, "--ckpt_path", checkpoint, "--data_dir", shards.directory)
    assert code == 0, errors
    said = "it predicts the class of the network for 10 of 10 validation images"
    assert output.splitlines()[-1].endswith(said)
    comparison = ExportedFile.read(away / "tiny.onnx.json").comparison
    assert comparison is not None
    assert comparison.expected_from == "network"


def test_without_images_the_last_line_says_that_predictions_are_unchecked(
    call: Call, checkpoint: Path, no_export: None, away: Path
) -> None:
    code, output, _ = call(export, "--ckpt_path", checkpoint)
    assert code == 0
    said = "its predictions are unchecked: --data_dir or --store has images"
    assert output.splitlines()[-1].endswith(said)
    assert ExportedFile.read(away / "tiny.onnx.json").comparison is None


def test_predictions_of_other_images_and_data_of_other_classes_are_refused(
    refused: Callable[..., str],
    checkpoint: Path,
    folders: Path,
    converted: ShardSet,
    evaluation: Path,
    no_export: None,
    away: Path,
) -> None:
    options = ["--ckpt_path", checkpoint, "--data_dir", converted.directory]
    line = refused(export, *options, "--evaluation", evaluation)
    assert line.startswith("error: the kept predictions are of 10 images and the data has 6, and ")
    line = refused(
        *(export, "--ckpt_path", checkpoint, "--data_dir", folders, "--evaluation", away)
    )
    assert "predictions.parquet can't be read: No such file" in line
    assert not (away / "shards").exists(), "the images were converted before"
    record = converted.record.model_copy(
        update={"dataset": converted.record.dataset.model_copy(update={"classes": ("a", "b", "c")})}
    )
    (away / "others").mkdir()
    for file in converted.directory.iterdir():
        (away / "others" / file.name).symlink_to(file)
    (away / "others/shards.json").unlink()
    record.write(away / "others/shards.json")
    line = refused(export, "--ckpt_path", checkpoint, "--data_dir", "others")
    assert line == "error: class 0 is 'cat' in the checkpoint, but 'a' in --data_dir: leave one out"


def test_a_fixed_number_of_images_is_padded_at_the_end(
    exported: Path, shards: ShardSet, evaluation: Path
) -> None:
    """Ten images in batches of four."""
    record = ExportedFile.read(exported.with_name("model.onnx.json"))
    fixed = record.model_copy(update={"input_shape": (4, 3, SIDE, SIDE)})
    kept = kept_classes(read_predictions(evaluation / "predictions.parquet"), shards)
    seen = []
    run = formats.loaded(exported)
    assert run is not None

    def forward(images: Floats) -> Floats:
        seen.append(len(images))
        return run(images)

    assert compare_predictions(forward, kept, fixed, shards).differing == ()
    assert seen == [4, 4, 4]


def test_data_without_validation_images_is_refused(
    refused: Callable[..., str], checkpoint: Path, shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "SPLIT", "test")  # of which there are no images
    line = refused(export, "--ckpt_path", checkpoint, "--data_dir", shards.directory)
    assert line == "error: the split test has no samples: nothing can be compared"


@pytest.mark.slow
def test_float16_halves_the_file_and_keeps_input_and_output(
    call: Call, checkpoint: Path, shards: ShardSet, evaluation: Path, exported: Path, away: Path
) -> None:
    options = ["--ckpt_path", checkpoint, "--data_dir", shards.directory]
    code, _, errors = call(
        export, *options, "--evaluation", evaluation, "--fp16", "--out", "half.onnx"
    )
    assert code == 0, errors
    record = ExportedFile.read(away / "half.onnx.json")
    assert record.precision == "float16"
    size, whole = (path.stat().st_size for path in (away / "half.onnx", exported))
    assert size < 0.6 * whole
    session = onnxruntime.InferenceSession(away / "half.onnx", providers=["CPUExecutionProvider"])
    for end in (*session.get_inputs(), *session.get_outputs()):
        assert end.type == "tensor(float)"
    images = np.random.default_rng(2).normal(0, 1, (3, 3, SIDE, SIDE)).astype(np.float32)
    half, full = formats.loaded(away / "half.onnx"), formats.loaded(exported)
    assert half is not None
    assert full is not None
    difference = np.abs(half(images) - full(images)).max()
    assert 0 < difference < 0.02 * np.abs(full(images)).max()
