"""The runs of a store as the first table of a report shows them, and published results beside them.

Published results are for ImageNet-1K, so they are shown only if a run was trained on it, and in a
table of their own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sknet.architectures import IMAGENET_CLASSES
from sknet.report.contents import SHORT_KEY_LENGTH, ReportContents, TrainedRun
from sknet.report.published import IMAGENET_VALIDATION
from sknet.report.published_table import published_table
from sknet.report.tables import verdict
from sknet.report.text import UNKNOWN, accuracy_text, as_text, interval_text


def shows_published(contents: ReportContents) -> bool:
    """Return whether published results may stand in the report: a run is for ImageNet-1K."""
    return any(is_imagenet(run) for run in contents.runs)


def is_imagenet(run: TrainedRun) -> bool:
    """Return whether a run's data have as many classes and validation images as ImageNet-1K."""
    if run.data is None or len(run.classes) != IMAGENET_CLASSES:
        return False
    left_out = sum(sample.split == "val" for sample in run.data.quarantined)
    return run.data.splits.get("val", 0) + left_out == IMAGENET_VALIDATION


def results_as_text(contents: ReportContents) -> pd.DataFrame:
    """Return one row for each run, the newest first, as a reader sees it.

    What names a run comes first: its recipe, its key and its data. MindCV's 13 columns follow; the
    one that MindCV calls `recipe`, which names the hardware here, is called so.
    """
    runs = contents.runs
    evaluations = [run.evaluation for run in runs]
    table = as_text(published_table(runs, published=()))
    table["acc@top1"] = [
        accuracy_text(each.correct_top1, each.seen) if each else UNKNOWN for each in evaluations
    ]
    table["acc@top5"] = [
        accuracy_text(each.correct_top5, each.seen) if each and each.is_top5_telling else UNKNOWN
        for each in evaluations
    ]
    table["recipe"] = [
        _hardware(run, text) for run, text in zip(runs, table["recipe"], strict=True)
    ]
    table = table.rename(columns={"recipe": "hardware"})
    first: dict[str, list[str]] = {
        "recipe": [run.recipe.name for run in runs],
        "run": [run.short_key for run in runs],
        "data": data_names(runs),
        "outcome": [outcome(run) for run in runs],
        "accuracy@1, 95 % interval": [
            f"{100 * each.accuracy_top1:.2f} % ({interval_text(each)})" if each else UNKNOWN
            for each in evaluations
        ],
    }
    for position, (name, cells) in enumerate(first.items()):
        table.insert(position, name, cells)
    return table


def published_as_text() -> pd.DataFrame:
    """Return the published results as a reader sees them, in MindCV's columns."""
    table = as_text(published_table(()))
    source = table["recipe"].str.removeprefix("published: ")
    table = table.drop(columns=["recipe", "weight"])
    table.insert(0, "published by", source)
    return table


def outcome(run: TrainedRun) -> str:
    """Return what became of a run, in a word or two: production, promoted, refused, or neither."""
    said = verdict(run)
    if said is None:
        return "not judged" if run.evaluation else "not evaluated"
    return said.split(":", 1)[0]


def rows_of(contents: ReportContents) -> list[Mapping[str, Any]]:
    """Return what the page needs of each row of `results_as_text` beside its cells.

    `choices` holds the choices of the recipe in which the runs of the store differ.
    """
    choices = [run.recipe.all_choices() for run in contents.runs]
    names = sorted({name for each in choices for name in each})
    texts = [{name: str(each.get(name, UNKNOWN)) for name in names} for each in choices]
    differing = [name for name in names if len({each[name] for each in texts}) > 1]
    return [
        {
            "key": run.short_key,
            "recipe": run.recipe.name,
            "model": run.model,
            "data": data,
            "outcome": outcome(run).split(",", maxsplit=1)[0],
            "reason": verdict(run) or "",
            "choices": {name: text[name] for name in differing},
        }
        for run, text, data in zip(contents.runs, texts, data_names(contents.runs), strict=True)
    ]


def data_names(runs: Sequence[TrainedRun]) -> list[str]:
    """Return what names each run's data: its source, with the digest where several have the same.

    All folders of images have the source `class-folders`.
    """
    known = {(run.data.source, run.data_digest) for run in runs if run.data}
    of_source = Counter(source for source, _ in known)
    return [
        UNKNOWN
        if run.data is None
        else run.data.source
        if of_source[run.data.source] == 1
        else f"{run.data.source}, {run.data_digest[:SHORT_KEY_LENGTH]}"
        for run in runs
    ]


def _hardware(run: TrainedRun, text: str) -> str:
    """Return what a run was trained on, with the numbers that MindCV's `recipe` column excuses."""
    _, mark, note = text.partition(" (not finite")
    return f"{run.world_size}x {run.device_target}{mark}{note}"
