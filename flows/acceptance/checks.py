"""Measures the figures of each line, with the product's own commands and the launcher.

A check measures and doesn't judge: `lines` has what a figure is compared with.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.acceptance.bench import UNDISTURBED_LEVEL, Bench, Measured
from flows.acceptance.trainings import (
    LineError,
    Start,
    StepFigures,
    TrainingReport,
    logs_of,
    refuse_failed,
    run_program,
)
from infra.base.outcomes import ExitCode, Outcome
from infra.doctor.ascend import HEALTHY
from infra.launch.environment import rank_environment
from sknet.data.verification import damaged
from sknet.records import Shards
from sknet.records.data import SHARDS_FILE

LEVELS = ("O0", "O1", "O2")

NUM_PLANNED = 2
"""Planned checkpoints of a training whose bytes are compared."""

COMPARED_LOSSES = 10
"""Steps over which the losses of Ascend and CPU, or of two precisions, are compared."""

FIRST_RATE = 1e-5
"""Learning rate of these steps."""

DIVERGING_RATE = 1e20
"""A learning rate with which any training diverges within two steps."""

DEVICE_SECONDS = 600.0
"""Longest time of MindSpore's own check, which compiles one operator."""

_NAMED_STEP = re.compile(r"\bstep (\d+) \(epoch ")


def doctor(bench: Bench) -> Measured:
    """Run the doctor."""
    own = bench.directory / "doctor"
    options = ["--workers", str(bench.setting.cards), "--json", str(own / "doctor.json")]
    if bench.setting.device_target == "Ascend":
        options.append("--ascend")
    log = own / "doctor.txt"
    code = _run(log, "-m", "infra.doctor", *options)
    if code not in (ExitCode.DONE, ExitCode.FAILED):
        raise LineError(f"infra.doctor ended with exit code {code}", log)
    findings = json.loads((own / "doctor.json").read_bytes())["findings"]
    failed = [finding for finding in findings if finding["status"] == "fail"]
    warned = [finding for finding in findings if finding["status"] == "warn"]
    return Measured(
        {"checks that failed": len(failed), "warnings": len(warned)},
        log,
        "; ".join(f"{each['check']}: {each['found']}: {each['advice']}" for each in failed),
    )


def devices(bench: Bench) -> Measured:
    """Let MindSpore compute on the device, and count the healthy devices."""
    log = bench.directory / "devices" / "run_check.txt"
    target = bench.setting.device_target
    program = f"import mindspore; mindspore.set_device({target!r}); mindspore.run_check()"
    code = _run(log, "-c", program, seconds=DEVICE_SECONDS)
    text = log.read_text("utf-8", "replace").strip()
    # run_check catches every error, prints it, and ends well.
    works = code == 0 and "successfully" in text
    notes = (
        [] if works else [f"MindSpore: {text.splitlines()[-1] if text else f'exit code {code}'}"]
    )
    healthy: float | None = None
    if bench.ascend is not None and bench.ascend.devices is None:
        notes.append(f"npu-smi: {bench.ascend.trouble}")
    elif bench.ascend is not None and bench.ascend.devices is not None:
        healthy = float(sum(each.health == HEALTHY for each in bench.ascend.devices))
    figures = {
        "runs of MindSpore's check that failed": float(not works),
        "healthy devices": healthy,
    }
    return Measured(figures, log, "; ".join(notes))


def data(bench: Bench) -> Measured:
    """Convert the data if it isn't shards, then verify every file."""
    own = bench.directory / "data"
    if not (bench.shards / SHARDS_FILE).is_file() or bench.shards != Path(bench.data).absolute():
        options = {"source": bench.data, "out": bench.shards, "shards": bench.scale.num_shards}
        refuse_failed(run_program("convert", options, own), own)
    shards = Shards.read(bench.shards / SHARDS_FILE)
    files = [
        (bench.shards / name, sha256) for shard in shards.files for name, _, sha256 in shard.files
    ]
    missing = [path for path, _ in files if not path.is_file()]
    wrong = [*missing, *damaged(each for each in files if each[0] not in missing)]
    figures = {
        "missing or damaged files": float(len(wrong)),
        "training images": float(shards.num_samples("train")),
        "validation images": float(shards.num_samples("val")),
    }
    return Measured(figures, bench.shards, ", ".join(path.name for path in wrong))


def losses(bench: Bench) -> Measured:
    """Compare the first losses of one card with those of the CPU."""
    card, cpu = _first_losses(bench, "losses/card"), _first_losses(bench, "losses/cpu", "CPU")
    return Measured(_differences(card, cpu), bench.log("losses/card"))


def training(bench: Bench) -> Measured:
    """Train the recipe, stop it, and start it again."""
    report = bench.undisturbed()
    first, second = report.starts
    window = _window(report)
    lost = _distance(second.first_step, first.stopped_after)
    figures = {
        "steps lost or repeated by the second start": lost,
        "median step": window.ms_per_step_p50,
        "mean step": window.ms_per_step,
        "speed": window.images_per_second,
        "compilation": first.compile_seconds,
        "second compilation": second.compile_seconds,
        "fraction of the time without data": window.data_wait_share,
    }
    return Measured(figures, bench.log(report.training.name))


def step_time(bench: Bench) -> Measured:
    """Return the times of the steps."""
    report = bench.undisturbed()
    window = _window(report)
    figures = {"median step": window.ms_per_step_p50, "speed": window.images_per_second}
    return Measured(figures, bench.log(report.training.name))


def compile_time(bench: Bench) -> Measured:
    """Return the time of the first compilation."""
    report = bench.undisturbed()
    figures = {"compilation": report.starts[0].compile_seconds}
    return Measured(figures, bench.log(report.training.name))


def compile_cache(bench: Bench) -> Measured:
    """Compare both compilations."""
    report = bench.undisturbed()
    first, second = (start.compile_seconds for start in report.starts)
    ratio = second / first if first and second is not None else None
    return Measured({"second compilation": ratio}, bench.log(report.training.name, 2))


def data_wait(bench: Bench) -> Measured:
    """Return how long the steps waited for data."""
    report = bench.undisturbed()
    figures = {"fraction of the time without data": _window(report).data_wait_share}
    notes = "convert with --shorter-side 292, or raise num_parallel_workers, if it fails"
    return Measured(figures, bench.log(report.training.name), notes)


def bits(bench: Bench) -> Measured:
    """Train again, and compare the bytes of the checkpoints."""
    again = bench.train("bits/again", bench.stop(4))
    differing, compared = _compare(bench, again)
    figures = {"checkpoints that differ": differing, "compared checkpoints": compared}
    return Measured(figures, bench.log("bits/again"))


def jit_levels(bench: Bench) -> Measured:
    """Train at each level; the undisturbed training is at O2."""
    figures: dict[str, float | None] = {}
    differences = []
    for level in LEVELS:
        name, overrides = f"jit-levels/{level}", (f"jit_level={level}",)
        report = (
            bench.undisturbed()
            if level == UNDISTURBED_LEVEL
            else bench.train(name, bench.stop(2), overrides=overrides, compiles=True)
        )
        figures[f"median step at {level}"] = _window(report).ms_per_step_p50
        figures[f"compilation at {level}"] = report.starts[0].compile_seconds
        if level != UNDISTURBED_LEVEL:
            differences.append(_loss_difference(report, bench.undisturbed()))
    figures["largest difference of a loss"] = max(differences)
    return Measured(figures, bench.log("jit-levels/O0"), _fastest(figures, "median step at "))


def precision(bench: Bench) -> Measured:
    """Compare the first losses of one card at O2 with those at O0."""
    name = "precision/O2"
    half, full = _first_losses(bench, name, amp_level="O2"), _first_losses(bench, "losses/card")
    return Measured(_differences(half, full, relative=True), bench.log(name))


def normalisation(bench: Bench) -> Measured:
    """Compare the first losses of one card that normalises its images with those of its host."""
    card, host = (
        _first_losses(bench, f"normalisation/{place}", normalise_on=place)
        for place in ("device", "host")
    )
    return Measured(_differences(card, host), bench.log("normalisation/device"))


def bind_core(bench: Bench) -> Measured:
    """Train without bound cores; the undisturbed training has them."""
    bound = bench.undisturbed()
    free = bench.train("bind-core/not-bound", bench.stop(2), bind_core=False)
    figures = {
        "largest difference of a loss": _loss_difference(free, bound),
        "median step with bound cores": _window(bound).ms_per_step_p50,
        "median step without": _window(free).ms_per_step_p50,
    }
    return Measured(figures, bench.log("bind-core/not-bound"), _fastest(figures, "median step "))


def kill(bench: Bench) -> Measured:
    """Kill a rank between two checkpoints, and start the same command again."""
    report = bench.train("kill/killed", bench.kill(3), bench.stop(4))
    killed, resumed = report.starts
    checkpoints = (killed.last_checkpoint,) if killed.last_checkpoint is not None else ()
    figures = {
        "time from SIGKILL to the end of the job": killed.end_seconds,
        "processes left": killed.processes_left,
        "steps between the last checkpoint and the resumed start": _distance(
            resumed.first_step, checkpoints
        ),
        **_compared(bench, report),
    }
    return Measured(figures, bench.log("kill/killed"), _incomparable(bench))


def stop(bench: Bench) -> Measured:
    """Stop all ranks between two checkpoints, and start the same command again."""
    report = bench.train("stop/stopped", bench.stop(3), bench.stop(4))
    stopped, resumed = report.starts
    figures = {
        "ranks that stopped": float(len(stopped.stopped_after)),
        "different last steps": float(len(set(stopped.stopped_after))),
        "steps between the stop and the resumed start": _distance(
            resumed.first_step, stopped.stopped_after
        ),
        **_compared(bench, report),
    }
    return Measured(figures, bench.log("stop/stopped"), _incomparable(bench))


def nan(bench: Bench) -> Measured:
    """Train with a learning rate with which any network diverges."""
    name = "nan/diverging"
    diverging = Start(action="stop", at_step=bench.scale.interval, ends=Outcome.NON_FINITE)
    overrides = (f"lr={DIVERGING_RATE:g}", "warmup_epochs=0", "log_interval=1")
    report = bench.train(name, diverging, overrides=(*overrides, "checkpoint_every_steps=1"))
    (start,) = report.starts
    named = _NAMED_STEP.search(start.message)
    if named is None:
        raise LineError(f"the error names no step: {start.message}", bench.log(name))
    step, last = int(named[1]), max((each.step for each in start.steps), default=0)
    figures = {
        "steps from the last logged loss to the step that is named": float(abs(step - last)),
        "checkpoints of that step or later ones": float(
            sum(saved >= step for saved in report.checkpoints)
        ),
    }
    return Measured(figures, bench.log(name), start.message.partition(";")[0])


def export(bench: Bench) -> Measured:
    """Export the last checkpoint of the undisturbed training."""
    own, report = bench.directory / "export", bench.undisturbed()
    checkpoint = (
        bench.directory / report.training.name / "ckpt" / f"step-{max(report.checkpoints):08}"
    )
    options = {
        "ckpt_path": checkpoint,
        "format": "MINDIR",
        "out": own / "network.mindir",
        "device_target": bench.setting.device_target,
    }
    result = run_program("export", options, own)
    refused = result.status is not Outcome.DONE
    notes = result.message.partition("\n")[0] if refused else ""
    return Measured({"exports that were refused": float(refused)}, logs_of(own), notes)


def hosts(bench: Bench) -> Measured:
    """Train on several hosts, and compare the speed with that of one."""
    name = "hosts/all"
    report = bench.train(name, bench.stop(2), hosts=bench.setting.hosts)
    alone, together = _window(bench.undisturbed()), _window(report)
    world = report.starts[0].world_size
    figures = {
        "speed": _ratio(together.images_per_second, alone.images_per_second),
        "hosts that trained": None if world is None else world / bench.setting.cards,
        "median step": together.ms_per_step_p50,
    }
    return Measured(figures, bench.log(name))


CHECKS: Mapping[str, Callable[[Bench], Measured]] = {
    "doctor": doctor,
    "devices": devices,
    "data": data,
    "losses": losses,
    "training": training,
    "step-time": step_time,
    "compile-time": compile_time,
    "compile-cache": compile_cache,
    "data-wait": data_wait,
    "jit-levels": jit_levels,
    "precision": precision,
    "normalisation": normalisation,
    "bind-core": bind_core,
    "bits": bits,
    "kill": kill,
    "stop": stop,
    "nan": nan,
    "export": export,
    "hosts": hosts,
}
"""The check of each line, by the line's name."""


def _run(log: Path, *words: str, seconds: float | None = None) -> int:
    """Run Python with the environment of a single rank, its output in a log; return the code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            return subprocess.run(
                [sys.executable, *words],
                env=rank_environment(1, {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise LineError(f"not done within {seconds:g} s", log) from None


def _differences(
    losses: list[float], others: list[float], *, relative: bool = False
) -> dict[str, float | None]:
    """Return the figures of two trainings that should have the same losses.

    Args:
        losses: The losses of one, by step.
        others: Those of the other, above 0.
        relative: Whether a difference is a fraction of the other's loss.
    """
    pairs = list(zip(losses, others, strict=False))
    return {
        "largest difference of a loss": max(
            abs(one - other) / (other if relative else 1) for one, other in pairs
        ),
        "compared steps": float(len(pairs)),
    }


def _first_losses(
    bench: Bench,
    name: str,
    device_target: str | None = None,
    amp_level: str = "O0",
    normalise_on: str = "auto",
) -> list[float]:
    """Return the first losses of a training of one rank.

    The learning rate is that of a warm-up's first steps: with a higher one, differences in rounding
    grow with every step.
    """
    report = bench.train(
        name,
        Start(action="stop", at_step=COMPARED_LOSSES, ends=Outcome.STOPPED),
        overrides=(
            *("log_interval=1", f"amp_level={amp_level}", "loss_scale=1024"),
            f"normalise_on={normalise_on}",
            *(f"lr={FIRST_RATE:g}", "warmup_epochs=0", *bench.scale.first_overrides),
        ),
        device_target=device_target,
        cards=1,
        bind_core=False,
    )
    return [each.loss for each in report.starts[0].steps][:COMPARED_LOSSES]


def _window(report: TrainingReport) -> StepFigures:
    """Return the figures of the steps after the first line of metrics.jsonl, up to the second.

    The first line's times are those of the first steps, in which caches warm up.
    """
    return report.starts[0].steps[1]


def _loss_difference(report: TrainingReport, reference: TrainingReport) -> float:
    """Return the largest difference at the first two lines, as a fraction of the reference."""
    pairs = zip(report.starts[0].steps[:2], reference.starts[0].steps[:2], strict=True)
    return max(abs(one.loss - other.loss) / other.loss for one, other in pairs)


def _distance(first_step: int | None, before: tuple[int, ...]) -> float | None:
    """Return the steps between where a start began and where the one before had ended."""
    if first_step is None or not before:
        return None
    return float(abs(first_step - max(before)))


def _compare(bench: Bench, other: TrainingReport) -> tuple[float, float]:
    """Return how many planned checkpoints differ from the undisturbed training's, and of how many.

    Those of a stop are at steps that no other training has to reach.
    """
    reference = bench.undisturbed().checkpoints
    planned = [2 * bench.scale.interval * number for number in range(1, NUM_PLANNED + 1)]
    both = [step for step in planned if step in reference and step in other.checkpoints]
    differing = sum(reference[step] != other.checkpoints[step] for step in both)
    return float(differing), float(len(both))


def _compared(bench: Bench, report: TrainingReport) -> dict[str, float | None]:
    """Return what a comparison of bytes finds; nothing if two undisturbed trainings differ."""
    differing, compared = (None, None) if "bits" in bench.failed else _compare(bench, report)
    return {
        "checkpoints that differ from the undisturbed training": differing,
        "compared checkpoints": compared,
    }


def _incomparable(bench: Bench) -> str:
    failed = "bits" in bench.failed
    return "bytes aren't compared, because the line bits failed" if failed else ""


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _fastest(figures: Mapping[str, float | None], prefix: str) -> str:
    times = {
        name.removeprefix(prefix): value
        for name, value in figures.items()
        if name.startswith(prefix) and value is not None
    }
    return f"fastest: {min(times, key=lambda name: times[name])}" if times else ""
