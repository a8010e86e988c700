"""The program and the class predict what the evaluation of a store's checkpoint has kept."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sknet
from infra.artifacts import open_store
from sknet import predict
from sknet.errors import SampleError, UserError
from sknet.evaluation.predictions import StoredPredictions, read_predictions
from sknet.models.weights import save_safetensors
from sknet.prediction.results import ClassProbability, Prediction
from sknet.prediction.stores import StoredCheckpoint, stored_checkpoint
from sknet.recipe import Recipe
from sknet.records.calibration import CALIBRATION_FILE, Calibration
from sknet.records.training import run_of
from tasks.catalog.production import mark_production, promoted
from tests.tiny_pipeline import Trained

pytestmark = pytest.mark.usefixtures("program_state")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def kept(trained: Trained) -> StoredPredictions:
    """The predictions that the evaluation has kept."""
    result = trained.of("validate")
    return read_predictions(trained.store / "evaluation" / result.key / "predictions.parquet")


@pytest.fixture(scope="module")
def predictor(trained: Trained) -> sknet.Predictor:
    """The network in production."""
    return sknet.Predictor.from_store(trained.store)


def test_the_program_predicts_what_the_evaluation_has_kept(
    trained: Trained, kept: StoredPredictions, call: Call, away: Path
) -> None:
    shutil.copytree(trained.images / "val", away / "val")
    store = ["--store", trained.store]
    code, out, _ = call(predict, "val", *store, "--json", "out/found.json", "--csv", "found.csv")
    assert code == 0
    assert out.splitlines()[-1].startswith("predicted 18 of 18 images with checkpoint/")
    found = json.loads(Path("out/found.json").read_text())
    assert found["checkpoint"] == f"checkpoint/{trained.of('train').key}"
    assert found["unreadable"] == []
    classes = sorted(each.name for each in (trained.images / "val").iterdir())
    rows = {each["file"]: each for each in found["predictions"]}
    assert sorted(rows) == sorted(kept.keys)
    for key, top, probability in zip(kept.keys, kept.top, kept.probability, strict=True):
        assert rows[key]["class"] == classes[top[0]]
        assert [each["class"] for each in rows[key]["top"]] == [classes[label] for label in top]
        assert np.float32(rows[key]["probability"]) == probability
    table = pd.read_csv("found.csv")
    assert table["class"].tolist() == [each["class"] for each in found["predictions"]]


def test_results_depend_neither_on_the_order_nor_on_what_else_is_predicted(
    trained: Trained, predictor: sknet.Predictor
) -> None:
    files = sorted((trained.images / "val").rglob("*.png"))
    together = {each.file: each for each in predictor([*reversed(files)])}
    for file in files[::5]:
        (alone,) = predictor(file)
        assert alone == together[str(file)]


def test_arrays_and_pillow_images_are_predicted_as_their_file(
    trained: Trained, predictor: sknet.Predictor
) -> None:
    file = next((trained.images / "val").rglob("*.png"))
    image = Image.open(file)
    expected, array, pillow = predictor([file, np.asarray(image), image], top=2)
    assert [each.file for each in (array, pillow)] == ["#1", "#2"]
    assert len(expected.top) == 2
    assert array.top == pillow.top == expected.top


def test_unreadable_files_are_named_and_counted_and_the_rest_goes_on(
    trained: Trained, predictor: sknet.Predictor, call: Call, away: Path
) -> None:
    shutil.copytree(trained.images / "val" / "red", away / "red")
    Path("red/bad.png").write_text("no image")
    code, out, errors = call(predict, "red", "--store", trained.store, "--parquet", "found.parquet")
    assert code == 1
    assert out.splitlines()[-1].startswith("predicted 6 of 7 images")
    *lines, error = errors.splitlines()
    (unreadable,) = [line for line in lines if line.startswith("unreadable: ")]
    assert unreadable.startswith("unreadable: red/bad.png: UnidentifiedImageError: ")
    assert error.startswith("error: 1 of 7 files can't be read as images")
    assert len(pd.read_parquet("found.parquet")) == 6
    with pytest.raises(SampleError, match=r"^red/bad\.png can't be predicted: "):
        predictor(["red/00.png", "red/bad.png"])


def test_names_that_are_no_plain_text_are_escaped_wherever_they_are_shown(
    trained: Trained, call: Call, away: Path
) -> None:
    image = next((trained.images / "val").rglob("*.png")).read_bytes()
    (away / "photos").mkdir()
    (away / "photos" / "=cmd()\x1b[2J.png").write_bytes(image)
    (away / "=1+1.png").write_bytes(image)
    name = os.fsdecode(b"photos/\xff.png")
    Path(name).write_bytes(b"no image")
    written = ["--csv", "found.csv", "--json", "found.json", "--parquet", "found.parquet"]
    given = ["photos", "=1+1.png", "--store", trained.store]
    code, _, errors = call(predict, *given, *written)
    assert code == 1
    assert "unreadable: photos/\\udcff.png: " in errors
    shown = ["photos/=cmd()\\x1b[2J.png", "=1+1.png"]
    found = json.loads(Path("found.json").read_text())
    assert [each["file"] for each in found["predictions"]] == shown
    assert [each["file"] for each in found["unreadable"]] == ["photos/\\udcff.png"]
    assert pd.read_parquet("found.parquet")["file"].tolist() == shown
    assert pd.read_csv("found.csv")["file"].tolist() == [shown[0], "'=1+1.png"]
    line = Prediction("=cmd()\x1b[2J.png", (ClassProbability(0, "red", 0.5),)).describe()
    assert line == "=cmd()\\x1b[2J.png: red 50.0%"


def test_results_do_not_depend_on_the_number_of_threads(
    trained: Trained, predictor: sknet.Predictor
) -> None:
    files = sorted((trained.images / "val").rglob("*.png"))
    expected, usual = predictor(files), predictor.num_threads
    for number in (1, 2, 5):
        predictor.num_threads = number
        try:
            assert predictor(files) == expected
        finally:
            predictor.num_threads = usual
    assert [each.file for each in expected] == [str(file) for file in files]


def test_a_number_of_classes_below_one_is_refused(predictor: sknet.Predictor) -> None:
    with pytest.raises(UserError, match=r"^top is 0, expected at least 1$"):
        predictor([], top=0)


def test_a_checkpoints_directory_predicts_as_the_store_it_is_from(
    trained: Trained, predictor: sknet.Predictor, call: Call, away: Path
) -> None:
    file = next((trained.images / "val").rglob("*.png"))
    directory = stored_checkpoint(trained.store, "production").directory
    code, out, _ = call(predict, file, "--ckpt_path", directory, "--top", 1)
    assert code == 0
    (expected,) = predictor(file)
    line, _ = out.splitlines()
    assert line == f"{file}: {expected.name} {expected.probability:.1%}"


def test_the_evaluation_keeps_a_calibration_for_the_predictions(
    trained: Trained, predictor: sknet.Predictor
) -> None:
    evaluation = stored_checkpoint(trained.store, "production").evaluation
    assert evaluation is not None
    calibration = Calibration.read(evaluation / CALIBRATION_FILE)
    assert predictor.calibration == calibration
    assert (calibration.num_fitted, calibration.num_held_out) == (9, 9)
    points = {point.probability for point in calibration.curve}
    found = predictor(sorted((trained.images / "val").rglob("*.png")))
    assert {each.calibrated for each in found} == points
    report = sknet.open_report(trained.store)
    assert report.contents.runs[0].calibration == calibration
    row = report.evaluations.loc[0]
    assert row["held-out error"] == calibration.error_before
    assert not calibration.is_fitted or row["temperature"] == calibration.temperature


def test_below_the_threshold_of_an_error_rate_predictions_are_unsure(
    trained: Trained, call: Call, away: Path
) -> None:
    # Every one of these rates can be kept: the tiny network may be wrong on all images.
    options = ["--store", trained.store, "--error-rate", 0.99, "--json", "found.json"]
    code, out, _ = call(predict, trained.images / "val", *options)
    assert code == 0
    assert out.startswith("unsure below a calibrated probability of ")
    found = json.loads(Path("found.json").read_text())
    rate = found["error_rate"]
    assert rate["error"]["low"] <= rate["error"]["value"] <= rate["error"]["high"]
    for each in found["predictions"]:
        assert each["unsure"] == (each["calibrated"] < rate["probability"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ref", "staging"], "has no ref 'staging', expected one of its refs (production)"),
        (
            ["--ckpt_path", "x", "--ref", "a"],
            "--ckpt_path and --store or --ref all name a network: leave all but one out",
        ),
        (["--config", "skresnet18_digits"], "--config is for --ckpt_path: leave it out"),
        (["--classes", "c.txt"], "--classes is for --ckpt_path or --onnx: leave it out"),
        (["--error-rate", "1"], "--error-rate is 1.0, expected at least 0 and less than 1"),
        (["--error-rate", "nan"], "--error-rate: 'nan' is not a number of at least 0"),
        (["--top", "0"], "--top: '0' is not a whole number of at least 1"),
        (["https://example.org/a.jpg"], "https://example.org/a.jpg is a URL: download it"),
        (["--json", "."], "--json . is a directory, expected a file"),
        (
            ["--json", "a", "--csv", "./a"],
            "--json and --csv are both a: give each a file of its own",
        ),
        (["--ckpt_path", "missing"], "checkpoint missing does not exist"),
    ],
)
def test_wrong_options_end_in_one_line(
    trained: Trained, refused: Callable[..., str], away: Path, options: list[str], said: str
) -> None:
    store = [] if "--ckpt_path" in options else ["--store", trained.store]
    assert said in refused(predict, trained.images, *options, *store, "--quiet")


@pytest.mark.parametrize(
    "options",
    [
        ["--onnx", "gone.onnx"],
        ["--ckpt_path", "gone"],
        ["--ckpt_path", "gone" * 99],
        ["--store", "gone"],
        ["--config", "gone"],
        ["--json", "gone" * 99],
        ["gone" * 99],
    ],
    ids=lambda options: " ".join(options)[:24],
)
def test_a_name_that_stands_for_nothing_is_refused_before_mindspore_is_loaded(
    trained: Trained,
    refused: Callable[..., str],
    away: Path,
    without_mindspore: None,
    options: list[str],
) -> None:
    given = ["--ckpt_path", "gone"] if "--config" in options else []
    assert "gone" in refused(predict, trained.images, *options, *given, "--quiet")


@pytest.fixture
def weights(trained: Trained, away: Path) -> Path:
    """The checkpoint in production as a file of weights alone."""
    directory = stored_checkpoint(trained.store, "production").directory
    return Path(shutil.copy(directory / "model.ckpt", away / "weights.ckpt"))


def test_weights_alone_are_refused_before_mindspore_is_loaded(
    trained: Trained, refused: Callable[..., str], weights: Path, without_mindspore: None
) -> None:
    Path("classes.txt").write_text("a\nb\nc\n")
    for given in ([], ["--classes", "classes.txt"], ["--config", "skresnet18_digits"]):
        line = refused(predict, trained.images, "--ckpt_path", weights, *given)
        assert line.endswith(
            "weights.ckpt comes without a state.json, which has its recipe and its classes: give "
            "--config and --classes"
        )


@pytest.fixture
def recipe(trained: Trained) -> Recipe:
    """The recipe of the checkpoint in production."""
    run = run_of(stored_checkpoint(trained.store, "production").directory / "model.ckpt")
    assert run is not None
    return run.recipe


def test_other_classes_and_another_network_than_the_checkpoints_are_refused(
    trained: Trained, recipe: Recipe
) -> None:
    directory = stored_checkpoint(trained.store, "production").directory
    load = sknet.Predictor.from_checkpoint
    with pytest.raises(UserError, match=r"^class 1 is 'green' in state\.json, but 'grey' in"):
        load(directory, classes=["blue", "grey", "red"])
    with pytest.raises(UserError, match=r"^num_classes is 3 in state\.json, but 2 in --classes"):
        load(directory, classes=["blue", "green"])
    with pytest.raises(UserError, match=r"^the recipe's model is skresnet34, but .* is of a tiny"):
        load(directory, recipe=recipe.model_copy(update={"model": "skresnet34"}))


def test_other_preprocessing_than_in_training_is_told(trained: Trained, recipe: Recipe) -> None:
    directory = stored_checkpoint(trained.store, "production").directory
    told: list[str] = []
    load = partial(sknet.Predictor.from_checkpoint, warn=told.append)
    load(directory, recipe=recipe, classes=["blue", "green", "red"])
    assert told == []
    other = load(directory, recipe=recipe.model_copy(update={"crop_pct": 0.5}))
    (line,), was = told, recipe.crop_pct
    assert line == f"other preprocessing than in training: crop_pct is 0.5 instead of {was}"
    assert other.preprocessing.resize == 64


def test_other_preprocessing_than_that_of_the_weights_source_is_told(
    recipe: Recipe, away: Path
) -> None:
    network = sknet.create_model(recipe.model, num_classes=3)
    save_safetensors(network, away / "timm.safetensors", "timm")
    given = recipe.model_copy(update={"eval_preprocessing": "mindcv", "interpolation": "bicubic"})
    with pytest.warns(
        UserWarning, match="^other preprocessing than timm's networks have: eval_pre"
    ):
        sknet.Predictor.from_checkpoint(
            away / "timm.safetensors", recipe=given, classes=["a", "b", "c"]
        )


def test_an_error_rate_that_can_not_be_kept_is_refused_before_mindspore_is_loaded(
    trained: Trained,
    refused: Callable[..., str],
    without_mindspore: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = stored_checkpoint(trained.store, "production").calibration
    assert known is not None
    all_wrong = tuple(
        each.model_copy(update={"held_out": (each.held_out[0], each.held_out[0])})
        for each in known.curve
    )
    monkeypatch.setattr(
        StoredCheckpoint, "calibration", known.model_copy(update={"curve": all_wrong})
    )
    line = refused(predict, trained.images, "--store", trained.store, "--error-rate", 0.5)
    assert "no threshold keeps an error rate of 0.5 on both halves of the 18 validation" in line


def test_no_directory_is_made_for_predictions_of_no_images(
    refused: Callable[..., str], away: Path
) -> None:
    line = refused(predict, "gone.png", "--ckpt_path", "gone", "--json", "out/found.json")
    assert "gone.png does not exist" in line
    assert not (away / "out").exists()


def test_a_suspect_checkpoint_predicts_with_a_warning(
    trained: Trained, copied_store: Path, call: Call, away: Path
) -> None:
    store = open_store(str(copied_store))
    ref = promoted(str(copied_store))
    why = "it predicts other classes"
    assert mark_production(store, ref, suspect=why, reason="a revalidation")
    file = next((trained.images / "val").rglob("*.png"))
    code, _, errors = call(predict, file, "--store", copied_store, "--quiet")
    said = f"checkpoint/{trained.of('train').key} is marked as suspect: {why}"
    assert (code, errors) == (0, f"warning: {said}\n")
    with pytest.warns(UserWarning, match=f"^{said}$"):
        sknet.Predictor.from_store(copied_store)


def test_a_damaged_checkpoint_is_refused(copied_store: Path) -> None:
    directory = stored_checkpoint(copied_store, "production").directory
    content = bytearray((directory / "model.ckpt").read_bytes())
    content[-1] ^= 1
    (directory / "model.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        sknet.Predictor.from_store(copied_store)
