"""Ranks that share files give the results of one rank, in the order of the files."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sknet
from infra.launch import Outcome
from sknet import predict
from sknet.errors import NonFiniteLossError
from sknet.prediction import ranks
from sknet.prediction.results import Prediction, Unreadable
from sknet.records.calibration import Calibration, ThresholdCounts
from sknet.records.preprocessing import Preprocessing
from sknet.world import World
from tests.sknet.conftest import CLASSES, TINY_RECIPE
from tests.sknet.ranks import in_threads, run_ranks

PREPROCESSING = Preprocessing(
    resize=8, interpolation="bilinear", crop=8, mean=(100, 110, 120), std=(50, 60, 70)
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Nine files in different colours, of which one is no image."""
    directory = tmp_path_factory.mktemp("files")
    for number in range(9):
        Image.new("RGB", (10, 12), (number * 25, 100, 200 - number * 20)).save(
            directory / f"{number}.png"
        )
    (directory / "4.png").write_text("no image")
    return [str(path) for path in sorted(directory.iterdir())]


CALIBRATION = Calibration(
    split="val",
    resolution=8,
    temperature=2.0,
    is_fitted=True,
    num_fitted=20,
    num_held_out=20,
    error_before=0.1,
    error_after=0.1,
    curve=(
        ThresholdCounts(probability=0.3, fitted=(20, 9), held_out=(20, 9)),
        ThresholdCounts(probability=0.6, fitted=(10, 1), held_out=(10, 1)),
    ),
)


def predictor(world: World) -> sknet.Predictor:
    """Return a predictor whose network is the mean of each channel."""
    return sknet.Predictor(
        lambda images: images.mean(axis=(2, 3)),
        PREPROCESSING,
        ["red", "green", "blue"],
        source="here",
        calibration=CALIBRATION,
        num_threads=2,
        world=world,
    )


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("num_files", [0, 1, 9])
def test_any_number_of_ranks_gives_all_results_in_order_on_the_first(
    files: list[str], size: int, num_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "FILES_PER_ROUND", 2)
    given = files[:num_files]
    expected = [*predictor(World(0, 1)).stream(given, top=2, error_rate=0.1)]
    assert [each.file for each in expected] == given
    assert any(isinstance(each, Unreadable) for each in expected) == (num_files > 4)
    counted = [0] * size

    def results(world: World) -> list[Prediction | Unreadable]:
        def done(number: int) -> None:
            counted[world.rank] += number

        of_rank = predictor(world)
        return [*ranks.predict_together(of_rank, given, top=2, error_rate=0.1, done=done)]

    first, *others = in_threads(size, results)
    assert first == expected
    assert others == [[]] * (size - 1)
    assert counted[0] == num_files


def test_predictions_below_the_threshold_are_unsure_alone_and_together(files: list[str]) -> None:
    alone = predictor(World(0, 1))
    readable = [file for file in files if not file.endswith("4.png")]
    together = alone(readable, error_rate=0.1)
    for found in together:
        # The probability at temperature 2, from the logits' differences.
        ratios = [(each.probability / found.probability) ** 0.5 for each in found.top]
        assert found.calibrated == pytest.approx(1 / sum(ratios), rel=1e-5)
        assert found.is_unsure == (found.calibrated < 0.6)
        assert found.describe().startswith(f"{found.file}: unsure, perhaps ") == found.is_unsure
        assert alone(found.file, error_rate=0.1) == [found]
    assert {each.is_unsure for each in together} == {True, False}
    assert {each.is_unsure for each in alone(readable)} == {None}


def test_a_network_that_has_diverged_is_named_with_the_image(files: list[str]) -> None:
    diverged = sknet.Predictor(
        lambda images: np.where(images.mean() < 9, np.nan, images.mean(axis=(2, 3))),
        PREPROCESSING,
        ["red", "green", "blue"],
        source="the checkpoint",
    )
    with pytest.raises(NonFiniteLossError, match=r"0\.png are not finite: .* the checkpoint have"):
        diverged(files[:2])


@pytest.mark.long
@pytest.mark.usefixtures("program_state")
def test_two_ranks_of_msrun_write_the_document_of_one(
    folders: Path,
    checkpoints: dict[int, Path],
    away: Path,
    call: Callable[..., tuple[int, str, str]],
) -> None:
    recipe_file = away / "recipe.yaml"
    recipe_file.write_text(TINY_RECIPE.replace("skresnet18", "tiny"))
    (away / "classes.txt").write_text("\n".join(CLASSES))
    (away / "note.png").write_text("no image")
    options = (
        *(folders / "val", away / "note.png", "--config", recipe_file),
        *("--ckpt_path", checkpoints[3], "--classes", away / "classes.txt"),
    )
    lines: list[str] = []
    with ThreadPoolExecutor(1) as beside:  # a job of ranks mostly waits
        by_two = beside.submit(
            run_ranks,
            Path(predict.__file__),
            *(*options, "--json", away / "by-2.json"),
            directory=away,
            on_line=lines.append,
        )
        code, _, errors = call(predict, *options, "--json", "alone.json")
    assert code == 1, errors
    assert "error: 1 of 7 files can't be read as images" in errors
    assert by_two.result().status is Outcome.FAILED
    log = "\n".join(lines)
    assert log.count("predicted 6 of 7 images") == 1, log
    assert (away / "by-2.json").read_bytes() == (away / "alone.json").read_bytes()
    assert len(json.loads((away / "alone.json").read_text())["predictions"]) == 6
