"""Reading a store for a report, with a row for what is unreadable; comparing two of its runs."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.artifacts import Manifest, open_store
from sknet.errors import UserError
from sknet.report import ReportContents, all_tables
from sknet.report.contents import MeasuredSample
from sknet.report.published import PUBLISHED
from tasks.catalog.comparison import compare_named, confusions, predicted_samples
from tasks.catalog.runs import collect, evaluation_of
from tests.candidates import put_changed, with_note
from tests.synthetic_store import SEEN, Filler, fill


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("filled") / "store"
    fill(root, 3, num_revalidations=5)
    return root


@pytest.fixture
def root(filled: Path, tmp_path: Path) -> Path:
    """A copy of the store, free to be damaged."""
    return shutil.copytree(filled, tmp_path / "store")


def found(root: Path) -> ReportContents:
    return collect(open_store(str(root)))


def newest(root: Path, kind: str) -> Path:
    """Return the directory of the newest run's artifact of a kind."""
    run = found(root).runs[0]
    if kind == "training-log":
        (log,) = (m for m in open_store(str(root)).list(kind) if m.params["run"] == run.key)
        return root / kind / log.key
    artifacts = {each.artifact.split("/")[0]: each.artifact for each in run.tasks}
    return root / artifacts[kind]


@contextmanager
def another_user() -> Iterator[None]:
    """Be somebody who owns nothing; whoever isn't root owns the test's files."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_report_lists_what_this_user_can_not_read_and_shows_the_rest(filled: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="shared-") as place:
        Path(place).chmod(0o755)  # other users don't reach pytest's directories
        root = shutil.copytree(filled, Path(place) / "store")
        state = newest(root, "checkpoint") / "state.json"
        runs = len(found(root).runs)
        hidden = (state, root / "promotion")
        for path in hidden:
            path.chmod(0)
        with another_user():
            contents = collect(open_store(str(root), create=False))
        for path in hidden:
            path.chmod(0o755)
    assert len(contents.runs) == runs - 1
    listed = {each.artifact: each.reason for each in contents.unreadable}
    assert "Permission denied" in listed["promotion"]
    assert any("Permission denied" in listed[name] for name in listed if "state.json" in name)


def rewrite(directory: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file, and the manifest with it, as a program of another version would have."""
    content = change((directory / name).read_bytes())
    manifest = Manifest.decode((directory / "manifest.json").read_bytes())
    scratch = directory.with_name("scratch")
    shutil.copytree(directory, scratch)
    (scratch / "manifest.json").unlink()
    (scratch / name).unlink()
    (scratch / name).write_bytes(content)
    store = open_store(str(directory.parent.parent))
    store.remove(manifest.kind, manifest.key)
    store.put(manifest.spec, scratch, stats={}, provenance=dict(manifest.provenance))
    shutil.rmtree(scratch)


def change_json(directory: Path, name: str, **fields: object) -> None:
    rewrite(directory, name, lambda old: json.dumps({**json.loads(old), **fields}).encode())


def faults(root: Path) -> dict[str, str]:
    return {each.artifact: each.reason for each in found(root).unreadable}


def test_everything_recorded_is_found(filled: Path) -> None:
    contents = found(filled)
    assert contents.unreadable == ()
    assert [run.recipe.seed for run in contents.runs] == [2, 1, 0]
    assert [each.began for each in contents.revalidations] == sorted(
        each.began for each in contents.revalidations
    )
    run = contents.runs[-1]
    assert run.is_production
    assert [each.task for each in run.tasks] == [
        "stage",
        "convert",
        "train",
        "validate",
        "promote",
    ]
    assert [counts.resolution for counts in run.evaluations] == [32, 40]
    assert run.data is not None
    assert [sample.key for sample in run.data.quarantined] == [
        "train/7/0042.png",
        "val/3/0007.png",
    ]
    assert run.attention is not None
    assert run.attention.scales == (1.0, 1.5)
    assert run.examples
    assert all(check.passed for check in run.checks)
    assert run.software["numpy"] == "1.26.4"
    assert len(run.machine) == 8
    assert "somewhere" not in contents.model_dump_json(), "the name of its host"


def test_later_runs_reuse_what_the_first_run_made(filled: Path) -> None:
    table = all_tables(found(filled))["stages"]
    reused = table[table["reused"]].groupby("stage").size()
    assert reused.to_dict() == {"convert": 2, "stage": 2}
    manifest = json.loads(next((filled / "shards").glob("*/manifest.json")).read_text("utf-8"))
    size = sum(entry["size"] for entry in manifest["files"])
    assert set(table[table["stage"] == "convert"]["bytes"]) == {size}


def test_tables_show_what_runs_reached_and_cost(filled: Path) -> None:
    contents = collect(open_store(str(filled)), price=3.0)
    tables = all_tables(contents)
    runs = tables["runs"]
    assert list(runs["verdict"])[1:] == [
        "refused: floor: " + contents.runs[1].promotion.criteria[1].detail,  # type: ignore[union-attr]
        "production",
    ]
    # 11,958,056 with 1000 classes; the classifier reads 512 features.
    assert set(runs["published parameters"]) == {11_958_056 - 990 * 513}
    assert set(runs["parameters are"]) == {"equal"}
    hours = contents.runs[0].train_seconds * 2 / 3600  # type: ignore[operator]
    assert runs.loc[0, "device-hours"] == pytest.approx(hours)
    assert runs.loc[0, "cost"] == pytest.approx(3 * hours, abs=1e-6)
    assert len(tables["table"]) == 3 + len(PUBLISHED)
    assert len(tables["epochs"]) == 3 * 8
    assert len(tables["evaluations"]) == 6
    assert list(tables["nights"]["outcome"])[-1] == "within tolerance"
    assert list(tables["quarantine"]["reason"]) == ["not an image", "does not decode: truncated"]


def test_parameters_that_differ_from_the_published_ones_are_shown(filled: Path) -> None:
    contents = found(filled)
    run = contents.runs[0].model_copy(update={"params": 11_450_187})
    table = all_tables(contents.model_copy(update={"runs": (run,)}))["runs"]
    assert table.loc[0, "parameters are"] == "differs by +1"


def test_an_empty_store_gives_empty_contents(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert found(tmp_path / "store") == ReportContents()


def test_an_older_state_is_a_row_and_its_run_is_left_out(root: Path) -> None:
    directory = newest(root, "checkpoint")
    change_json(directory, "state.json", format_version=1)
    reasons = faults(root)
    assert reasons[f"checkpoint/{directory.name}/state.json"] == (
        "is no valid Checkpoint: format_version: Input should be 2 or 3"
    )
    assert len(found(root).runs) == 2


def test_an_evaluation_of_a_newer_format_is_a_row_and_its_run_stays(root: Path) -> None:
    directory = newest(root, "evaluation")
    change_json(directory, "evaluation.json", format_version=3)
    (row,) = found(root).unreadable
    assert row.artifact == f"evaluation/{directory.name}/evaluation.json"
    assert "format_version: Input should be 2" in row.reason
    contents = found(root)
    assert len(contents.runs) == 3
    assert contents.runs[0].evaluation is None
    assert "not evaluated" in all_tables(contents)["runs"].loc[0, "note"]


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_loss_that_is_not_finite_is_a_row(root: Path, value: str) -> None:
    directory = newest(root, "evaluation")
    rewrite(
        directory,
        "evaluation.json",
        lambda old: json.dumps({**json.loads(old), "loss_sum": float(value)}).encode(),
    )
    (reason,) = faults(root).values()
    assert reason.startswith("is no valid Evaluation: ")


def test_counts_that_contradict_each_other_are_a_row(root: Path) -> None:
    directory = newest(root, "evaluation")
    change_json(directory, "evaluation.json", correct_top1=SEEN + 1)
    (reason,) = faults(root).values()
    assert "expected them in rising order" in reason


def test_a_log_cut_short_keeps_its_other_lines(root: Path) -> None:
    directory = newest(root, "training-log")
    rewrite(directory, "metrics.jsonl", lambda old: old[:-20] + b"\n[]\n")
    (reason,) = faults(root).values()
    assert reason.startswith("2 lines can't be read, first line ")
    assert len(found(root).runs[0].history.epochs) == 8


def test_a_damaged_artifact_is_one_row_however_many_records_it_holds(root: Path) -> None:
    directory = newest(root, "evaluation")
    (directory / "evaluation.json").write_bytes(b"")
    reasons = faults(root)
    assert list(reasons) == [f"evaluation/{directory.name}"]
    assert "has 0 bytes, expected " in reasons[f"evaluation/{directory.name}"]


def test_half_written_artifacts_and_unfinished_trainings_are_rows(root: Path) -> None:
    checkpoint = newest(root, "checkpoint")
    log = newest(root, "training-log")
    (checkpoint / "manifest.json").write_text("{")
    (root / "revalidation" / ("0" * 64)).mkdir()
    reasons = faults(root)
    assert set(reasons) == {f"checkpoint/{checkpoint.name}", f"revalidation/{'0' * 64}"}
    shutil.rmtree(checkpoint)
    assert faults(root)[f"checkpoint/{checkpoint.name}"] == (
        f"its log {log.name[:12]} is there, its checkpoint is not"
    )


def test_missing_parts_leave_a_run_with_what_there_is(root: Path) -> None:
    for kind in ("dataset", "shards", "training-log", "evaluation", "promotion"):
        shutil.rmtree(root / kind)
    contents = found(root)
    assert contents.unreadable == ()
    assert [[each.task for each in run.tasks] for run in contents.runs] == [["train"]] * 3
    tables = all_tables(contents)
    assert tables["runs"][["accuracy@1", "ms/step p50", "quarantined"]].isna().all(axis=None)


def test_a_newer_evaluation_leaves_a_run_its_promotion(root: Path) -> None:
    """An update counts more, and so evaluates what older versions have promoted once more."""
    before = next(run for run in found(root).runs if run.promotion)
    store = open_store(str(root))
    put_changed(
        store,
        evaluation_of(store, before),
        with_note("of a newer version"),
        params={"numpy": "newer"},
        created="2027-01-01T00:00:00+00:00",
    )
    run = next(run for run in found(root).runs if run.key == before.key)
    assert run.software["numpy"] == "newer"
    assert run.promotion == before.promotion


def test_the_confusion_of_classes_is_counted_from_predictions_of_old_evaluations_too(
    root: Path,
) -> None:
    store, runs = open_store(str(root)), found(root).runs
    counted = confusions(store, runs)
    assert counted.keys() == {run.key for run in runs}
    counts = runs[0].evaluation
    assert counts is not None
    matrix = counted[runs[0].key].matrix(range(10))
    assert tuple(matrix.sum(axis=1)) == counts.class_seen
    assert tuple(matrix.diagonal()) == counts.class_correct

    change_json(newest(root, "evaluation"), "evaluation.json", correct_top1=counts.correct_top1 - 1)
    assert runs[0].key not in confusions(store, found(root).runs), "they contradict the counts"


def test_predictions_are_joined_with_the_images_that_were_measured(filled: Path) -> None:
    store, contents = open_store(str(filled)), found(filled)
    (data,) = contents.data_sets
    some = [
        {"split": split, "key": f"{split}/{label}/{number:04}.png", "label": label, "size": 9}
        | {"width": 8, "height": 8, "brightness": 90.0, "contrast": 30.0}
        for split in ("train", "val")
        for label, number in ((0, 0), (3, 3), (9, 359))
    ]
    measured = [MeasuredSample.model_validate(row) for row in some]
    data = data.model_copy(update={"measured": tuple(measured)})
    samples = predicted_samples(store, contents.runs, [data])
    assert samples.keys() == {run.key for run in contents.runs}
    table = samples[contents.runs[0].key]
    assert table["key"].tolist() == ["val/0/0000.png", "val/3/0003.png", "val/9/0359.png"]
    assert (table["correct"] == (table["predicted"] == table["label"])).all()
    assert predicted_samples(store, contents.runs, contents.data_sets) == {}, "nothing is measured"


def test_a_broken_ref_is_a_row(root: Path) -> None:
    (root / "refs" / "production.json").write_text("{}")
    assert list(faults(root)) == ["refs/production.json"]


def test_the_mark_of_a_suspect_production_is_shown(root: Path) -> None:
    store = open_store(str(root))
    ref = store.refs.get("production")
    assert ref is not None
    target = store.load(ref.kind, ref.key).manifest
    why = "9 samples are predicted differently"
    store.refs.set("production", target, expected=ref, reason="revalidation", suspect=why)
    assert all_tables(found(root))["runs"]["verdict"].iloc[-1] == f"production, suspect: {why}"


def test_two_runs_are_compared_on_the_samples_that_both_predicted(filled: Path) -> None:
    store, contents = open_store(str(filled)), found(filled)
    second = contents.runs[0]
    (comparison,) = compare_named(store, contents, "production", second.key[:12])
    assert comparison.first.is_production
    assert [(change.part, change.name) for change in comparison.changes] == [("recipe", "seed")]
    at_32 = comparison.accuracies[0]
    assert at_32.paired is not None
    assert at_32.paired.seen == SEEN
    assert at_32.difference.value == pytest.approx(
        (at_32.second.correct_top1 - at_32.first.correct_top1) / SEEN
    )
    assert at_32.p_value is not None
    # The store has no predictions at the other resolution.
    assert comparison.accuracies[1].paired is None


def test_any_number_of_runs_is_compared_with_the_first(filled: Path) -> None:
    store, contents = open_store(str(filled)), found(filled)
    last, middle, first = contents.runs
    compared = compare_named(store, contents, middle.short_key, "production", last.short_key)
    assert [(each.first.key, each.second.key) for each in compared] == [
        (middle.key, first.key),
        (middle.key, last.key),
    ]
    with pytest.raises(UserError, match="one run to compare, 'production': name at least two"):
        compare_named(store, contents, "production")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zzzz", "no run or ref 'zzzz': expected the beginning of a run's key"),
        ("", "'' is the beginning of 3 runs ("),
        ("staging", "no run or ref 'staging'"),
    ],
)
def test_names_that_stand_for_no_run_are_refused_in_one_line(
    filled: Path, name: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        compare_named(open_store(str(filled)), found(filled), "production", name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_run_is_not_compared_with_itself(filled: Path) -> None:
    contents = found(filled)
    production = next(run for run in contents.runs if run.is_production)
    with pytest.raises(UserError, match="are the same run"):
        compare_named(open_store(str(filled)), contents, "production", production.key)


def test_predictions_that_cannot_be_read_leave_the_samples_independent(root: Path) -> None:
    directory = newest(root, "evaluation")
    rewrite(directory, "predictions.parquet", lambda old: old[:-9])
    store, contents = open_store(str(root)), found(root)
    (comparison,) = compare_named(store, contents, "production", contents.runs[0].key)
    assert [change.paired for change in comparison.accuracies] == [None, None]


def test_a_run_without_evaluation_takes_no_part_in_the_headline(tmp_path: Path) -> None:
    filler = Filler(tmp_path / "store")
    filler.run(0, evaluated=False)
    contents = found(tmp_path / "store")
    assert contents.best is None
    assert len(contents.detailed(5)) == 1
