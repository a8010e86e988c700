"""What the report says in words: its headline, its notes, and the facts of a run."""

import pandas as pd
import yaml

from sknet.report.findings import Findings, TrainedRun
from sknet.report.tables import (
    UNKNOWN,
    accuracy,
    compared_params,
    interval,
    optional,
    published_table,
    shown,
    size,
    verdict,
)

NOTES = (
    "Batch size is per card, ms/step the median.",
    "Own runs count trainable parameters; MindCV counts the statistics of BatchNorm too.",
    "Published rows are of ImageNet-1K and of the hardware named: what they say of speed and "
    "accuracy compares only with runs on the same data and hardware.",
)


def headline(findings: Findings) -> str:
    """The best accuracy@1 with its counts and its interval, in one sentence."""
    best = findings.best
    if best is None or best.evaluation is None:
        if findings.runs:
            return f"None of {len(findings.runs)} runs is evaluated yet."
        return "There are no runs yet: this report shows published numbers only."
    counts = best.evaluation
    which = f"best of {len(findings.runs)} runs, " if len(findings.runs) > 1 else ""
    return (
        f"Accuracy@1 {accuracy(counts.correct_top1, counts.seen)}, 95 % interval "
        f"{interval(counts)} ({which}{best.title}, on {counts.split})"
    )


def tiles(findings: Findings) -> dict[str, tuple[str, str]]:
    """The few numbers that come first: name → value, and what it means."""
    run = findings.best
    result: dict[str, tuple[str, str]] = {}
    if run is not None and run.evaluation is not None:
        end = run.history.end
        counts = run.evaluation
        top5 = f"{counts.correct_top5} of {counts.seen}"
        result["accuracy@5"] = (f"{100 * counts.correct_top5 / counts.seen:.2f} %", top5)
        _, compared = compared_params(run)
        said = {None: "no published network", "equal": "as published"}.get(compared, compared or "")
        result["parameters"] = (f"{run.params / 1e6:.2f} M", said)
        where = f"{run.world_size} x {run.device_target}"
        result["median step"] = (optional(end.ms_per_step_p50, "{:.1f} ms"), where)
        wait = optional(
            None if end.data_wait_share is None else 100 * end.data_wait_share, "{:.1f}"
        )
        result["speed"] = (
            optional(end.images_per_second, "{:,.0f} img/s"),
            f"{wait} % of it waiting for data",
        )
        result["training"] = (duration(run.train_seconds), cost(run, findings.price))
    result["runs"] = (f"{len(findings.runs):,}", f"{len(findings.unreadable)} things unreadable")
    production = next((each for each in findings.runs if each.is_production), None)
    result["production"] = (
        (production.short, "suspect" if production.suspect else production.recipe.name)
        if production
        else ("none", "nothing is promoted")
    )
    if findings.nights:
        last = findings.nights[-1]
        result["last night"] = (
            last.outcome,
            f"{last.began:%Y-%m-%d}, {len(findings.nights)} in all",
        )
    return result


def duration(seconds: float | None) -> str:
    """As people say it."""
    if seconds is None:
        return UNKNOWN
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes / 60:.1f} h"


def cost(run: TrainedRun, price: float | None) -> str:
    """Device-hours, and money if a price is known."""
    hours = run.device_hours
    if hours is None:
        return UNKNOWN
    money = "" if price is None else f", {hours * price:.2f} at {price:g} an hour"
    return f"{hours:.3f} device-hours{money}"


def facts(run: TrainedRun) -> dict[str, str]:
    """What is needed to train the same weights again, and how the log says it went."""
    end = run.history.end
    percentiles = (end.ms_per_step_p50, end.ms_per_step_p90, end.ms_per_step_p99)
    published, compared = compared_params(run)
    against = f", published {published:,}: {compared}" if published is not None else ""
    result = {
        "run": run.run,
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
        "trainable parameters": f"{run.params:,}{against}",
        "ms/step p50 / p90 / p99": " / ".join(optional(each, "{:.2f}") for each in percentiles),
        "images/s": optional(end.images_per_second, "{:.1f}"),
        "share of time waiting for data": optional(end.data_wait_share, "{:.4f}"),
        "compilation": optional(end.compile_seconds, "{:.1f} s"),
        "restarts": optional(end.restarts, "{}"),
    }
    if run.data is not None:
        splits = ", ".join(f"{name} {count:,}" for name, count in sorted(run.data.splits.items()))
        result["data"] = f"{run.data.source}: {splits}"
        result["samples digest"] = run.data.digest
        result["shards digest"] = run.data.shards
    return result


def criteria_frame(run: TrainedRun) -> pd.DataFrame:
    """The checks of the checkpoint, and what decided its promotion, a row each."""
    rows = [("check", check) for check in run.checks]
    rows += [("promotion", check) for check in (run.promotion.criteria if run.promotion else ())]
    return pd.DataFrame(
        [(of, each.name, "passed" if each.passed else "FAILED", each.detail) for of, each in rows],
        columns=["of", "criterion", "outcome", "found"],
        dtype="string",
    )


def stages_shown(run: TrainedRun) -> pd.DataFrame:
    """Seconds, bytes and reuse of each stage, with their sums."""
    rows = [
        (
            each.stage,
            optional(each.seconds, "{:.1f}"),
            size(each.num_bytes),
            "reused" if each.reused else "built",
            each.artifact,
            each.digest,
        )
        for each in run.stages
    ]
    if rows:
        seconds = sum(each.seconds or 0.0 for each in run.stages)
        total = sum(each.num_bytes or 0 for each in run.stages)
        rows.append(("total", f"{seconds:.1f}", size(total), "", "", ""))
    names = ["stage", "seconds", "bytes", "by this run", "artifact", "digest"]
    return pd.DataFrame(rows, columns=names, dtype="string")


def published_shown(findings: Findings) -> pd.DataFrame:
    """The 13 columns as people read them."""
    table = shown(published_table(findings.runs))
    own: dict[str, list[str]] = {"acc@top1": [], "acc@top5": []}
    for run in findings.runs:
        counts = run.evaluation
        for name, cells in own.items():
            correct = counts and (
                counts.correct_top1 if name == "acc@top1" else counts.correct_top5
            )
            cells.append(UNKNOWN if counts is None else accuracy(correct or 0, counts.seen))
    for name, cells in own.items():
        table[name] = [*cells, *table[name].iloc[len(cells) :]]
    return table


def recipe_yaml(run: TrainedRun) -> str:
    """Every choice, as a recipe file has it."""
    return str(yaml.safe_dump(run.recipe.model_dump(mode="json"), sort_keys=False))
