"""The whole pipeline: what it says, and that a second run finds everything or heals the damage."""

import base64
import json
import time
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

import tasks.programs
from flows.summary import summary
from tasks.results import TaskResult
from tests.tiny_pipeline import STAGES, Trained, digests, run_flow_once, shown_by

pytestmark = pytest.mark.slow


def statuses(results: list[TaskResult]) -> dict[str, str]:
    return {result.stage: result.status for result in results}


def manifest_times(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.glob("*/*/manifest.json")}


def task_state_names(flow_run: UUID) -> dict[str, str]:
    """As Prefect's server has them: it learns of finished tasks a little later."""
    runs_of = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=runs_of)
            names = {run.name.rsplit("-", 1)[0]: run.state_name or "" for run in runs}
            done = len(runs) == len(STAGES) and all(
                run.state and run.state.is_final() for run in runs
            )
            if done or time.monotonic() > deadline:
                return names
            time.sleep(0.5)


def test_a_first_run_builds_every_stage_and_says_what_came_out(trained: Trained) -> None:
    assert statuses(list(trained.results)) == dict.fromkeys(STAGES, "built")
    evaluation = trained.of("validate")
    recorded = json.loads(
        (trained.store / "evaluation" / evaluation.key / "evaluation.json").read_text("utf-8")
    )
    correct = recorded["correct_top1"]
    assert recorded["seen"] == 18

    lines = summary(list(trained.results))

    assert f"accuracy@1  {correct / 18:.2%} ({correct}/18)" in lines
    assert "accuracy@5  100.00% (18/18)" in lines
    assert f"checkpoint  checkpoint/{trained.of('train').key}" in lines
    assert any(line.startswith("promoted    refs/production: accuracy@1 ") for line in lines)
    page = str(trained.of("report").facts["html"])
    assert f"report      {page}" in lines
    assert Path(page).is_file()
    assert "built       stage, convert, train, validate, promote, report" in lines
    assert "reused      nothing" in lines
    promoted = json.loads((trained.store / "refs" / "production.json").read_text("utf-8"))
    assert promoted["digest"] == trained.of("train").digest


def test_accuracy_and_report_are_shown_in_the_ui(trained: Trained, copied_store: Path) -> None:
    flow_run, _ = run_flow_once(trained.recipe, trained.images, copied_store)

    shown = shown_by(flow_run)
    assert shown.keys() == {"accuracy", "accuracy-intervals", "report", "results"}
    (row,) = json.loads(str(shown["accuracy"].data))
    counts = trained.of("validate").facts
    assert {key: row[key] for key in counts} == counts
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
    assert json.loads(str(shown["results"].data))[0]["model name"] == "skresnet18"
    assert shown["accuracy-intervals"].type == "image"
    assert shown["accuracy-intervals"].data == figure


def test_a_second_run_reuses_all_stages_and_starts_no_process(
    trained: Trained, copied_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a process was started")

    monkeypatch.setattr(tasks.programs, "run", refuse)
    before = digests(copied_store), manifest_times(copied_store)

    flow_run, results = run_flow_once(trained.recipe, trained.images, copied_store)

    assert statuses(results) == dict.fromkeys(STAGES, "reused")
    assert (digests(copied_store), manifest_times(copied_store)) == before
    assert task_state_names(flow_run) == dict.fromkeys(STAGES, "Reused")
    assert "built       nothing: everything was found and verified" in summary(results)
    assert f"reused      {', '.join(STAGES)}" in summary(results)


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
    # The report alone is new: it tells how long each stage took.
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
