"""An exported ONNX file predicts as the checkpoint that it was exported from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import sknet
from infra.base.files import file_sha256
from sknet import export, predict
from sknet.errors import UserError
from sknet.evaluation.predictions import Floats
from sknet.prediction import exported as of_exported
from sknet.prediction.stores import stored_checkpoint
from tests.tiny_pipeline import Trained

pytestmark = pytest.mark.usefixtures("program_state")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint in production as ONNX for any number of images; don't change it."""
    from infra.base.commands import app_of, start

    out = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    directory = stored_checkpoint(trained.store, "production").directory
    options = ["--ckpt_path", str(directory), "--format", "ONNX", "--out", str(out)]
    assert start(app_of(export.command, "export"), options) == 0
    return out


@pytest.fixture
def copied(exported: Path, away: Path) -> Path:
    """A copy of the file and of its record, free to be damaged."""
    for path in (exported, exported.with_name("tiny.onnx.json")):
        shutil.copy(path, away)
    return away / "tiny.onnx"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images onnxruntime is given at each call."""
    result: list[int] = []
    run = onnxruntime.InferenceSession.run

    def counted(
        self: onnxruntime.InferenceSession, names: list[str], given: dict[str, Floats]
    ) -> Any:
        result.append(len(given["images"]))
        return run(self, names, given)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counted)
    return result


def test_the_file_predicts_what_its_checkpoint_does(
    trained: Trained, exported: Path, call: Call, away: Path
) -> None:
    images = trained.images / "val"
    code, out, _ = call(predict, images, "--onnx", exported, "--json", "onnx.json")
    assert code == 0
    assert out.endswith(f"predicted 18 of 18 images with {exported}\n")
    code, *_ = call(predict, images, "--store", trained.store, "--json", "checkpoint.json")
    assert code == 0
    by_file, expected = (
        json.loads(Path(name).read_text())["predictions"]
        for name in ("onnx.json", "checkpoint.json")
    )
    assert len(by_file) == len(expected) == 18
    for found, right in zip(by_file, expected, strict=True):
        assert (found["file"], found["class"]) == (right["file"], right["class"])
        assert "calibrated" not in found
        for one, other in zip(found["top"], right["top"], strict=True):
            assert one["class"] == other["class"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_file_for_a_fixed_number_of_images_predicts_any_number(
    trained: Trained, exported: Path, copied: Path, sizes: list[int]
) -> None:
    changed_record(copied, input_shape=[4, 3, 32, 32])
    files = sorted((trained.images / "val").rglob("*.png"))[::3]
    assert len(files) == 6
    found_of_all = sknet.Predictor.from_onnx(copied)(files)
    expected_of_all = sknet.Predictor.from_onnx(exported)(files)
    assert sizes == [4, 4, 6], "each batch has the number that the file takes"
    for found, expected in zip(found_of_all, expected_of_all, strict=True):
        assert found.label == expected.label
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)


def test_a_file_that_its_record_does_not_describe_is_refused(copied: Path) -> None:
    content = bytearray(copied.read_bytes())
    content[len(content) // 2] ^= 1
    copied.write_bytes(content)
    with pytest.raises(UserError, match=r"tiny\.onnx is not the file that .* describes"):
        sknet.Predictor.from_onnx(copied)


def changed_record(file: Path, **changes: object) -> None:
    record = file.with_name("tiny.onnx.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


def test_names_of_classes_are_given_where_the_record_has_none(
    trained: Trained, copied: Path
) -> None:
    changed_record(copied, classes=None)
    with pytest.raises(UserError, match="comes without names of its classes: give --classes"):
        sknet.Predictor.from_onnx(copied)
    with pytest.raises(UserError, match=r"2 classes are named, but .* has 3"):
        sknet.Predictor.from_onnx(copied, classes=["a", "b"])
    predictor = sknet.Predictor.from_onnx(copied, classes=["one", "two", "three"])
    (found,) = predictor(next((trained.images / "val").rglob("*.png")))
    assert found.name in ("one", "two", "three")


def test_other_classes_than_those_of_the_record_are_refused(copied: Path) -> None:
    said = r"^class 0 is 'blue' in tiny\.onnx\.json, but 'red' in --classes: leave one out$"
    with pytest.raises(UserError, match=said):
        sknet.Predictor.from_onnx(copied, classes=["red", "green", "blue"])


def test_what_onnxruntime_refuses_is_named_in_one_line(copied: Path) -> None:
    copied.write_bytes(b"no model")
    changed_record(copied, sha256=file_sha256(copied))
    with pytest.raises(UserError, match=r"tiny\.onnx can't be run by onnxruntime: [^\n]*$"):
        sknet.Predictor.from_onnx(copied)


def test_another_format_is_refused(copied: Path) -> None:
    changed_record(copied, format="MINDIR")
    with pytest.raises(UserError, match="is exported as MINDIR, expected ONNX"):
        sknet.Predictor.from_onnx(copied)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--onnx", "alone.bin"], "--onnx is alone.bin, expected a name ending in .onnx"),
        (["--onnx", f"{'n' * 300}.onnx"], "nnn.onnx does not exist: expected FILE.onnx"),
        (["--onnx", "missing.onnx"], "exported file missing.onnx does not exist"),
        (["--onnx", "alone.onnx"], "record of an exported file alone.onnx.json does not exist"),
        (["--onnx", "broken.onnx"], "broken.onnx.json is no valid ExportedFile"),
        (["--onnx", "a.onnx", "--store", "s"], "--onnx and --store or --ref all name a network"),
        (["--onnx", "a.onnx", "--ckpt_path", "c"], "--onnx and --ckpt_path all name a network"),
        (["--onnx", "a.onnx", "--device_target", "Ascend"], "--onnx runs on CPU, not on Ascend"),
        (["--onnx", "a.onnx", "--config", "r"], "--config is for --ckpt_path"),
    ],
)
def test_wrong_options_end_in_one_line(
    trained: Trained,
    refused: Callable[..., str],
    away: Path,
    without_mindspore: None,
    options: list[str],
    said: str,
) -> None:
    for name in ("alone.onnx", "broken.onnx"):
        Path(name).write_text("no model")
    Path("broken.onnx.json").write_text("{}")
    assert said in refused(predict, trained.images, *options, "--quiet")


def test_a_file_that_can_not_be_used_is_refused_before_mindspore_is_loaded(
    trained: Trained,
    refused: Callable[..., str],
    copied: Path,
    without_mindspore: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed_record(copied, classes=None)
    line = refused(predict, trained.images, "--onnx", copied)
    assert "comes without names of its classes" in line
    monkeypatch.setattr(of_exported, "find_spec", lambda _: None)
    line = refused(predict, trained.images, "--onnx", copied)
    assert line == "error: --onnx needs the package onnxruntime: pip install 'sknet[export]'"


def test_a_file_is_hashed_once(
    trained: Trained, exported: Path, call: Call, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(file: Path) -> str:
        hashed.append(file)
        return file_sha256(file)

    monkeypatch.setattr(of_exported, "file_sha256", counted)
    image = next((trained.images / "val").rglob("*.png"))
    assert call(predict, image, "--onnx", exported)[0] == 0
    assert hashed == [exported]


def test_an_error_rate_needs_a_calibration_which_a_file_has_not(
    trained: Trained,
    exported: Path,
    refused: Callable[..., str],
    away: Path,
    without_mindspore: None,
) -> None:
    said = refused(predict, trained.images, "--onnx", exported, "--error-rate", 0.1, "--quiet")
    assert "has no calibration, which an error rate needs" in said
