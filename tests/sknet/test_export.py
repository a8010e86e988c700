"""Exported files compute what their network does, and describe their inputs."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto
from pydantic import ValidationError

from sknet import export
from sknet.architectures import ARCHITECTURES
from sknet.exporting.origin import find_origin
from sknet.models import create_model, formats
from sknet.models.sknet import SKNet
from sknet.models.weights import save_safetensors
from sknet.recipe import parse_recipe
from sknet.records import Checkpoint, Run
from sknet.records.exported import ExportedFile, ExportedModel
from sknet.training.checkpoint import Snapshot, parameters_of, write
from tests.sknet.tiny_networks import TINY, TINY_BOTTLENECK

SIDE = 64
MODELS = {"basic": TINY, "bottleneck": TINY_BOTTLENECK}
RECIPE = {
    "model": "basic",
    "image_resize": SIDE,
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "mean": [100, 110, 120],
    "std": [50, 60, 70],
    "global_batch_size": 4,
    "epoch_size": 1,
    "lr": 0.1,
}
CLASSES = ("cat", "dog", 'the "emu"')

Call = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


pytestmark = pytest.mark.usefixtures("program_state")


@pytest.fixture
def call(call: Call) -> Call:
    """Runs the program with options: its exit code, what it printed, its errors."""
    return partial(call, export, "--quiet")  # progress would be among the errors


@pytest.fixture
def refused(call: Call, away: Path) -> Refused:
    """Runs the program and returns the line with which it refuses; it must leave no files."""

    def run(*options: object) -> str:
        before = sorted(away.rglob("*"))
        code, output, errors = call(*options)
        assert (code, output) == (2, ""), errors
        assert sorted(away.rglob("*")) == before
        (line,) = errors.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.fixture(scope="module", autouse=True)
def models() -> Iterator[None]:
    """Two small models, for the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in MODELS.items():
            patch.setitem(ARCHITECTURES, name, architecture)
        yield


@pytest.fixture(scope="module")
def networks(models: None) -> dict[str, SKNet]:
    """The models, whose BatchNorm is not the identity."""
    random = np.random.default_rng(3)
    result = {}
    ms.set_seed(3)
    for name in MODELS:
        network = create_model(name, num_classes=len(CLASSES))
        for parameter in network.get_parameters():
            if parameter.name.endswith(("gamma", "moving_variance")):
                value = random.uniform(0.5, 1.5, parameter.shape)
            elif parameter.name.endswith(("beta", "moving_mean")):
                value = random.normal(0, 0.2, parameter.shape)
            else:
                continue
            parameter.set_data(ms.Tensor(value.astype(np.float32)))
        result[name] = network.set_train(False)
    return result


@pytest.fixture(scope="module")
def checkpoint(networks: dict[str, SKNet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The basic model as a training saves it; not to be changed."""
    run = Run(
        recipe=parse_recipe(RECIPE, where="test"),
        classes=CLASSES,
        shards_digest="0" * 64,
        world_size=1,
        global_batch_size=4,
        steps_per_epoch=1,
        device_target="CPU",
        mindspore=ms.__version__,
    )

    counts = {"step": 1, "epoch": 1, "samples_seen": 4, "num_params": 1}
    state = Checkpoint(
        run=run, layouts=(), best_top1=None, best_step=None, evaluations=(), files=(), **counts
    )
    snapshot = Snapshot(parameters_of(networks["basic"]))
    return write(snapshot, tmp_path_factory.mktemp("checkpoints"), state)


@pytest.fixture(scope="module")
def weights(networks: dict[str, SKNet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bottleneck as a file of weights alone; not to be changed."""
    path = tmp_path_factory.mktemp("weights") / "bottleneck.ckpt"
    ms.save_checkpoint(networks["bottleneck"], str(path))
    return path


@pytest.fixture
def no_mindspore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the export by MindSpore, which takes seconds; nothing can run the file."""

    def write(_network: SKNet, _shape: object, file: Path, _notes: object, **_: object) -> None:
        file.touch()

    monkeypatch.setattr(formats, "write", write)
    monkeypatch.setattr(formats, "loaded", lambda _file: None)


def logits_of(file: Path, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if file.suffix == ".mindir":
        return nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)).asnumpy()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def notes_in(file: Path) -> dict[str, str]:
    if file.suffix == ".mindir":
        return dict(ModelProto.FromString(file.read_bytes()).user_info)
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("basic", "MINDIR"),
        ("bottleneck", "ONNX"),
        pytest.param("bottleneck", "MINDIR", marks=pytest.mark.long),
        pytest.param("basic", "ONNX", marks=pytest.mark.long),
    ],
)
def test_the_exported_file_computes_what_the_network_does(
    call: Call,
    networks: dict[str, SKNet],
    checkpoint: Path,
    weights: Path,
    away: Path,
    name: str,
    file_format: str,
) -> None:
    if name == "basic":
        source = ["--ckpt_path", checkpoint]
        out, side, batch_size = Path(f"basic.{file_format.lower()}"), SIDE, None
    else:
        (away / "names.txt").write_text("\n".join(CLASSES) + "\n")
        source = ["--ckpt_path", weights, "--model", name, "--classes", "names.txt"]
        out, side, batch_size = Path(f"a folder/b c.{file_format.lower()}"), 45, 2
        source += ["--out", out, "--resolution", side, "--batch_size", batch_size]
    code, output, errors = call(*source, "--format", file_format)
    assert code == 0, errors
    assert output.startswith(f"wrote {out} for input ({batch_size or 'N'}, 3, {side}, {side})")
    assert "its logits differ from the network's by " in output
    beside = sorted(path.name for path in out.absolute().parent.iterdir())
    assert [path for path in beside if path != "names.txt"] == [out.name, f"{out.name}.json"]

    for count in (2,) if batch_size else (1, 2, 5):  # without a fixed number, any is taken
        images = np.random.default_rng(8).normal(0, 1, (count, 3, side, side)).astype(np.float32)
        expected = networks[name](ms.Tensor(images)).asnumpy()
        np.testing.assert_allclose(
            logits_of(out, images), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
        )

    record = ExportedFile.read(Path(f"{out}.json"))
    assert (record.model, record.num_classes, record.classes) == (name, 3, CLASSES)
    assert record.input_shape == (batch_size, 3, side, side)
    notes = {key: json.loads(value) for key, value in notes_in(out).items()}
    assert ExportedModel.model_validate_json(json.dumps(notes)).notes == notes_in(out)
    recorded = record.model_dump(mode="json")
    assert {key: recorded[key] for key in notes} == notes
    assert record.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    if file_format == "ONNX":
        (opset,) = onnx.load(out).opset_import
        assert record.opset == opset.version
    else:
        assert record.opset is None
    preprocessing = (
        *(record.resize, record.interpolation, record.crop_pct, record.eval_preprocessing),
        *(record.mean, record.std, record.channel_order, record.layout),
    )
    if name == "basic":
        ours = (71, "bicubic", 0.9, "mindcv", (100, 110, 120), (50, 60, 70), "RGB", "NCHW")
        assert preprocessing == ours
    else:
        imagenet = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
        assert preprocessing == (51, "bilinear", 0.875, "pillow", *imagenet, "RGB", "NCHW")


def test_the_resize_is_rounded_down_as_in_the_evaluation(
    call: Call, weights: Path, no_mindspore: None, away: Path
) -> None:
    """96 / 0.9 is 106.67: an evaluation resizes to 106."""
    (away / "recipe.yaml").write_text(
        json.dumps(RECIPE | {"model": "bottleneck", "num_classes": 3})
    )
    options = ("--ckpt_path", weights, "--config", "recipe.yaml", "--format", "MINDIR")
    assert call(*options, "--resolution", 96)[0] == 0
    record = ExportedFile.read(away / "bottleneck.mindir.json")
    assert (record.model, record.num_classes, record.classes) == ("bottleneck", 3, None)
    assert (record.input_shape, record.resize, record.crop) == ((None, 3, 96, 96), 106, 96)
    assert (record.interpolation, record.mean) == ("bicubic", (100, 110, 120))
    assert (record.eval_preprocessing, record.max_aspect) == ("pillow", 16)
    assert "106 * longer // shorter" in " ".join(record.steps)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("timm", ("pillow", "bicubic")), ("sknet", ("pillow", "bilinear"))],
)
def test_weights_of_timm_are_resized_as_timm_does(
    call: Call,
    networks: dict[str, SKNet],
    no_mindspore: None,
    away: Path,
    layout: str,
    expected: tuple[str, str],
) -> None:
    save_safetensors(networks["bottleneck"], away / "weights.safetensors", layout)
    given = ("--ckpt_path", "weights.safetensors", "--model", "bottleneck", "--num_classes", 3)
    code, _, errors = call(*given, "--format", "MINDIR")
    assert code == 0, errors
    record = ExportedFile.read(away / "bottleneck.mindir.json")
    assert (record.eval_preprocessing, record.interpolation) == expected


def test_a_record_of_an_earlier_version_is_read_with_its_evaluation_s_rounding() -> None:
    fields = {
        "format_version": 1,
        "format": "ONNX",
        "sha256": "1" * 64,
        "model": "skresnet18",
        "num_classes": 3,
        "classes": list(CLASSES),
        "input_shape": [1, 3, 96, 96],
        "layout": "NCHW",
        "channel_order": "RGB",
        "resize": 107,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "mean": [100, 110, 120],
        "std": [50, 60, 70],
        "checkpoint_sha256": "0" * 64,
        "mindspore": "2.10.0",
    }
    record = ExportedFile.model_validate_json(json.dumps(fields))
    assert (record.resize, record.crop, record.eval_preprocessing) == (106, 96, "mindcv")
    assert record.input_shape == (1, 3, 96, 96)
    for key, wrong in (("crop_pct", 0), ("crop_pct", "x"), ("input_shape", [1]), ("std", None)):
        with pytest.raises(ValidationError):
            ExportedFile.model_validate_json(json.dumps({**fields, key: wrong}))


def test_a_wrong_file_is_not_published(
    call: Call, checkpoint: Path, no_mindspore: None, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.full((len(images), 3), np.nan, np.float32)

    monkeypatch.setattr(formats, "loaded", lambda _file: nan)
    (away / "old.onnx").write_text("old")
    options = ("--ckpt_path", checkpoint, "--out", "old.onnx")
    code, output, errors = call(*options, "--outcome_file", "outcome.json")
    assert (code, output) == (1, "")
    assert errors.startswith("error: its logits differ from the network's by nan ")
    assert errors.endswith(": nothing was written\n")
    assert json.loads((away / "outcome.json").read_text())["status"] == "failed"
    assert sorted(path.name for path in away.iterdir()) == ["old.onnx", "outcome.json"]
    assert (away / "old.onnx").read_text() == "old"


def test_an_output_that_can_not_be_written_is_refused(
    refused: Refused, checkpoint: Path, no_mindspore: None, away: Path
) -> None:
    (away / "file").touch()
    (away / "x.onnx").mkdir()
    (away / "y.onnx.json").mkdir()
    options = ("--ckpt_path", checkpoint, "--format", "ONNX", "--out")
    assert refused(*options, "file/x.onnx").startswith("--out file can't be made: ")
    assert refused(*options, "x.onnx") == "--out x.onnx is a directory, expected a file"
    assert refused(*options, "y.onnx") == "--out y.onnx.json is a directory, expected a file"
    line = refused(*options, "/proc/x.onnx")
    assert line == "--out /proc/x.onnx can't be written: No such file or directory"
    assert refused(*options, "x.bin") == "--out is x.bin, expected a name ending in .onnx"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "TFLITE"], "--format is 'TFLITE': expected ONNX or MINDIR or AIR"),
        (["--fp16"], "--fp16 is for --format ONNX, not for MINDIR: leave it out"),
        (["--evaluation", "v"], "--evaluation needs --data_dir, the images of its predictions"),
        (["--data_dir", "none"], "none"),
        (
            ["--max_differences", "-1"],
            "'-1' is not a whole number from 0 to 1000000",
        ),
        (["--format", "AIR"], "--format AIR is written by MindSpore on Ascend only"),
        (
            ["--format", "AIR", "--device_target", "Ascend"],
            "device_target Ascend is not available on this machine",
        ),
        (["--resolution", "31"], "--resolution: '31' is not a whole number from 32 to 2048"),
        (["--resolution", "99999"], "--resolution: '99999' is not a whole number from 32"),
        (["--num_classes", "9999999999"], "is not a whole number from 1 to 100000"),
        (["--batch_size", "0"], "--batch-size: '0' is not a whole number from 1 to 1024"),
        (["--model", "sknet50"], "model is 'basic' in state.json, but 'sknet50' in --model"),
        (["--num_classes", "4"], "num_classes is 3 in state.json, but 4 in --num_classes"),
        (["--config", "none"], "no recipe 'none'"),
        (["--config", "ten.yaml"], "num_classes is 3 in state.json, but 10 in --config"),
        (["--config", "other.yaml"], "crop_pct is 0.9 in state.json, but 0.8 in --config"),
        (["--classes", "none"], "--classes none can't be read: No such file or directory"),
        (["--classes", "two.txt"], "num_classes is 3 in state.json, but 2 in --classes"),
        (["--classes", "other.txt"], "class 1 is 'dog' in state.json, but 'cow' in --classes"),
        (["--classes", "gap.txt"], "--classes gap.txt: line 2 is empty, expected a name"),
    ],
)
def test_wrong_options_are_refused(
    refused: Refused, checkpoint: Path, away: Path, options: list[str], message: str
) -> None:
    (away / "two.txt").write_text("cat\ndog\n")
    (away / "gap.txt").write_text("cat\n\ndog\n")
    (away / "other.txt").write_text('cat\ncow\nthe "emu"\n')
    recipe = RECIPE | {"eval_preprocessing": "mindcv"}
    (away / "other.yaml").write_text(json.dumps(recipe | {"crop_pct": 0.8}))
    (away / "ten.yaml").write_text(json.dumps(recipe | {"num_classes": 10}))
    options = options if "--format" in options else [*options, "--format", "MINDIR"]
    assert message in refused("--ckpt_path", checkpoint, *options)


def test_a_cann_that_mindspore_does_not_accept_is_named_although_its_warnings_are_off(
    call: Call, checkpoint: Path, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (away / "cann/compiler").mkdir(parents=True)
    (away / "cann/compiler/version.info").write_text("Version=8.0.0\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(away / "cann"))
    options = ["--ckpt_path", checkpoint, "--format", "AIR", "--device_target", "Ascend"]
    code, output, _ = call(*options)
    assert code == 2  # as this machine has no card
    assert output.startswith(f"warning: CANN 8.0.0 of {away}/cann/compiler/version.info is not ")
    assert output.count("\n") == 1


def test_onnx_without_its_package_is_refused(
    refused: Refused, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setattr(export, "find_spec", lambda name, missing=package: name != missing)
        line = refused("--ckpt_path", checkpoint)
        assert line == f"--format ONNX needs the package {package}: pip install 'sknet[export]'"


def test_a_missing_or_damaged_checkpoint_is_refused(
    refused: Refused, checkpoint: Path, away: Path
) -> None:
    (away / "empty").mkdir()
    for path, file in (("none.ckpt", "none.ckpt"), ("empty", "empty/model.ckpt")):
        line = refused("--ckpt_path", path, "--format", "MINDIR")
        assert line == f"checkpoint {file} does not exist"
    shutil.copytree(checkpoint, away / "copy")
    with (away / "copy/model.ckpt").open("ab") as file:
        file.write(b"x")
    assert "is damaged" in refused("--ckpt_path", "copy", "--format", "MINDIR")
    line = refused("--ckpt_path", "production")
    assert line == "checkpoint production does not exist: a store's ref needs --store"


def test_data_of_other_classes_is_refused_before_it_is_converted(
    refused: Refused, checkpoint: Path, folders: Path, away: Path
) -> None:
    shutil.copytree(folders, away / "images")
    line = refused("--ckpt_path", checkpoint, "--data_dir", "images")
    said = "class 2 is 'the \"emu\"' in the checkpoint, but 'emu' in --data_dir: leave one out"
    assert line == said


def test_weights_without_state_need_a_model(
    refused: Refused, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--ckpt_path", weights, "--format", "MINDIR")
    with monkeypatch.context() as patch:
        patch.setattr(export, "_source_of", lambda _: pytest.fail("loaded MindSpore"))
        line = refused(*options)
    assert line.endswith("comes without a state.json: give --model or --config")
    assert "(did you mean 'sknet26'" in refused(*options, "--model", "sknet62")
    assert "is for 3 classes, the network has 1000" in refused(*options, "--model", "bottleneck")


def test_an_output_is_refused_before_the_checkpoint_is_looked_for(
    refused: Refused, away: Path
) -> None:
    line = refused("--ckpt_path", "none", "--out", "/proc/x.onnx")
    assert line == "--out /proc/x.onnx can't be written: No such file or directory"


def test_a_file_that_nothing_here_runs_needs_no_images(checkpoint: Path, folders: Path) -> None:
    given = {"ckpt_path": str(checkpoint), "data_dir": str(folders)}
    assert find_origin(export.Options(**given), print).shards is not None
    assert find_origin(export.Options(**given, format="AIR"), print).shards is None
