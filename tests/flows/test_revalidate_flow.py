"""The nightly check passes if all is as recorded, and otherwise says what differs."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import flows.revalidate
from flows.revalidate import revalidate
from infra.artifacts import ArtifactSpec, open_store
from sknet.records import Evaluation
from tasks.revalidation import RegressionError, differing_counts
from tests.tiny_pipeline import Trained, run_command

COUNTS = Evaluation(
    split="val",
    resolution=32,
    seen=4,
    correct_top1=3,
    correct_top5=4,
    loss_sum=1.5,
    class_seen=(2, 2),
    class_correct=(2, 1),
)


def test_every_differing_count_is_named_with_both_values() -> None:
    fresh = COUNTS.model_copy(update={"correct_top1": 2, "class_correct": (1, 1)})
    assert differing_counts(COUNTS, COUNTS) == []
    assert differing_counts(COUNTS, fresh) == [
        "correct_top1 was 3, is 2",
        "class_correct was [2, 1], is [1, 1]",
    ]


def test_the_least_difference_of_the_loss_counts() -> None:
    fresh = COUNTS.model_copy(update={"loss_sum": 1.5000000000000002})
    assert differing_counts(COUNTS, fresh) == ["loss_sum was 1.5, is 1.5000000000000002"]


def test_without_a_promoted_checkpoint_one_line_says_so(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    line = refused(flows.revalidate, "--store", tmp_path)
    assert line.startswith("error: ")
    assert "has no refs/production.json" in line


def test_as_a_process_the_code_and_the_line_are_the_same(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ended = run_command([sys.executable, "-m", "flows.revalidate", "--store", str(store)])
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "does not exist" in line
    assert not store.exists()


@pytest.mark.slow
def test_an_untouched_store_passes_with_the_recorded_counts(
    trained: Trained, copied_store: Path
) -> None:
    assert revalidate(str(copied_store)) == trained.of("validate").facts


@pytest.mark.slow
def test_one_flipped_bit_in_the_checkpoint_is_found_and_named(
    trained: Trained, copied_store: Path
) -> None:
    weights = copied_store / "checkpoint" / trained.of("train").key / "model.ckpt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)

    with pytest.raises(
        RegressionError, match=r"production \(\w+\) is damaged: .*model\.ckpt.*sha256"
    ):
        revalidate(str(copied_store))
    assert weights.read_bytes() == content, "evidence stays where it is"


@pytest.mark.slow
def test_a_count_that_differs_from_the_record_fails_with_both_values(
    trained: Trained, copied_store: Path, tmp_path: Path
) -> None:
    store = open_store(str(copied_store))
    recorded = store.load("evaluation", trained.of("validate").key)
    counts = Evaluation.read(recorded.path("evaluation.json"))
    other = counts.model_copy(update={"correct_top1": counts.correct_top1 + 1})
    (tmp_path / "other").mkdir()
    other.write(tmp_path / "other" / "evaluation.json")
    store.put(
        ArtifactSpec(
            kind="evaluation",
            format_version=1,
            params={**recorded.manifest.params, "by": "another machine"},
            inputs=recorded.manifest.inputs,
        ),
        tmp_path / "other",
        stats={},
        provenance={"created": datetime(9999, 1, 1, tzinfo=UTC).isoformat(), "seconds": 1.0},
    )

    said = f"correct_top1 was {counts.correct_top1 + 1}, is {counts.correct_top1}$"
    with pytest.raises(RegressionError, match=said):
        revalidate(str(copied_store))
