"""MindCV's 13 columns: own runs, and results that others have published."""

from collections.abc import Sequence

import pandas as pd

from sknet.report.cells import Row, not_finite, percent, resolution_text, table_of
from sknet.report.contents import SHORT_KEY_LENGTH, TrainedRun
from sknet.report.published import PUBLISHED, PublishedResult

PUBLISHED_COLUMNS = {
    "model name": "string",
    "params(M)": "Float64",
    "cards": "Int64",
    "batch size": "Int64",  # per card, as MindCV gives it
    "resolution": "string",
    "jit level": "string",
    "graph compile": "Float64",  # seconds
    "ms/step": "Float64",
    "img/s": "Float64",
    "acc@top1": "Float64",  # percent
    "acc@top5": "Float64",  # percent
    "recipe": "string",
    "weight": "string",
}


def published_table(
    runs: Sequence[TrainedRun], published: Sequence[PublishedResult] = PUBLISHED
) -> pd.DataFrame:
    """Return the runs, then published results, in MindCV's 13 columns."""
    rows = (*map(_own_row, runs), *map(_published_row, published))
    return table_of(rows, PUBLISHED_COLUMNS)


def _own_row(run: TrainedRun) -> Row:
    end, counts = run.history.end, run.evaluation
    side = run.recipe.image_resize if counts is None else counts.resolution
    numbers = {
        "graph compile": end.compile_seconds,
        "ms/step": end.ms_per_step_p50,
        "img/s": end.images_per_second,
    }
    note = not_finite(numbers)
    return {
        "model name": run.model,
        "params(M)": round(run.params / 1e6, 2),
        "cards": run.world_size,
        "batch size": run.global_batch_size // run.world_size,
        "resolution": resolution_text(side),
        "jit level": run.recipe.jit_level or "default",
        **numbers,
        "acc@top1": percent(counts.correct_top1, counts.seen) if counts else None,
        "acc@top5": (
            percent(counts.correct_top5, counts.seen) if counts and counts.is_top5_telling else None
        ),
        "recipe": f"{run.recipe.name}, {run.world_size}x {run.device_target}, run {run.short_key}"
        + (f" ({note})" if note else ""),
        "weight": run.checkpoint_digest[:SHORT_KEY_LENGTH],
    }


def _published_row(result: PublishedResult) -> Row:
    return {
        "model name": result.model,
        "params(M)": result.params,
        "cards": result.cards,
        "batch size": result.batch_size,
        "resolution": resolution_text(result.resolution),
        "jit level": result.jit_level,
        "graph compile": result.compile_seconds,
        "ms/step": result.ms_per_step,
        "img/s": result.images_per_second,
        "acc@top1": result.top1,
        "acc@top5": result.top5,
        "recipe": f"published: {result.source}" + (f" ({result.note})" if result.note else ""),
    }
