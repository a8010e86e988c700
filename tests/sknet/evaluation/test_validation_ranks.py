"""Validation writes the same files on any number of ranks, byte for byte."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import pytest

from infra.base.commands import app_of, start
from infra.launch import Outcome
from sknet import validate
from sknet.evaluation.predictions import read_predictions
from sknet.records import Evaluation
from tests.sknet.conftest import write_images
from tests.sknet.conversions import contents, convert
from tests.sknet.ranks import run_ranks
from tests.sknet.tiny_networks import tiny_network

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("program_state")]

FILES = {
    *("evaluation.json", "evaluation-48.json"),
    *("predictions.parquet", "predictions-48.parquet"),
    *("attention.json", "examples.json", "classes.csv", "confusion.csv"),
    "calibration.json",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ms.set_seed(3)
    path = tmp_path_factory.mktemp("weights") / "model.ckpt"
    ms.save_checkpoint(tiny_network(num_classes=3), str(path))
    return path


@pytest.fixture
def options(recipe_file: Path, weights: Path) -> list[str]:
    return [
        *("--config", str(recipe_file), "--ckpt_path", str(weights)),
        *("--set", "model=tiny", "--set", "val_resolutions=[48]"),
    ]


def shards_of(num_samples: int, directory: Path) -> Path:
    """Convert a data set with three to nine validation samples of three classes."""
    images = write_images(directory / "images", train=1, val=3)
    by_number = sorted((images / "val").rglob("*.*"), key=lambda image: (image.name, image))
    for image in by_number[num_samples:]:
        image.unlink()
    convert(images, directory / "shards")
    return directory / "shards"


def validated_alone(out: Path, data: Path, options: list[str]) -> dict[str, bytes]:
    """Validate in this process, and return the files."""
    arguments = [*options, "--data_dir", str(data), "--out", str(out)]
    assert start(app_of(validate.command, "validate"), arguments) == 0
    return contents(out)


def validated(out: Path, data: Path, options: list[str], *, ranks: int) -> dict[str, bytes]:
    """Validate in a job of ranks, and return the files."""
    lines: list[str] = []
    directory = out.with_suffix(".job")
    directory.mkdir()
    result = run_ranks(
        Path(validate.__file__),
        *(*options, "--data_dir", data, "--out", out, "--json", directory / "primary.json"),
        directory=directory,
        on_line=lines.append,
        workers=ranks,
    )
    log = "\n".join(lines)
    assert result.status is Outcome.DONE, log
    assert log.count("accuracy@1") == 2, "rank 0 alone prints the two resolutions"
    files = contents(out)
    assert (directory / "primary.json").read_bytes() == files["evaluation.json"]
    return files


def test_two_ranks_write_the_files_of_one(options: list[str], tmp_path: Path) -> None:
    data = shards_of(7, tmp_path)
    with ThreadPoolExecutor(1) as beside:  # a job of ranks mostly waits
        by_two = beside.submit(validated, tmp_path / "by-2", data, options, ranks=2)
        alone = validated_alone(tmp_path / "alone", data, options)
    assert by_two.result() == alone
    assert alone.keys() >= FILES
    assert all(name.startswith("example-") for name in alone.keys() - FILES)
    evaluation = Evaluation.read(tmp_path / "alone/evaluation.json")
    assert (evaluation.seen, evaluation.class_seen) == (7, (3, 2, 2))
    assert evaluation.mean_average_precision is not None
    assert len(read_predictions(tmp_path / "alone/predictions.parquet")) == 7


# With three samples, one of four ranks has none.
@pytest.mark.parametrize("num_samples", [3, 7])
def test_one_three_and_four_ranks_write_the_files_of_one(
    options: list[str], tmp_path: Path, num_samples: int
) -> None:
    data = shards_of(num_samples, tmp_path)
    alone = validated_alone(tmp_path / "alone", data, options)
    for ranks in (1, 3, 4):
        assert validated(tmp_path / f"by-{ranks}", data, options, ranks=ranks) == alone
