"""A revalidation passes if all is as recorded; otherwise it repairs, marks, sends an event, fails.

Two of them evaluate production in a process; the others find the recorded evaluation again.
"""

import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import flows.revalidate
import tasks.revalidate
from flows.revalidate import revalidate
from infra.artifacts import Artifact, ArtifactStore, open_store
from infra.artifacts.gc import survey
from sknet.evaluation.predictions import read_predictions
from sknet.records import Checkpoint, Evaluation, Revalidation
from tasks.errors import RegressionError
from tasks.revalidate import REGRESSED
from tests.candidates import flip_a_bit, put_changed, remove_all, with_wrong
from tests.flow_runs import harness_api
from tests.prefect_services import answer_of
from tests.tiny_pipeline import Trained, run_command, write_images
from tests.waiting import wait_for

DAMAGEABLE = {"train": "model.ckpt", "convert": "val-0.mindrecord", "validate": "evaluation.json"}


@pytest.fixture
def same_evaluation(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets evaluating production give the files of its recorded evaluation, without a process."""

    def evaluate_checkpoint(*arguments: object) -> Path:
        workspace = arguments[-1]
        assert isinstance(workspace, Path)
        evaluation = trained.store / "evaluation" / trained.of("validate").key
        return shutil.copytree(evaluation, workspace / "out")

    monkeypatch.setattr(tasks.revalidate, "evaluate_checkpoint", evaluate_checkpoint)


def file_of(trained: Trained, store: Path, task: str) -> Path:
    """Return a file of the task's artifact, for its bits to be flipped."""
    result = trained.of(task)
    directory = store / result.kind / result.key
    if task == "convert":
        return sorted(directory.glob("val*.mindrecord"))[0]
    return directory / DAMAGEABLE[task]


def revalidations(store: ArtifactStore) -> list[Revalidation]:
    """Return all records, oldest first."""
    records = [
        Revalidation.read(store.load("revalidation", manifest.key).path("revalidation.json"))
        for manifest in store.list("revalidation")
    ]
    return sorted(records, key=lambda record: record.began)


def event_since(time: datetime) -> dict[str, object]:
    """Return the payload of the only event; the server gets it a little later."""
    wanted = {
        "event": {"name": [REGRESSED]},
        "resource": {"id": ["sknet.ref.production"]},
        "occurred": {"since": time.isoformat()},
    }
    api = harness_api()["PREFECT_API_URL"]
    events: list[dict[str, object]] = []

    def has_event() -> bool:
        answer = answer_of(api, "POST", "events/filter", {"filter": wanted})
        events[:] = [event["payload"] for event in answer["events"]]
        return bool(events)

    wait_for(has_event, pause=0.5)
    (event,) = events
    return event


def suspicion(store: ArtifactStore) -> str | None:
    ref = store.refs.get("production")
    assert ref is not None
    return ref.suspect


def unchanged(directory: Path) -> None:
    del directory


def recorded_by_other_software(
    trained: Trained, store: ArtifactStore, change: Callable[[Path], None]
) -> Artifact:
    """Replace the recorded evaluation by one as another version of MindSpore would have made."""
    original = store.load("evaluation", trained.of("validate").key)
    artifact = put_changed(store, original, change, params={"mindspore": "2.9.9"})
    store.remove("evaluation", original.manifest.key)
    remove_all(store, "promotion")
    return artifact


def rerecord(
    trained: Trained,
    store: ArtifactStore,
    change: Callable[[Path], None],
    provenance: dict[str, str] | None = None,
) -> None:
    """Change the recorded evaluation under the key that it has."""
    remove_all(store, "promotion")
    original = store.load("evaluation", trained.of("validate").key)
    changed = put_changed(store, original, change, params={"mindspore": "2.9.9"})
    store.remove("evaluation", original.manifest.key)
    params = original.manifest.params
    put_changed(store, changed, unchanged, params=params, provenance=provenance)
    store.remove("evaluation", changed.manifest.key)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "has no refs/production.json"),
        (["--tolerance", "1.5"], "'1.5' is not a number from 0 to 1"),
        (["--tolerance", "nan"], "'nan' is not a number from 0 to 1"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    refused: Callable[..., str], tmp_path: Path, options: list[str], message: str
) -> None:
    assert message in refused(flows.revalidate, "--store", tmp_path, *options)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--replica", "--data"])
def test_a_source_of_copies_that_does_not_exist_is_refused_at_once(
    refused: Callable[..., str], trained: Trained, tmp_path: Path, option: str
) -> None:
    absent = tmp_path / "absent"
    assert "absent" in refused(flows.revalidate, "--store", trained.store, option, absent)


def test_as_a_process_the_code_and_the_line_are_the_same(tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "flows.revalidate", "--quiet"]
    ended = run_command([*command, "--store", str(store)])
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "does not exist" in line
    assert not store.exists()


@pytest.mark.slow
def test_flipped_bits_are_found_and_replaced_from_a_replica_and_all_is_as_recorded(
    trained: Trained, copied_store: Path
) -> None:
    store = open_store(str(copied_store))
    before = store.refs.history("production")
    flipped = {
        task: flip_a_bit(file_of(trained, copied_store, task))
        for task in ("train", "convert", "validate")
    }

    began = datetime.now(UTC)
    record = revalidate(str(copied_store), replica=str(trained.store))

    assert record.outcome == "as recorded"
    replica = open_store(str(trained.store))
    for used_in in (store, replica):  # so that garbage collection keeps what the nights need
        for task in flipped:
            result = trained.of(task)
            assert used_in.last_used(result.kind, result.key) >= began
    assert (record.damages, record.num_differing) == ((), 0)
    assert record.found == record.recorded
    assert record.found is not None
    assert record.found.correct_top1 == trained.of("validate").facts["correct_top1"]
    assert [(repair.how, repair.artifact) for repair in record.repairs] == [
        ("fetched", f"{trained.of(task).kind}/{trained.of(task).key}") for task in flipped
    ]
    for task, repair in zip(flipped, record.repairs, strict=True):
        (damage,) = repair.damages
        assert f"{file_of(trained, copied_store, task).name!r}: sha256" in damage
        result = trained.of(task)
        assert store.verify(result.kind, result.key) == ()
    names = {file_of(trained, copied_store, task).name for task in flipped}
    evidence = [
        path.read_bytes()
        for path in (copied_store / ".quarantine").rglob("*")
        if path.name in names
    ]
    assert sorted(evidence) == sorted(flipped.values())
    assert revalidations(store) == [record]
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
    for task in ("convert", "validate"):
        flip_a_bit(file_of(trained, copied_store, task))

    record = revalidate(str(copied_store), data=str(trained.images))

    assert record.outcome == "as recorded"
    assert [(repair.how, repair.artifact.partition("/")[0]) for repair in record.repairs] == [
        ("rebuilt", "shards"),
        ("rebuilt", "evaluation"),
    ]
    for task in ("convert", "validate"):
        result = trained.of(task)
        assert store.verify(result.kind, result.key) == ()
        assert store.load(result.kind, result.key).digest == result.digest


@pytest.mark.slow
@pytest.mark.parametrize("task", ["train", "convert", "validate"])
def test_damage_that_nothing_can_repair_is_named_marked_and_sent(
    trained: Trained, copied_store: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(copied_store))
    if task == "validate":
        # The software of this host could make its own evaluation once more.
        made = recorded_by_other_software(trained, store, unchanged)
        victim = made.path(DAMAGEABLE[task])
    else:
        victim = file_of(trained, copied_store, task)
    flipped = flip_a_bit(victim)
    began = datetime.now(UTC)
    targets = [ref.digest for ref in store.refs.history("production")]

    # Whoever gets the event may be in another directory.
    monkeypatch.chdir(copied_store.parent)
    with pytest.raises(RegressionError, match=r"^production \(\w+\) is damaged: ") as caught:
        revalidate(copied_store.name)

    assert f"{victim.name!r}: sha256" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert victim.read_bytes() == flipped, "the evidence moved"
    (record,) = revalidations(store)
    assert record.outcome == "damaged"
    assert record.recorded is record.found is None
    assert f"{victim.name!r}: sha256" in record.damages[0]
    assert suspicion(store) == f"damaged: {record.said}"
    assert [ref.digest for ref in store.refs.history("production")] == [*targets, targets[-1]]
    facts = event_since(began)
    assert (facts["store"], facts["outcome"]) == (str(copied_store), "damaged")
    assert facts["damages"] == list(record.damages)


@pytest.mark.slow
def test_shards_are_not_rebuilt_from_other_data(
    trained: Trained, copied_store: Path, tmp_path: Path
) -> None:
    other = write_images(tmp_path / "other")
    changed = next((other / "train" / "red").iterdir())
    shutil.copy(next((other / "train" / "blue").iterdir()), changed)
    flip_a_bit(file_of(trained, copied_store, "convert"))
    with pytest.raises(RegressionError, match=f"{changed.name} changed since it was staged"):
        revalidate(str(copied_store), data=str(other))


@pytest.mark.slow
@pytest.mark.usefixtures("same_evaluation")
def test_other_software_may_predict_a_fraction_differently_and_passing_clears_the_mark(
    trained: Trained, copied_store: Path
) -> None:
    store = open_store(str(copied_store))
    made = recorded_by_other_software(trained, store, with_wrong(2, 5))
    began = datetime.now(UTC)

    with pytest.raises(RegressionError, match=r"is regressed: \d+ of 18 samples are predicted"):
        revalidate(str(copied_store))

    (record,) = revalidations(store)
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
            then.keys, then.labels, then.predicted, now.predicted, strict=True
        )
        if was != is_now
    ]
    assert len(expected) >= 2
    assert [
        (each.key, each.label, each.recorded, each.found) for each in record.differing
    ] == expected
    assert record.num_differing == len(expected)
    assert suspicion(store) == f"regressed: {record.said}"
    assert event_since(began)["differing"] == [key for key, *_ in expected]

    passing = revalidate(str(copied_store), tolerance=1.0)

    assert (passing.outcome, passing.differing) == ("within tolerance", record.differing)
    assert suspicion(store) is None
    assert [ref.suspect is None for ref in store.refs.history("production")] == [True, False, True]
    assert revalidations(store) == [record, passing]


@pytest.mark.slow
@pytest.mark.usefixtures("same_evaluation")
def test_another_kind_of_processor_counts_as_other_software(
    trained: Trained, copied_store: Path
) -> None:
    rerecord(trained, open_store(str(copied_store)), unchanged, {"processor": "of another kind"})

    record = revalidate(str(copied_store))

    assert (record.outcome, record.num_differing) == ("within tolerance", 0)
    assert record.recorded_software["processor"] == "of another kind"
    assert record.software["processor"] not in ("of another kind", "")


@pytest.mark.slow
@pytest.mark.usefixtures("same_evaluation")
def test_production_from_ascend_is_evaluated_on_cpu_where_there_is_no_card(
    trained: Trained, copied_store: Path
) -> None:
    def on_ascend(directory: Path) -> None:
        state = Checkpoint.read(directory / "state.json")
        run = state.run.model_copy(update={"device_target": "Ascend"})
        state.model_copy(update={"run": run}).write(directory / "state.json")

    store, ascend = open_store(str(copied_store)), {"device_target": "Ascend"}
    on_cpu = store.load("checkpoint", trained.of("train").key)
    checkpoint = put_changed(store, on_cpu, on_ascend, params=ascend).manifest
    evaluation = store.load("evaluation", trained.of("validate").key)
    inputs = {"checkpoint": checkpoint.digest}
    put_changed(store, evaluation, unchanged, params=ascend, inputs=inputs)
    current = store.refs.get("production")
    store.refs.set("production", checkpoint, expected=current, reason="trained on Ascend")

    record = revalidate(str(copied_store))

    assert record.recorded_software["device_target"] == "Ascend"
    assert record.software["device_target"] == "CPU"
    assert (record.outcome, record.num_differing) == ("within tolerance", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("same_evaluation")
def test_on_the_same_software_one_count_that_differs_is_a_regression(
    trained: Trained, copied_store: Path
) -> None:
    def one_less(directory: Path) -> None:
        counts = Evaluation.read(directory / "evaluation.json")
        changed = counts.model_copy(update={"correct_top1": counts.correct_top1 - 1})
        changed.write(directory / "evaluation.json")

    store = open_store(str(copied_store))
    rerecord(trained, store, one_less)

    correct = int(str(trained.of("validate").facts["correct_top1"]))
    with pytest.raises(
        RegressionError, match=f"is regressed: correct_top1 was {correct - 1}, is {correct}$"
    ):
        revalidate(str(copied_store), tolerance=1.0)
    assert "correct_top1 was" in str(suspicion(store))
