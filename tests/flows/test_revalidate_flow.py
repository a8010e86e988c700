"""A night passes if all is as recorded; otherwise it repairs, marks, tells and fails."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL

import flows.revalidate
from flows.revalidate import revalidate
from infra.artifacts import Artifact, ArtifactStore, open_store
from infra.artifacts.gc import survey
from sknet.evaluation.predictions import read_predictions
from sknet.records import Evaluation, Revalidation
from tasks.catalog.production import night_since
from tasks.results import RegressionError
from tasks.revalidate import REGRESSED
from tests.candidates import flip_a_bit, put_changed, remove_all, with_wrong
from tests.tiny_pipeline import Trained, run_command

DAMAGEABLE = {"train": "model.ckpt", "convert": "val-0.mindrecord", "validate": "evaluation.json"}


def file_of(trained: Trained, store: Path, stage: str) -> Path:
    """One whose bit is flipped."""
    result = trained.of(stage)
    directory = store / result.kind / result.key
    if stage == "convert":
        return sorted(directory.glob("val*.mindrecord"))[0]
    return directory / DAMAGEABLE[stage]


def nights(store: ArtifactStore) -> list[Revalidation]:
    """The history, oldest first."""
    records = [
        Revalidation.read(store.load("revalidation", manifest.key).path("revalidation.json"))
        for manifest in store.list("revalidation")
    ]
    return sorted(records, key=lambda record: record.began)


def told(since: datetime) -> list[dict[str, object]]:
    """The payloads of the events that the server has; it gets them a little later."""
    wanted = {
        "event": {"name": [REGRESSED]},
        "resource": {"id": ["sknet.ref.production"]},
        "occurred": {"since": since.isoformat()},
    }
    deadline = time.monotonic() + 30
    while True:
        answer = httpx.post(
            f"{PREFECT_API_URL.value()}/events/filter", json={"filter": wanted}, timeout=30
        )
        events = answer.raise_for_status().json()["events"]
        if events or time.monotonic() > deadline:
            return [event["payload"] for event in events]
        time.sleep(0.5)


def suspicion(store: ArtifactStore) -> str | None:
    ref = store.refs.get("production")
    assert ref is not None
    return ref.suspect


def recorded_by_other_software(
    trained: Trained, store: ArtifactStore, change: Callable[[Path], None]
) -> Artifact:
    """The recorded evaluation, as if another version of MindSpore had made it."""
    original = store.load("evaluation", trained.of("validate").key)
    artifact = put_changed(store, original, change, params={"mindspore": "2.9.9"})
    store.remove("evaluation", original.manifest.key)
    remove_all(store, "promotion")
    return artifact


def unchanged(directory: Path) -> None:
    del directory


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "has no refs/production.json"),
        (["--tolerance", "1.5"], "'1.5' is no share from 0 to 1"),
        (["--tolerance", "nan"], "'nan' is no share from 0 to 1"),
    ],
)
def test_wrong_input_is_one_line(
    refused: Callable[..., str], tmp_path: Path, options: list[str], said: str
) -> None:
    assert said in refused(flows.revalidate, "--store", tmp_path, *options)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--replica", "--data"])
def test_where_copies_should_be_and_are_not_is_said_before_the_night(
    refused: Callable[..., str], trained: Trained, tmp_path: Path, option: str
) -> None:
    absent = tmp_path / "absent"
    assert "absent" in refused(flows.revalidate, "--store", trained.store, option, absent)


def test_as_a_process_the_code_and_the_line_are_the_same(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ended = run_command([sys.executable, "-m", "flows.revalidate", "--store", str(store)])
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "does not exist" in line
    assert not store.exists()


@pytest.mark.slow
def test_flipped_bits_everywhere_are_found_and_replaced_from_a_replica_and_all_is_as_recorded(
    trained: Trained, copied_store: Path
) -> None:
    store = open_store(str(copied_store))
    before = store.refs.history("production")
    flipped = {
        stage: flip_a_bit(file_of(trained, copied_store, stage))
        for stage in ("train", "convert", "validate")
    }

    record = revalidate(str(copied_store), replica=str(trained.store))

    assert record.outcome == "as recorded"
    assert (record.damages, record.num_differing) == ((), 0)
    assert record.found == record.recorded
    assert record.found is not None
    assert record.found.correct_top1 == trained.of("validate").facts["correct_top1"]
    assert [(repair.how, repair.artifact) for repair in record.repairs] == [
        ("fetched", f"{trained.of(stage).kind}/{trained.of(stage).key}") for stage in flipped
    ]
    for stage, repair in zip(flipped, record.repairs, strict=True):
        (damage,) = repair.damages
        assert f"{file_of(trained, copied_store, stage).name!r}: sha256" in damage
        result = trained.of(stage)
        assert store.verify(result.kind, result.key) == ()
    evidence = [
        path.read_bytes()
        for path in (copied_store / ".quarantine").rglob("*")
        if path.name in {file_of(trained, copied_store, stage).name for stage in flipped}
    ]
    assert sorted(evidence) == sorted(flipped.values())
    assert nights(store) == [record]
    assert store.refs.history("production") == before

    kept = survey(store, unused_since=datetime.now(UTC) + timedelta(days=1)).kept
    for kind in ("promotion", "revalidation", "evaluation"):
        (manifest,) = store.list(kind)
        assert "refs/production" in kept[kind, manifest.key]


@pytest.mark.slow
def test_without_a_replica_shards_are_rebuilt_from_the_data_and_the_evaluation_from_both(
    trained: Trained, copied_store: Path
) -> None:
    store = open_store(str(copied_store))
    for stage in ("convert", "validate"):
        flip_a_bit(file_of(trained, copied_store, stage))

    record = revalidate(str(copied_store), data=str(trained.images))

    assert record.outcome == "as recorded"
    assert [(repair.how, repair.artifact.partition("/")[0]) for repair in record.repairs] == [
        ("rebuilt", "shards"),
        ("rebuilt", "evaluation"),
    ]
    for stage in ("convert", "validate"):
        result = trained.of(stage)
        assert store.verify(result.kind, result.key) == ()
        assert store.load(result.kind, result.key).digest == result.digest


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "convert", "validate"])
def test_a_flipped_bit_that_nothing_can_repair_is_named_and_production_marked_and_told_of(
    trained: Trained, copied_store: Path, stage: str
) -> None:
    store = open_store(str(copied_store))
    if stage == "validate":
        # The software here could make its own evaluation once more.
        made = recorded_by_other_software(trained, store, unchanged)
        victim = made.path(DAMAGEABLE[stage])
    else:
        victim = file_of(trained, copied_store, stage)
    flipped = flip_a_bit(victim)
    began = datetime.now(UTC)
    moved = [ref.digest for ref in store.refs.history("production")]

    with pytest.raises(RegressionError, match=r"^production \(\w+\) is damaged: ") as caught:
        revalidate(str(copied_store))

    assert f"{victim.name!r}: sha256" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert victim.read_bytes() == flipped, "evidence stays where it is"
    (record,) = nights(store)
    assert record.outcome == "damaged"
    assert record.recorded is record.found is None
    assert f"{victim.name!r}: sha256" in record.damages[0]
    assert suspicion(store) == f"damaged: {record.said}"
    assert [ref.digest for ref in store.refs.history("production")] == [*moved, moved[-1]]
    (facts,) = told(began)
    assert (facts["store"], facts["outcome"]) == (str(copied_store), "damaged")
    assert facts["damages"] == list(record.damages)


@pytest.mark.slow
def test_other_data_than_they_were_made_from_rebuild_no_shards(
    trained: Trained, copied_store: Path, tmp_path: Path
) -> None:
    from tests.tiny_pipeline import write_images

    other = write_images(tmp_path / "other")
    next((other / "train" / "red").iterdir()).unlink()
    flip_a_bit(file_of(trained, copied_store, "convert"))
    with pytest.raises(RegressionError, match="other samples than they were made from"):
        revalidate(str(copied_store), data=str(other))


@pytest.mark.slow
def test_other_software_may_predict_a_share_otherwise_and_a_later_sound_night_clears_the_mark(
    trained: Trained, copied_store: Path
) -> None:
    store = open_store(str(copied_store))
    made = recorded_by_other_software(trained, store, with_wrong(2, 5))
    began = datetime.now(UTC)

    with pytest.raises(RegressionError, match=r"is regressed: \d+ of 18 samples are predicted"):
        revalidate(str(copied_store))

    (record,) = nights(store)
    assert record.recorded_software["mindspore"] == "2.9.9"
    assert record.software == {
        **record.recorded_software,
        "mindspore": record.software["mindspore"],
    }
    assert record.software["mindspore"] != "2.9.9"
    fresh = trained.store / "evaluation" / trained.of("validate").key / "predictions.parquet"
    then = read_predictions(made.path("predictions.parquet"))
    now = read_predictions(fresh)
    expected = [
        (key, int(label), int(was), int(is_now))
        for key, label, was, is_now in zip(
            then.keys, then.labels, then.top[:, 0], now.top[:, 0], strict=True
        )
        if was != is_now
    ]
    assert len(expected) >= 2
    assert [
        (each.key, each.label, each.recorded, each.found) for each in record.differing
    ] == expected
    assert record.num_differing == len(expected)
    assert suspicion(store) == f"regressed: {record.said}"
    (facts,) = told(began)
    assert facts["differing"] == [key for key, *_ in expected]

    calm = revalidate(str(copied_store), tolerance=1.0)

    assert (calm.outcome, calm.differing) == ("within tolerance", record.differing)
    assert suspicion(store) is None
    assert [ref.suspect is None for ref in store.refs.history("production")] == [True, False, True]
    assert nights(store) == [record, calm]


@pytest.mark.slow
def test_another_kind_of_processor_may_round_otherwise(
    trained: Trained, copied_store: Path
) -> None:
    store = open_store(str(copied_store))
    original = store.load("evaluation", trained.of("validate").key)
    put_changed(store, original, unchanged, params={"mindspore": "soon gone"})
    (passing,) = (m for m in store.list("evaluation") if m.key != original.manifest.key)
    held = store.load("evaluation", passing.key)
    store.remove("evaluation", original.manifest.key)
    elsewhere = {"processor": "of another kind"}
    put_changed(store, held, unchanged, params=original.manifest.params, provenance=elsewhere)
    store.remove("evaluation", passing.key)

    record = revalidate(str(copied_store))

    assert (record.outcome, record.num_differing) == ("within tolerance", 0)
    assert record.recorded_software["processor"] == "of another kind"
    assert record.software["processor"] not in ("of another kind", "")


@pytest.mark.slow
def test_on_the_same_software_one_count_that_differs_is_a_regression(
    trained: Trained, copied_store: Path
) -> None:
    def one_more(directory: Path) -> None:
        counts = Evaluation.read(directory / "evaluation.json")
        changed = counts.model_copy(update={"correct_top1": counts.correct_top1 + 1})
        changed.write(directory / "evaluation.json")

    store = open_store(str(copied_store))
    remove_all(store, "promotion")
    original = store.load("evaluation", trained.of("validate").key)
    put_changed(store, original, one_more, params={"mindspore": "soon gone"})
    (changed,) = (
        store.load("evaluation", manifest.key)
        for manifest in store.list("evaluation")
        if manifest.key != original.manifest.key
    )
    store.remove("evaluation", original.manifest.key)
    put_changed(store, changed, unchanged, params=original.manifest.params)
    store.remove("evaluation", changed.manifest.key)

    correct = int(str(trained.of("validate").facts["correct_top1"]))
    with pytest.raises(
        RegressionError, match=f"is regressed: correct_top1 was {correct + 1}, is {correct}$"
    ):
        revalidate(str(copied_store), tolerance=1.0)
    assert "correct_top1 was" in str(suspicion(store))


@pytest.mark.slow
def test_a_run_is_made_up_for_by_a_night_that_began_when_it_was_due_or_later(
    trained: Trained, copied_store: Path
) -> None:
    store = open_store(str(copied_store))
    flip_a_bit(file_of(trained, copied_store, "train"))
    assert night_since(store, datetime.now(UTC)) is None
    with pytest.raises(RegressionError):
        revalidate(str(copied_store))
    (record,) = nights(store)
    assert record.scheduled is None
    for due, made_up in ((record.began, True), (record.began + timedelta(microseconds=1), False)):
        assert (night_since(store, due) is not None) == made_up
