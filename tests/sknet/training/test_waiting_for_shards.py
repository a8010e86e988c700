"""A training whose shards are slow to come says so, and is not taken for one that hangs."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.launch import JobResult, Outcome
from sknet.data.reading.training_batches import block_order
from sknet.data.shards import ShardSet
from sknet.planning import plan_run
from sknet.recipe import load_recipe
from sknet.training import checkpoint
from tests.sknet.conftest import write_images
from tests.sknet.conversions import convert
from tests.sknet.ranks import run_ranks
from tests.sknet.supplied import Supplied

pytestmark = [pytest.mark.alone, pytest.mark.long]

# 11 steps, of which each takes two samples of the part of each rank. A window lasts a step.
BLOCKS = [
    "shuffle=blocks",
    "shuffle_parts=2",
    "shuffle_window=2",
    "epoch_size=1",
    "warmup_epochs=0",
]
STEPS, FIRST_STEPS = 11, 5
FLOOR_SECONDS = 10


def shard_of_rank_1(recipe_file: Path, shards: ShardSet) -> tuple[int, set[str]]:
    """Return a seed, and the files that rank 1 alone needs, and not in the first steps."""
    for seed in range(100):
        recipe = load_recipe(str(recipe_file), [*BLOCKS, f"seed={seed}"])
        order = block_order(plan_run(recipe, shards.record, 2, "CPU"), shards, 0)
        others = {*order.shards_of(0, 2, 0, FIRST_STEPS), *order.shards_of(0, 1, 0, STEPS)}
        if found := {*order.shards_of(1, 2, FIRST_STEPS, STEPS)} - others:
            files = shards.record.files_of("train")
            return seed, {files[min(found)].name}
    raise AssertionError("each shard is needed by both ranks, or at once")


def test_ranks_wait_for_a_shard_of_one_of_them_without_end_and_say_so(
    recipe_file: Path, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", train=15)
    shards = ShardSet(convert(images, tmp_path / "shards", num_shards=15), tmp_path / "shards")
    seed, late = shard_of_rank_1(recipe_file, shards)
    supplied = Supplied(shards, tmp_path / "host", 99, val=True)
    supplied.at_once = {path.name for path in shards.directory.iterdir()} - late
    lines: list[str] = []

    def said() -> list[str]:
        return [line for line in lines if line.startswith("[rank 0] waiting for shards, ")]

    def hear(line: str) -> None:
        lines.append(line)
        # They come each 10 s, so that the limit of a step has passed twice.
        if len(said()) == 3:
            supplied.release.set()

    def train(name: str, data: Path) -> JobResult:
        directory = tmp_path / name
        directory.mkdir()
        changes = [*BLOCKS, f"seed={seed}"]
        return run_ranks(
            Path(__file__).with_name("disturbed_training.py"),
            *("--config", recipe_file, "--data_dir", data),
            *(word for change in changes for word in ("--set", change)),
            *("--ckpt_save_dir", directory, "--hang_floor", FLOOR_SECONDS),
            directory=directory,
            on_line=hear if name == "on-demand" else lambda _: None,
        )

    def model(name: str) -> bytes:
        return (tmp_path / name / checkpoint.checkpoint_name(STEPS) / "model.ckpt").read_bytes()

    with ThreadPoolExecutor(1) as beside, supplied.supplier():
        local = beside.submit(train, "local", shards.directory)
        try:
            result = train("on-demand", tmp_path / "host")
        finally:
            supplied.release.set()
        assert result.status is Outcome.DONE, "\n".join(lines)
        assert local.result().status is Outcome.DONE
    assert re.fullmatch(
        r"\[rank 0\] waiting for shards, 1 file to come, 0:.. so far \.\.\.", said()[0]
    )
    assert model("on-demand") == model("local")
