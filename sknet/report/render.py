"""Writing the report: one HTML page that loads nothing, Markdown, and two CSV tables."""

import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from sknet.report.figures import describe_curve, learning_curve
from sknet.report.frames import epochs_table, evaluations_table, published_table
from sknet.report.runs import TrainedRun

UNKNOWN = "–"  # noqa: RUF001 (the dash of a table's empty cell)

NOTES = (
    "Batch size is per card, ms/step the median.",
    "Own runs count trainable parameters; MindCV counts the statistics of BatchNorm too.",
    "Published rows are of ImageNet-1K and of the hardware named: what they say of speed and "
    "accuracy compares only with runs on the same data and hardware.",
)

_FORMATS: dict[str, Callable[[Any], str]] = {
    "params(M)": "{:.2f}".format,
    "graph compile": "{:.1f} s".format,
    "ms/step": "{:.2f}".format,
    "img/s": "{:.2f}".format,
    "acc@top1": "{:.2f} %".format,
    "acc@top5": "{:.2f} %".format,
    "95 % from": "{:.2f} %".format,
    "95 % to": "{:.2f} %".format,
    "train loss": "{:.4f}".format,
    "validation loss": "{:.4f}".format,
    "loss": "{:.4f}".format,
    "lr at the end": "{:.4g}".format,
    "seconds": "{:.1f}".format,
}


def write_report(runs: Sequence[TrainedRun], out_dir: Path) -> list[str]:
    """Writes the report into `out_dir` and returns the names of the files; equal runs give equal
    bytes.
    """
    published, epochs = published_table(runs), epochs_table(runs)
    files = {
        "report.html": render_html(runs),
        "report.md": render_markdown(runs),
        "table.csv": published.to_csv(index=False, lineterminator="\n"),
        "epochs.csv": epochs.to_csv(index=False, lineterminator="\n"),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out_dir / name).write_text(text, encoding="utf-8", newline="\n")
    return list(files)


def render_html(runs: Sequence[TrainedRun]) -> str:
    """The page; it needs no network, and whatever a name contains stays text."""
    folder = resources.files("sknet.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("report.html.j2").read_text("utf-8"))
    text = template.render(
        css=Markup(folder.joinpath("report.css").read_text("utf-8")),  # noqa: S704 (our own file)
        headline=headline(runs),
        notes=NOTES,
        published=_shown_published(runs),
        evaluations=_shown(evaluations_table(runs)),
        runs=[
            {
                "record": run,
                "name": run_title(run),
                "curve": Markup(learning_curve(run)),  # noqa: S704 (matplotlib's, words escaped)
                "description": describe_curve(run),
                "epochs": _shown(epochs_table([run])),
                "stages": _stages(run),
                "facts": facts(run),
                "recipe": _recipe_yaml(run),
            }
            for run in runs
        ],
    )
    return text.rstrip() + "\n"


def render_markdown(runs: Sequence[TrainedRun]) -> str:
    """The same tables without curves, for a terminal, a README or an orchestrator's artifact."""
    parts = ["# SKNet training report", _escape(headline(runs))]
    parts += ["## Results", _markdown(_shown_published(runs))]
    parts.append("\n".join(f"- {note}" for note in NOTES))
    if runs:
        parts += ["## Evaluations", _markdown(_shown(evaluations_table(runs)))]
    for run in runs:
        rows = pd.DataFrame(list(facts(run).items()), columns=["fact", "value"])
        text = _recipe_yaml(run)
        # A fence longer than any row of backticks in the text, so that no name can close it.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        parts += [
            f"## {_escape(run_title(run))}",
            _escape(describe_curve(run)),
            _markdown(_shown(epochs_table([run]))),
            _markdown(_stages(run)),
            _markdown(rows),
            f"{fence}yaml\n{text}{fence}",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(runs: Sequence[TrainedRun]) -> str:
    """The best accuracy@1 with its counts and its interval, in one sentence."""
    if not runs:
        return "There are no runs yet: this report shows published numbers only."
    best = max(runs, key=lambda run: run.evaluation.correct_top1 / run.evaluation.seen)
    counts = best.evaluation
    low, high = counts.interval_top1
    which = f"best of {len(runs)} runs, " if len(runs) > 1 else ""
    accuracy = _accuracy(counts.correct_top1, counts.seen)
    return (
        f"Accuracy@1 {accuracy}, 95 % interval {100 * low:.2f} … {100 * high:.2f} % "
        f"({which}{run_title(best)}, on {counts.split})"
    )


def run_title(run: TrainedRun) -> str:
    """The run as a heading names it."""
    return f"{run.recipe.name}, run {run.short}"


def facts(run: TrainedRun) -> dict[str, str]:
    """What is needed to train the same weights again, and how the log says it went."""
    end = run.history.end
    percentiles = (end.ms_per_step_p50, end.ms_per_step_p90, end.ms_per_step_p99)
    return {
        "run": run.run,
        "recipe digest": run.recipe.digest,
        "checkpoint digest": run.checkpoint_digest,
        "mindspore": run.mindspore,
        "device target": run.device_target,
        "seed": str(run.recipe.seed),
        "world size": str(run.world_size),
        "global batch size": str(run.global_batch_size),
        "steps": f"{run.steps:,}",
        "trainable parameters": f"{run.params:,}",
        "ms/step p50 / p90 / p99": " / ".join(_optional(each, "{:.2f}") for each in percentiles),
        "share of time waiting for data": _optional(end.data_wait_share, "{:.4f}"),
        "restarts": _optional(end.restarts, "{}"),
    }


def _accuracy(correct: int, seen: int) -> str:
    return f"{100 * correct / seen:.2f} % ({correct}/{seen})"


def _optional(number: float | None, form: str) -> str:
    return UNKNOWN if number is None else form.format(number)


def _stages(run: TrainedRun) -> pd.DataFrame:
    rows = [(each.stage, f"{each.seconds:.1f}") for each in run.stages]
    if rows:
        rows.append(("total", f"{sum(each.seconds for each in run.stages):.1f}"))
    return pd.DataFrame(rows, columns=["stage", "seconds"], dtype="string")


def _recipe_yaml(run: TrainedRun) -> str:
    return str(yaml.safe_dump(run.recipe.model_dump(mode="json"), sort_keys=False))


def _shown_published(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    shown = _shown(published_table(runs))
    counts = [run.evaluation for run in runs]
    own = {
        "acc@top1": [_accuracy(each.correct_top1, each.seen) for each in counts],
        "acc@top5": [_accuracy(each.correct_top5, each.seen) for each in counts],
    }
    for name, cells in own.items():
        shown[name] = [*cells, *shown[name].iloc[len(cells) :]]
    return shown


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells as people read them: fixed decimals, counts beside percentages, a dash for NA."""
    shown = pd.DataFrame(index=frame.index)
    for name in frame.columns:
        form = _FORMATS.get(name, str)
        shown[name] = [UNKNOWN if pd.isna(cell) else form(cell) for cell in frame[name]]
    if "seen" not in frame.columns:
        return shown
    for name, counted in (("accuracy@1", "correct@1"), ("accuracy@5", "correct@5")):
        shown[name] = [
            UNKNOWN if pd.isna(correct) or pd.isna(seen) else _accuracy(correct, seen)
            for correct, seen in zip(frame[counted], frame["seen"], strict=True)
        ]
    return shown.drop(columns=["correct@1", "correct@5", "seen"])


def _markdown(frame: pd.DataFrame) -> str:
    if frame.empty:
        return ""
    cells = frame.map(_escape)
    return str(cells.to_markdown(index=False, disable_numparse=True))


def _escape(text: str) -> str:
    """Markdown in which names stay names: no markup, no new cell, no new line."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", line)
