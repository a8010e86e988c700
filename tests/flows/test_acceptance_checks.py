"""What the acceptance says where it fails: of devices, of a machine without CANN, of the doctor."""

import ast
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from flows.acceptance.bench import Bench
from flows.acceptance.checks import CHECKS
from flows.acceptance.figures import Line, Setting, failures
from flows.acceptance.lines import lines_of
from flows.acceptance.machine import PACKAGES, Machine, look_at
from flows.acceptance.trainings import (
    LineError,
    StartReport,
    StepFigures,
    Training,
    TrainingReport,
    Trainings,
)
from infra.base.outcomes import Outcome
from infra.doctor.ascend_tools import Ascend, gather
from infra.launch import JobResult
from sknet.device import find_cards
from tests.processes import ROOT

MINIATURE = Setting(device_target="CPU", cards=1, hosts=1, miniature=True)
ON_CARDS = Setting(device_target="Ascend", cards=8, hosts=1, miniature=False)
# The rows of a table of npu-smi, in the form of tests/infra/doctor/ascend_outputs.py.
CARD = "| {0}  910B4  | {1}  | 86.0  40  0 / 0  |\n"
CHIP = "| 0  | 0000:0{0}:00.0  | 0  0 / 0  2828 / 32768  |\n"


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    """Makes what the checks work with."""

    def make(setting: Setting = MINIATURE, ascend: Ascend | None = None) -> Bench:
        lines = tmp_path / "lines"
        return Bench(
            setting=setting,
            data="digits",
            directory=lines,
            ascend=ascend,
            inputs={},
            trainings=Trainings(lines, lambda _: None),
        )

    return make


@pytest.fixture
def npu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an npu-smi on PATH that lists devices with these states."""

    def install(*states: str) -> None:
        rows = "".join(
            CARD.format(card, state) + CHIP.format(card) for card, state in enumerate(states)
        )
        tool = tmp_path / "bin" / "npu-smi"
        tool.parent.mkdir()
        tool.write_text(f"#!{sys.executable}\nprint({rows!r})\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")

    return install


def line(setting: Setting, name: str) -> Line:
    return next(line for line in lines_of(setting) if line.name == name)


def test_a_faulty_device_and_too_few_devices_fail(
    make_bench: Callable[..., Bench], npu_smi: Callable[..., None], tmp_path: Path
) -> None:
    npu_smi(*["OK"] * 7, "Alarm")
    measured = CHECKS["devices"](make_bench(ascend=gather([], root=tmp_path)))
    assert measured.figures["runs of MindSpore's check that failed"] == 0
    assert "successfully" in measured.log.read_text()
    assert failures(line(ON_CARDS, "devices"), measured.figures) == [
        "healthy devices: 7, expected at least 8"
    ]


def test_devices_that_can_not_be_counted_fail_with_the_reasons(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    bench = make_bench(replace(ON_CARDS, cards=1), gather([], root=tmp_path))
    measured = CHECKS["devices"](bench)
    assert failures(line(ON_CARDS, "devices"), measured.figures) == [
        "runs of MindSpore's check that failed: 1, expected exactly 0",
        "healthy devices: not known, expected at least 8",
    ]
    mindspore, npu_smi = measured.notes.split("; npu-smi: ")
    assert mindspore.startswith("MindSpore: ")
    assert npu_smi == "not found"


@pytest.mark.slow
@pytest.mark.skipif(find_cards().usable, reason="this machine has cards")
def test_a_training_without_cann_fails_with_mindspores_own_cause(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(Setting(device_target="Ascend", cards=1, hosts=1, miniature=True))
    with pytest.raises(LineError) as caught:
        CHECKS["nan"](bench)
    reason = str(caught.value)
    assert reason.startswith(
        "start 1 of training nan/diverging ended as user_error, expected non_finite: "
        "device_target Ascend is not available on this machine: "
    )
    assert "\n" not in reason
    assert caught.value.log is not None
    assert "device_target Ascend" in caught.value.log.read_text()


def test_the_doctor_s_failures_are_named_with_its_advice(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    measured = CHECKS["doctor"](make_bench())
    failed = measured.figures["checks that failed"]
    assert failed is not None
    assert failed >= 1
    assert "Prefect" in measured.notes
    assert failures(line(MINIATURE, "doctor"), measured.figures) == [
        f"checks that failed: {failed:.0f}, expected exactly 0"
    ]


def test_versions_of_everything_are_known_on_a_machine_with_cards(
    npu_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    npu_smi("OK", "OK")
    for name, version in (("driver", "26.0.RC1"), ("firmware", "7.8.0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "version.info").write_text(f"Version={version}\n")
    monkeypatch.setattr("flows.acceptance.machine.gather", lambda _: gather([], root=tmp_path))
    machine: Machine = look_at("Ascend")
    assert {name: machine.versions[name] for name in ("driver", "firmware", "CANN", "devices")} == {
        "driver": "26.0.RC1",
        "firmware": "7.8.0",
        "CANN": "",
        "devices": "2 x 910B4",
    }
    assert machine.versions["mindspore"] == machine.inputs["mindspore"]
    assert machine.inputs["driver"] == "26.0.RC1"
    assert machine.versions.keys() >= {"mindspore", "numpy", "Python", "system", "source of sknet"}


class Recorded(Trainings):
    """Trainings that are not run; it keeps their names."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.inputs: dict[str, str] = {}

    def report(self, training: Training, _: Path, inputs: Mapping[str, str]) -> TrainingReport:
        self.names.add(training.name)
        self.inputs = dict(inputs)
        start = StartReport(
            outcome=Outcome.STOPPED,
            message="loss nan at step 3 (epoch 1)",
            end_seconds=1,
            processes_left=0,
            first_step=1,
            world_size=16,
            compile_seconds=1,
            steps=tuple(StepFigures(step=step, loss=1) for step in range(1, 11)),
            stopped_after=(4,),
            last_checkpoint=4,
        )
        starts = (start,) * len(training.starts)
        return TrainingReport(
            training=training, inputs=dict(inputs), starts=starts, checkpoints={4: "0" * 64}
        )


def test_the_trainings_of_a_line_are_those_that_its_check_reads(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By these, --only knows what to run again."""
    done = JobResult(status=Outcome.DONE, message="", return_code=0, seconds=1, log_tail=())
    monkeypatch.setattr("flows.acceptance.checks.run_program", lambda *_: done)
    setting = replace(ON_CARDS, hosts=2)
    for each in lines_of(setting):
        if "data" in each.needs or "training" in each.needs:
            bench = make_bench(setting)
            bench.trainings = Recorded()
            CHECKS[each.name](bench)
            assert bench.trainings.names == set(each.trainings), each.name


def test_trainings_depend_on_the_content_of_the_data(make_bench: Callable[..., Bench]) -> None:
    bench, seen = make_bench(), []
    bench.trainings = recorded = Recorded()
    bench.shards.mkdir()
    for content in ("one", "two"):
        (bench.shards / "shards.json").write_text(content)
        bench.undisturbed()
        seen.append(recorded.inputs)
    assert seen[0].keys() == seen[1].keys()
    assert [name for name in seen[0] if seen[0][name] != seen[1][name]] == ["shards"]


def test_variables_that_change_what_is_computed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC", "MS_DEV_SIDE_EFFECT", "OTHER"):
        monkeypatch.setenv(name, "true")
    inputs = look_at("CPU").inputs
    assert inputs["ASCEND_LAUNCH_BLOCKING"] == inputs["HCCL_DETERMINISTIC"] == "true"
    assert inputs["MS_DEV_SIDE_EFFECT"] == "true"
    assert "OTHER" not in inputs


def test_the_source_of_every_package_that_takes_part_counts() -> None:
    imported = {
        node.module.partition(".")[0]
        for path in (ROOT / "flows/acceptance").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    own = {name for name in imported if (ROOT / name / "__init__.py").is_file()}
    assert own == {package.__name__ for package in PACKAGES}
