"""Validation under msrun: any number of ranks writes the same files, byte for byte."""

from pathlib import Path

import mindspore as ms
import pytest

import sknet
from infra.launch import Job, Outcome, run
from sknet.evaluation.predictions import read_predictions
from sknet.models import create_model
from sknet.records import Evaluation
from tests.conversions import contents, convert
from tests.sknet.conftest import write_images

pytestmark = pytest.mark.slow

SIDES = ("image_resize=32", "val_resolutions=[48]")
FILES = {
    *("evaluation.json", "evaluation-48.json"),
    *("predictions.parquet", "predictions-48.parquet"),
    *("attention.json", "examples.json"),
}


def validated(out: Path, recipe: Path, data: Path, weights: Path, ranks: int) -> dict[str, bytes]:
    """What so many ranks wrote."""
    lines: list[str] = []
    place = out.with_suffix(".job")
    place.mkdir()
    options = [*("--config", recipe), *("--data_dir", data), *("--ckpt_path", weights)]
    job = Job(
        program=Path(sknet.__file__).with_name("validate.py"),
        args=(
            *map(str, options),
            *(word for side in SIDES for word in ("--set", side)),
            *("--out", str(out), "--json", str(place / "primary.json")),
            *("--outcome_file", str(place / "outcome.json")),
        ),
        workers=ranks,
        log_dir=place / "logs",
        outcome_file=place / "outcome.json",
        cwd=place,
        env={"PYTHONPATH": str(Path(sknet.__file__).parents[1])},
        deadline=300,
        silence=None,
    )
    result = run(job, on_line=lines.append)
    said = "\n".join(lines)
    assert result.status is Outcome.DONE, said
    assert said.count("accuracy@1") == 2, "rank 0 speaks for all"
    files = contents(out)
    assert (place / "primary.json").read_bytes() == files["evaluation.json"]
    return files


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ms.set_seed(3)
    path = tmp_path_factory.mktemp("weights") / "model.ckpt"
    ms.save_checkpoint(create_model("skresnet18", num_classes=3), str(path))
    return path


def test_one_two_and_three_ranks_write_the_same_files(
    recipe_file: Path, weights: Path, tmp_path: Path
) -> None:
    # Seven: neither 2 nor 3 divides it.
    write_images(tmp_path / "images", train=1, val=3)
    for name in ("emu/001.jpg", "emu/002.png"):
        (tmp_path / "images/val" / name).unlink()
    convert(tmp_path / "images", tmp_path / "seven")
    place = (recipe_file, tmp_path / "seven", weights)
    alone = validated(tmp_path / "alone", *place, ranks=1)
    assert alone.keys() >= FILES
    assert all(name.startswith("example-") for name in alone.keys() - FILES)
    evaluation = Evaluation.read(tmp_path / "alone/evaluation.json")
    assert (evaluation.seen, evaluation.class_seen) == (7, (3, 3, 1))
    kept = read_predictions(tmp_path / "alone/predictions.parquet")
    assert len({*kept.keys}) == 7
    for ranks in (2, 3):
        assert validated(tmp_path / f"by-{ranks}", *place, ranks=ranks) == alone


def test_a_rank_without_a_sample_changes_nothing(
    recipe_file: Path, weights: Path, tmp_path: Path
) -> None:
    convert(write_images(tmp_path / "images", train=1, val=1), tmp_path / "three")
    place = (recipe_file, tmp_path / "three", weights)
    alone = validated(tmp_path / "alone", *place, ranks=1)
    assert Evaluation.read(tmp_path / "alone/evaluation.json").seen == 3
    assert validated(tmp_path / "by-4", *place, ranks=4) == alone
