"""What a report says: numbers as text, sentences, and tables as a reader sees them."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import yaml

from sknet.recipe import BESIDES_TRAINING
from sknet.records import Evaluation
from sknet.report.contents import ReportContents, TrainedRun
from sknet.report.tables import (
    compared_params,
    evaluations_table,
    revalidations_table,
    verdict,
)

UNKNOWN = "–"  # noqa: RUF001 (the dash of an empty cell)

NOTES = ("Batch size is per card; ms/step is the median. Parameters are the trainable ones.",)
PUBLISHED_NOTES = (
    "Published for ImageNet-1K on the hardware named: compare speeds only on the same hardware.",
    "MindCV counts the statistics of BatchNorm as parameters too.",
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
    "without leaked": "{:.2f} %".format,
    "balanced accuracy": "{:.2f} %".format,
    "macro-F1": "{:.2f} %".format,
    "mean average precision": "{:.2f} %".format,
    "train loss": "{:.4f}".format,
    "validation loss": "{:.4f}".format,
    "loss": "{:.4f}".format,
    "calibration error": "{:.4f}".format,
    "temperature": "{:.3f}".format,
    "held-out error": "{:.4f}".format,
    "with temperature": "{:.4f}".format,
    "lr at the end": "{:.4g}".format,
    "seconds": "{:.1f}".format,
    "device-hours": "{:.4f}".format,
    "cost": "{:.4f}".format,
}


def headline(contents: ReportContents) -> str:
    """Return the best accuracy@1 with its counts and its interval, in one sentence."""
    best = contents.best
    if best is None or best.evaluation is None:
        if contents.runs:
            return f"None of {len(contents.runs)} runs has been evaluated yet."
        return "There are no runs yet: train one, and this page shows it."
    counts = best.evaluation
    num = len(contents.comparable)
    which = f"best of {num} runs, " if num > 1 else ""
    return (
        f"Accuracy@1 {accuracy_text(counts.correct_top1, counts.seen)}, 95 % interval "
        f"{interval_text(counts)} ({which}{best.title}, on {counts.split})"
    )


def beneath_figure(contents: ReportContents) -> str:
    """Return what stands under the page's large figure: its counts, its interval, its rank."""
    best = contents.best
    if best is None or best.evaluation is None:
        return headline(contents)
    counts, num = best.evaluation, len(contents.comparable)
    of_data = f" of {best.data.source}" if best.data else ""
    sentence = (
        f"{counts.correct_top1:,} of {counts.seen:,} samples of {counts.split}{of_data}; "
        f"95 % interval {interval_text(counts)}"
    )
    if num > 1:
        sentence += f"; the best of {num} runs on these samples"
    return f"{sentence}."


def tiles(contents: ReportContents) -> dict[str, tuple[str, str]]:
    """Return the few numbers at the top of the page: name → value and what it means."""
    result: dict[str, tuple[str, str]] = {}
    run = contents.best
    if run is not None and run.evaluation is not None:
        counts, end = run.evaluation, run.history.end
        if without := counts.without_leaked:
            result["without leaked images"] = (
                f"{100 * without[0] / without[1]:.2f} %",
                f"accuracy@1, {without[0]} of {without[1]}",
            )
        if counts.is_top5_telling:
            result["accuracy@5"] = (
                f"{100 * counts.accuracy_top5:.2f} %",
                f"{counts.correct_top5} of {counts.seen}",
            )
        if balanced := counts.balanced_accuracy:
            result["balanced accuracy"] = (
                f"{100 * balanced.value:.2f} %",
                f"{100 * balanced.low:.2f} … {100 * balanced.high:.2f} %",
            )
        _, comparison = compared_params(run)
        meanings = {None: "no published network", "equal": "as published"}
        result["parameters"] = (
            f"{run.params / 1e6:.2f} M",
            meanings.get(comparison, comparison or ""),
        )
        result["median step"] = (
            number_text(end.ms_per_step_p50, "{:.1f} ms"),
            f"{run.world_size} x {run.device_target}",
        )
        waiting = None if end.data_wait_share is None else 100 * end.data_wait_share
        result["speed"] = (
            number_text(end.images_per_second, "{:,.0f} img/s"),
            f"{number_text(waiting, '{:.1f}')} % of the time waiting for data",
        )
        result["training"] = (duration_text(run.train_seconds), cost_text(run, contents.price))
    result["runs"] = (
        f"{len(contents.runs):,}",
        f"unreadable artifacts: {len(contents.unreadable)}",
    )
    production = next((each for each in contents.runs if each.is_production), None)
    result["production"] = (
        (production.short_key, "suspect" if production.suspect else production.recipe.name)
        if production
        else ("none", "nothing is promoted")
    )
    if contents.revalidations:
        last = contents.revalidations[-1]
        result["last revalidation"] = (
            last.outcome,
            f"{last.began:%Y-%m-%d}, {len(contents.revalidations)} in all",
        )
    return result


def facts(run: TrainedRun) -> dict[str, str]:
    """Return what is needed to train the same weights again, and the speed of the training."""
    end = run.history.end
    percentiles = (end.ms_per_step_p50, end.ms_per_step_p90, end.ms_per_step_p99)
    published, comparison = compared_params(run)
    beside = f", published {published:,}: {comparison}" if published is not None else ""
    result = {
        "run": run.key,
        "verdict": verdict(run) or UNKNOWN,
        "ended": run.created or UNKNOWN,
        "recipe digest": run.recipe.digest,
        "checkpoint digest": run.checkpoint_digest,
        "device target": run.device_target,
        **(run.software or {"mindspore": run.mindspore}),
        "seed": str(run.recipe.seed),
        "world size": str(run.world_size),
        "global batch size": str(run.global_batch_size),
        "steps": f"{run.steps:,}",
        "trainable parameters": f"{run.params:,}{beside}",
        "ms/step p50 / p90 / p99": " / ".join(number_text(each, "{:.2f}") for each in percentiles),
        "images/s": number_text(end.images_per_second, "{:.1f}"),
        "fraction of time waiting for data": number_text(end.data_wait_share, "{:.4f}"),
        "compilation": number_text(end.compile_seconds, "{:.1f} s"),
        "restarts": number_text(end.restarts, "{}"),
    }
    if run.data is not None:
        splits = ", ".join(f"{name} {count:,}" for name, count in sorted(run.data.splits.items()))
        result["data"] = f"{run.data.source}: {splits}"
        result["samples digest"] = run.data.digest
        result["shards digest"] = run.data.shards
    return result


def recipe_yaml(run: TrainedRun) -> str:
    """Return every choice of the training in the form of a recipe file."""
    values = run.recipe.file_values().items()
    choices = {key: value for key, value in values if key not in BESIDES_TRAINING}
    return str(yaml.safe_dump(choices, sort_keys=False))


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its cells as text. Counts move into the cells of their percentages."""
    result = pd.DataFrame(index=table.index)
    for name in table.columns:
        form = _FORMATS.get(name, str)
        result[name] = [UNKNOWN if pd.isna(cell) else form(cell) for cell in table[name]]
    if "seen" not in table.columns or "correct@1" not in table.columns:
        return result
    for name, counted in (("accuracy@1", "correct@1"), ("accuracy@5", "correct@5")):
        result[name] = [
            UNKNOWN if pd.isna(correct) or pd.isna(seen) else accuracy_text(correct, seen)
            for correct, seen in zip(table[counted], table["seen"], strict=True)
        ]
    return result.drop(columns=["correct@1", "correct@5", "seen"])


def evaluations_as_text(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Return one row for each evaluation of each run, with the columns that any of them fills."""
    table = evaluations_table(runs)
    means = ("balanced accuracy", "macro-F1", "mean average precision")
    ends = [f"{name} 95 % {end}" for name in means for end in ("from", "to")]
    table = table.drop(columns=[*ends, "leaked correct@1"])
    calibrated = ("temperature", "held-out error", "with temperature")
    optional = ["without leaked", "accuracy@5", *means, "leaked", *calibrated, "looks"]
    return as_text(table).drop(columns=[name for name in optional if table[name].isna().all()])


def revalidations_as_text(contents: ReportContents) -> pd.DataFrame:
    """Return one row for each revalidation, the newest first."""
    table = as_text(revalidations_table(contents))
    return table.iloc[::-1].rename(columns={"said": "summary"})


def tasks_as_text(run: TrainedRun) -> pd.DataFrame:
    """Return one row for each task of the run, and one with the sums of seconds and bytes."""
    rows = [
        (
            each.task,
            number_text(each.seconds, "{:.1f}"),
            bytes_text(each.num_bytes),
            "reused" if each.reused else "built",
            each.artifact,
            each.digest,
        )
        for each in run.tasks
    ]
    if rows:
        seconds = sum(each.seconds or 0.0 for each in run.tasks)
        num_bytes = sum(each.num_bytes or 0 for each in run.tasks)
        rows.append(("total", f"{seconds:.1f}", bytes_text(num_bytes), "", "", ""))
    names = ["task", "seconds", "bytes", "by this run", "artifact", "digest"]
    return pd.DataFrame(rows, columns=names, dtype="string")


def criteria_as_text(run: TrainedRun) -> pd.DataFrame:
    """Return one row for each check of the checkpoint, and all that its promotion found."""
    rows = [("check", check) for check in run.checks]
    promotion = run.promotion
    rows += [("promotion", check) for check in (promotion.criteria if promotion else ())]
    texts = [
        (part, each.name, "passed" if each.passed else "FAILED", each.detail) for part, each in rows
    ]
    if promotion is not None:
        texts += [("promotion", "worth", "warning", text) for text in promotion.warnings]
        if promotion.sealed:
            texts.append(
                ("promotion", "sealed test split", "for information", promotion.sealed.text)
            )
    return pd.DataFrame(
        texts,
        columns=["part", "criterion", "outcome", "detail"],
        dtype="string",
    )


def accuracy_text(correct: int, seen: int) -> str:
    """Return an accuracy in percent with its counts."""
    return f"{100 * correct / seen:.2f} % ({correct}/{seen})"


def interval_text(counts: Evaluation) -> str:
    """Return the 95 % interval of accuracy@1 in percent."""
    low, high = counts.interval_top1
    return f"{100 * low:.2f} … {100 * high:.2f} %"


def number_text(number: float | None, form: str) -> str:
    """Return a number formatted by `form`, or a dash if it wasn't measured."""
    return UNKNOWN if number is None else form.format(number)


def bytes_text(num_bytes: int | None) -> str:
    """Return a size in a binary unit, with three digits."""
    if num_bytes is None:
        return UNKNOWN
    value, units = float(num_bytes), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1000 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.3g} {unit}"


def duration_text(seconds: float | None) -> str:
    """Return a duration in seconds, in minutes and seconds, or in hours, by its length."""
    if seconds is None:
        return UNKNOWN
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes / 60:.1f} h"


def cost_text(run: TrainedRun, price: float | None) -> str:
    """Return the device-hours of a run's training, and their cost if a price is known."""
    hours = run.device_hours
    if hours is None:
        return UNKNOWN
    money = "" if price is None else f", {hours * price:.2f} at {price:g} an hour"
    return f"{hours:.3f} device-hours{money}"
