"""The whole flow: what it prints and shows, and that a second run reuses or rebuilds artifacts."""

import base64
import json
import shlex
import stat
from itertools import groupby
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

import tasks.programs
from flows.console import console
from flows.summary import next_steps, summary
from infra.artifacts import open_store
from sknet.report.text import UNKNOWN
from tasks.catalog.runs import collect
from tasks.results import TaskResult
from tests.tiny_pipeline import TASKS, Trained, digests, run_flow_once, shown_by
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def statuses(results: list[TaskResult]) -> dict[str, str]:
    return {result.task: result.status for result in results}


def manifest_times(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.glob("*/*/manifest.json")}


def task_state_names(flow_run: UUID) -> dict[str, str]:
    """Return the final states by task; Prefect's server learns of them a little later."""
    runs_of = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    names: dict[str, str] = {}

    with get_client(sync_client=True) as client:

        def have_all_ended() -> bool:
            runs = client.read_task_runs(flow_run_filter=runs_of)
            names.update({run.name.rsplit("-", 1)[0]: run.state_name or "" for run in runs})
            ended = [run for run in runs if run.state and run.state.is_final()]
            return len(ended) == len(TASKS)

        wait_for(have_all_ended, lambda: str(names), pause=0.5)
    return names


def test_the_files_of_a_run_are_as_the_umask_of_its_user_says(
    trained: Trained, tmp_path: Path
) -> None:
    """Whatever the modes with which MindSpore writes checkpoints and shards."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    of_file, of_directory = ((tmp_path / n).stat().st_mode for n in ("file", "directory"))
    for path in trained.store.rglob("*"):
        expected = of_directory if path.is_dir() else of_file
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(expected), path


def test_a_first_run_builds_every_artifact_and_sums_up_its_results(trained: Trained) -> None:
    assert statuses(list(trained.results)) == dict.fromkeys(TASKS, "built")
    evaluation = trained.of("validate")
    recorded = json.loads(
        (trained.store / "evaluation" / evaluation.key / "evaluation.json").read_text("utf-8")
    )
    correct = recorded["correct_top1"]
    assert recorded["seen"] == 18

    lines = summary(list(trained.results))

    assert f"accuracy@1  {correct / 18:.2%} ({correct}/18)" in lines
    assert not any(line.startswith("accuracy@5") for line in lines), "it says nothing of 3 classes"
    balanced = np.divide(recorded["class_correct"], recorded["class_seen"]).mean()
    assert f"balanced    {balanced:.2%}" in lines
    assert any(line.startswith("macro-F1    ") for line in lines)
    assert any(line.startswith("warning     no floor is set") for line in lines)
    assert f"checkpoint  checkpoint/{trained.of('train').key}" in lines
    assert "promoted    refs/production: no floor is set" in lines
    page = str(trained.of("report").facts["html"])
    assert f"report      {page}" in lines
    assert Path(page).is_file()
    assert "built       stage, convert, train, validate, promote, report" in lines
    assert "reused      nothing" in lines
    promoted = json.loads((trained.store / "refs" / "production.json").read_text("utf-8"))
    assert promoted["digest"] == trained.of("train").digest


def test_the_load_by_others_is_recorded_of_a_training(trained: Trained) -> None:
    (run,) = collect(open_store(str(trained.store))).runs
    manifest = trained.store / "checkpoint" / trained.of("train").key / "manifest.json"
    recorded = json.loads(manifest.read_bytes())["provenance"]["load_by_others"]
    assert run.load == recorded
    assert 0 <= recorded <= 1


def next_of(results: list[TaskResult], store: str | None) -> dict[str, list[str]]:
    """Return what the summary tells people to do next, each as the words of a command."""
    after = next_steps(results, store)
    assert after[:2] == ["", "next"]
    steps = {line[2:18].strip(): shlex.split(line[19:]) for line in after[2:]}
    assert all(words[0] == "sknet" for words in steps.values())
    return steps


def ended_as(trained: Trained, status: str, earlier: str | None) -> list[TaskResult]:
    facts = {**trained.of("promote").facts, "earlier": earlier}
    promotion = trained.of("promote").model_copy(update={"status": status, "facts": facts})
    return [promotion if each.task == "promote" else each for each in trained.results]


def test_the_summary_ends_with_commands_for_what_people_do_next(trained: Trained) -> None:
    key, run = trained.of("train").key, trained.of("train").key[:8]
    opened = ["sknet", "report", "--open"]
    assert next_of(ended_as(trained, "built", "0123456789"), None) == {
        "open the report": opened,
        "predict": ["sknet", "predict", "IMAGES"],
        "compare": [*opened, "--compare", "01234567", run],
    }
    first = next_of(ended_as(trained, "built", None), "my store")
    at_store = ["--store", "my store"]
    assert first["predict"] == ["sknet", "predict", *at_store, "IMAGES"]
    assert first["compare"] == [
        "sknet",
        "report",
        *at_store,
        "--open",
        "--compare",
        run,
        "OTHER_RUN",
    ]

    refused = next_of(ended_as(trained, "refused", None), None)
    of_run = ["--ckpt_path", f"artifacts/checkpoint/{key}"]
    assert refused["predict"] == ["sknet", "predict", *of_run, "IMAGES"]
    promote = ["sknet", "store", "refs", "set", "production", f"checkpoint/{key}"]
    assert refused["promote"] == [*promote, "--store", "artifacts", "--reason", "WHY"]
    assert "compare" not in refused
    on_s3 = next_of(ended_as(trained, "refused", "0123456789"), "s3://bucket/x")
    fetch = ["sknet", "store", "fetch", f"checkpoint/{key}", "--store", "s3://bucket/x"]
    assert on_s3["predict"][:6] == fetch
    assert on_s3["compare"][-2:] == ["01234567", run]


@pytest.mark.parametrize("store", [None, "my store", "s3://bucket/x"])
@pytest.mark.parametrize("status", ["built", "refused"])
def test_the_commands_of_the_summary_are_understood(
    trained: Trained, status: str, store: str | None
) -> None:
    for words in next_of(ended_as(trained, status, "0123456789"), store).values():
        for _, command in groupby(words, lambda word: word == "&&"):
            if (first := list(command)) != ["&&"]:
                start_of(first)


def start_of(words: list[str]) -> None:
    """Parse the words of a command as `sknet` does, without running it."""
    console().parse_args(words[1:], exit_on_error=False, print_error=False)


def test_the_summary_counts_what_staging_and_conversion_left_out(trained: Trained) -> None:
    assert not any(line.startswith("left out") for line in summary(list(trained.results)))
    left_out = {"stage": 1, "convert": 2}
    results = [
        each.model_copy(update={"facts": {**each.facts, "quarantined": left_out[each.task]}})
        if each.task in left_out
        else each
        for each in trained.results
    ]
    assert "left out    3 of 67 images; the log has each reason" in summary(results)


def test_prefects_pages_show_accuracy_report_and_what_each_task_has_done(
    trained: Trained, copied_store: Path
) -> None:
    flow_run, _ = run_flow_once(trained.recipe, trained.images, copied_store)

    shown = shown_by(flow_run)
    assert shown.keys() == {"accuracy", "accuracy-intervals", "page", "report", "results", "tasks"}
    (row,) = json.loads(str(shown["accuracy"].data))
    counts = trained.of("validate").facts
    assert (row["correct_top1"], row["seen"]) == (counts["correct_top1"], counts["seen"])
    assert row["balanced accuracy"].startswith(f"{counts['balanced_accuracy']:.2%} (")
    assert "accuracy@5" not in row
    assert shown["accuracy"].type == "table"
    page = Path(str(trained.of("report").facts["html"])).with_name("report.md")
    drawing = base64.b64encode(page.with_name("accuracy.svg").read_bytes()).decode()
    figure = f"data:image/svg+xml;base64,{drawing}"
    text = str(shown["report"].data)
    assert shown["report"].type == "markdown"
    assert text.endswith(page.read_text("utf-8").replace("(accuracy.svg)", f"({figure})"))
    assert f"({figure})" in text
    assert f"`report.html` of the artifact `report/{page.parent.name}`" in text.splitlines()[0]
    assert shown["results"].type == "table"
    first = json.loads(str(shown["results"].data))[0]
    assert (first["model name"], first["jit level"]) == ("tiny", "default")
    assert first["acc@top1"] == f"{counts['correct_top1'] / 18 * 100:.2f} %"
    assert first["acc@top5"] == UNKNOWN
    assert first["graph compile"].endswith(" s")
    html = copied_store / "report" / page.parent.name / "report.html"
    assert str(shown["page"].data).endswith(f"]({html.as_uri()})")
    rows = json.loads(str(shown["tasks"].data))
    assert [(row["task"], row["status"]) for row in rows] == [(task, "reused") for task in TASKS]
    assert rows[2]["artifact"] == f"checkpoint/{trained.of('train').key}"
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run)
    assert run.name == f"tiny {trained.of('train').key[:8]}"
    assert set(run.tags) == {"reused", "promoted"}
    assert shown["accuracy-intervals"].type == "image"
    assert shown["accuracy-intervals"].data == figure


def test_a_second_run_reuses_all_artifacts_and_starts_no_process(
    trained: Trained, copied_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a process was started")

    monkeypatch.setattr(tasks.programs, "run", refuse)
    before = digests(copied_store), manifest_times(copied_store)

    flow_run, results = run_flow_once(trained.recipe, trained.images, copied_store)

    assert statuses(results) == dict.fromkeys(TASKS, "reused")
    assert (digests(copied_store), manifest_times(copied_store)) == before
    assert task_state_names(flow_run) == dict.fromkeys(TASKS, "Reused")
    assert "built       nothing: everything was found, undamaged" in summary(results)
    assert f"reused      {', '.join(TASKS)}" in summary(results)


def test_a_truncated_shard_is_set_aside_and_rebuilt_alone(
    trained: Trained, copied_store: Path
) -> None:
    shards = copied_store / "shards" / trained.of("convert").key
    victim = sorted(shards.glob("train-*.mindrecord"))[1]
    victim.chmod(0o644)
    with victim.open("r+b") as file:
        file.truncate(100)
    before = digests(copied_store)

    flow_run, results = run_flow_once(trained.recipe, trained.images, copied_store)

    assert digests(copied_store) == before
    # The report is new, as it shows how long each task took.
    assert statuses(results) == {
        "stage": "reused",
        "convert": "rebuilt",
        "train": "reused",
        "validate": "reused",
        "promote": "reused",
        "report": "built",
    }
    assert task_state_names(flow_run)["convert"] == "Rebuilt"
    bar = shown_by(flow_run)["conversion"]
    assert (bar.type, bar.data) == ("progress", 100.0)
    (report,) = (copied_store / ".quarantine").glob("shards-*.damage.json")
    (damage,) = json.loads(report.read_text("utf-8"))["damages"]
    assert (damage["path"], damage["problem"]) == (victim.name, "size")
