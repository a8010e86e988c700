"""Writes a report: tables, Markdown, and report.html, one page that loads nothing from elsewhere.

The page escapes every name and text from the store.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sknet.csv_text import as_csv
from sknet.records import ConfusedPair
from sknet.report.class_results import (
    Confusions,
    classes_as_text,
    classes_table,
    confusion_figure,
    confusion_table,
)
from sknet.report.comparison import (
    RunComparison,
    accuracy_table,
    changes_table,
    compare_runs,
    conclusions,
)
from sknet.report.contents import ReportContents, ShownExample, TrainedRun
from sknet.report.data_section import data_section
from sknet.report.figures import Drawing, standalone
from sknet.report.markdown import FIGURE, render_comparisons, render_markdown
from sknet.report.results import (
    outcome,
    published_as_text,
    results_as_text,
    rows_of,
    shows_published,
)
from sknet.report.run_figures import (
    attention_figure,
    class_bars,
    learning_curve,
    lowest_classes,
    reliability_diagram,
    step_time_figure,
)
from sknet.report.slices import Samples, shown_predictions, slices_as_text, slices_table
from sknet.report.store_figures import (
    accuracy_figure,
    revalidation_figure,
    speed_figure,
    step_times,
)
from sknet.report.tables import (
    all_tables,
    epochs_table,
    quarantine_table,
    unreadable_table,
    verdict,
)
from sknet.report.template import data_uri, embedded, render
from sknet.report.text import (
    NOTES,
    PUBLISHED_NOTES,
    as_text,
    beneath_figure,
    criteria_as_text,
    evaluations_as_text,
    facts,
    recipe_yaml,
    revalidations_as_text,
    tasks_as_text,
    tiles,
)

Pictures = Mapping[str, bytes]
"""Content of PNG and JPEG files by SHA-256."""

MAX_DETAILED_RUNS = 8
"""Most runs with a section of their own. A figure takes a tenth of a second and 20 kB."""

MAX_ROWS = 100
"""Most rows of a table over revalidations, quarantined samples or unreadable artifacts. The CSV
files have all of them."""

MAX_PAIRS = 8
"""Most confused pairs of classes shown of a run."""

MAX_EXAMPLES_PER_PAIR = 4

COMPARISON = "comparison.md"
"""The file with the comparison alone, of a report that has one."""

FORMS = ("csv", "parquet")
"""Forms in which every table is written."""


def file_names() -> frozenset[str]:
    """Return the names of all files that a report may have."""
    tables = (f"{name}.{form}" for name in _tables(ReportContents(), (), {}, {}) for form in FORMS)
    return frozenset(("report.html", "report.md", FIGURE, COMPARISON, *tables))


def write_report(
    contents: ReportContents,
    out_dir: Path,
    *,
    comparisons: Sequence[RunComparison] = (),
    pictures: Pictures | None = None,
    confusions: Confusions | None = None,
    samples: Samples | None = None,
) -> list[str]:
    """Write a report into a directory. Equal contents give equal bytes.

    Args:
        contents: What the report shows.
        out_dir: The directory; it is created if it doesn't exist.
        comparisons: Pairs of runs that the report shows side by side.
        pictures: Thumbnails of the runs' examples, and of copies in their data.
        confusions: How the classes of runs are confused, if their predictions can be read.
        samples: What runs predicted for measured images.

    Returns:
        The names of the files.
    """
    detailed = shown_in_full(contents, comparisons)
    accuracy = accuracy_figure(contents)
    texts = {
        "report.html": render_html(
            contents, detailed, accuracy, comparisons, pictures, confusions, samples
        ),
        "report.md": render_markdown(contents, detailed, comparisons),
        FIGURE: standalone(accuracy),
    }
    if comparisons:
        texts[COMPARISON] = render_comparisons(comparisons)
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out_dir / name).write_text(text, encoding="utf-8", newline="\n")
    names = list(texts)
    for name, table in _tables(contents, detailed, confusions or {}, samples or {}).items():
        (out_dir / f"{name}.csv").write_text(as_csv(table), encoding="utf-8", newline="")
        table.to_parquet(out_dir / f"{name}.parquet", index=False)
        names += [f"{name}.{form}" for form in FORMS]
    return names


def _tables(
    contents: ReportContents,
    detailed: Sequence[TrainedRun],
    confusions: Confusions,
    samples: Samples,
) -> dict[str, pd.DataFrame]:
    """Return every table by the name of its files; those of classes are of the `detailed` runs."""
    return {
        **all_tables(contents),
        "classes": classes_table(detailed),
        "confusion": confusion_table(detailed, confusions),
        "slices": slices_table(detailed, samples),
    }


def shown_in_full(
    contents: ReportContents, comparisons: Sequence[RunComparison] = ()
) -> tuple[TrainedRun, ...]:
    """Return the runs that have a section of their own; those compared are among them."""
    compared = (run for each in comparisons for run in (each.first, each.second))
    runs = {run.key: run for run in (*contents.detailed(MAX_DETAILED_RUNS), *compared)}
    return tuple(runs.values())


def render_html(
    contents: ReportContents,
    detailed: Sequence[TrainedRun],
    accuracy: Drawing,
    comparisons: Sequence[RunComparison] = (),
    pictures: Pictures | None = None,
    confusions: Confusions | None = None,
    samples: Samples | None = None,
) -> str:
    """Return the page.

    Args:
        contents: What the page shows.
        detailed: Runs with a section of their own.
        accuracy: The first figure.
        comparisons: Pairs of runs that the page shows side by side.
        pictures: Thumbnails of the runs' examples.
    """
    return render(
        "report.html.j2",
        headline=beneath_figure(contents),
        best=contents.best,
        tiles=tiles(contents),
        notes=NOTES,
        results=results_as_text(contents),
        rows=rows_of(contents),
        detailed={run.short_key for run in detailed},
        published=published_as_text() if shows_published(contents) else None,
        published_notes=PUBLISHED_NOTES,
        newest=_newest(contents),
        num_own=len(contents.runs),
        overview=[embedded(drawing) for drawing in _overview(contents, detailed, accuracy)],
        revalidations=_first_rows(revalidations_as_text(contents), file="nights.csv"),
        unreadable=_first_rows(as_text(unreadable_table(contents)), file="unreadable.csv"),
        data_sets=data_section(contents, pictures or {}),
        comparisons=[_comparison_values(each) for each in comparisons],
        runs=[
            {
                **_run_values(run, contents, pictures or {}, confusions or {}),
                **_sample_values(run, contents, pictures or {}, (samples or {}).get(run.key)),
            }
            for run in detailed
        ],
    )


def _overview(
    contents: ReportContents, detailed: Sequence[TrainedRun], accuracy: Drawing
) -> Iterator[Drawing]:
    yield accuracy
    if step_times(detailed):
        yield speed_figure(detailed)
    if contents.revalidations:
        yield revalidation_figure(contents.revalidations)


def _comparison_values(comparison: RunComparison) -> dict[str, Any]:
    return {
        "first": comparison.first.title,
        "second": comparison.second.title,
        "conclusions": conclusions(comparison),
        "accuracy": accuracy_table(comparison),
        "changes": changes_table(comparison),
    }


def _newest(contents: ReportContents) -> dict[str, Any] | None:
    """Return the newest run with its badge and what it changed, for the top of the page."""
    if not contents.runs:
        return None
    run = contents.runs[0]
    return {"title": run.title, "record": run, **_badge(run), "changed": _changed(run, contents)}


def _badge(run: TrainedRun) -> dict[str, str]:
    """Return what became of a run in a word or two, and why."""
    return {"outcome": outcome(run), "reason": verdict(run) or ""}


def _changed(run: TrainedRun, contents: ReportContents) -> dict[str, Any] | None:
    """Return in what a run differs from the one before it; None for the first run."""
    previous = contents.previous(run)
    if previous is None:
        return None
    changes = changes_table(compare_runs(previous, run))
    choices = changes[changes["part"] == "recipe"] if len(changes) else changes
    return {
        "title": previous.title,
        "choices": [
            {"name": name, "before": before, "now": now}
            for _, name, before, now in choices.to_numpy().tolist()
        ],
    }


def _run_values(
    run: TrainedRun, contents: ReportContents, pictures: Pictures, confusions: Confusions
) -> dict[str, Any]:
    quarantine = as_text(quarantine_table([run])).drop(columns=["data"])
    return {
        "record": run,
        "title": run.title,
        **_badge(run),
        "changed": _changed(run, contents),
        "figures": [embedded(drawing) for drawing in _run_figures(run, confusions)],
        "pairs": list(_pairs(run, pictures)),
        "evaluations": evaluations_as_text([run]).drop(columns=["run", "recipe"]),
        "classes": _first_rows(classes_as_text(run), file="classes.csv"),
        "tasks": tasks_as_text(run),
        "criteria": criteria_as_text(run),
        "epochs": as_text(epochs_table([run])).drop(columns=["run"]),
        "quarantine": _first_rows(quarantine, file="quarantine.csv"),
        "facts": facts(run),
        "recipe": recipe_yaml(run),
    }


def _sample_values(
    run: TrainedRun, contents: ReportContents, pictures: Pictures, samples: pd.DataFrame | None
) -> dict[str, Any]:
    """Return accuracies on parts of the images, and single predictions with their pictures."""
    if samples is None:
        return {"slices": pd.DataFrame(), "predictions": [], "num_measured": 0}
    of_run = (each for each in contents.data_sets if each.digest == run.data_digest)
    by_key = next((each.pictures for each in of_run), {})
    shown = shown_predictions(
        samples, [key for key, sha256 in by_key.items() if sha256 in pictures]
    )
    return {
        "slices": slices_as_text(samples),
        "num_measured": len(samples),
        "predictions": [
            {
                "uri": data_uri(pictures[by_key[row["key"]]]),
                "words": f"{row['key']}: {run.class_name(row['label'])}",
                "label": run.class_name(row["label"]),
                "predicted": run.class_name(row["predicted"]),
                "probability": _percent(row["probability"]),
                "correct": row["correct"],
            }
            for row in shown.to_dict("records")
        ],
    }


def _run_figures(run: TrainedRun, confusions: Confusions) -> Iterator[Drawing]:
    yield learning_curve(run)
    yield step_time_figure(run)
    counts = run.evaluation
    if counts is not None and any(each.seen for each in counts.calibration):
        yield reliability_diagram(run, counts)
    if counts is not None and lowest_classes(counts):
        yield class_bars(run, counts)
    if run.key in confusions:
        yield confusion_figure(run, confusions[run.key])
    if run.attention is not None:
        yield attention_figure(run, run.attention)


def _pairs(run: TrainedRun, pictures: Pictures) -> Iterator[dict[str, Any]]:
    """Yield the most confused pairs of classes with their examples."""
    counts = run.evaluation
    if counts is None:
        return
    for pair in counts.confused[:MAX_PAIRS]:
        label, predicted = run.class_name(pair.label), run.class_name(pair.predicted)
        yield {
            "label": label,
            "predicted": predicted,
            "count": pair.count,
            "seen": counts.class_seen[pair.label] if pair.label < len(counts.class_seen) else 0,
            "examples": [
                {
                    "uri": data_uri(pictures.get(shown.sha256, b"")),
                    "words": f"{shown.example.key}: {label}, taken for {predicted} with "
                    f"{_percent(shown.example.probability)}",
                }
                for shown in itertools.islice(_examples(run, pair), MAX_EXAMPLES_PER_PAIR)
            ],
        }


def _examples(run: TrainedRun, pair: ConfusedPair) -> Iterator[ShownExample]:
    for shown in run.examples:
        if (shown.example.label, shown.example.predicted) == (pair.label, pair.predicted):
            yield shown


def _percent(fraction: float) -> str:
    """Return a fraction as percent, in one word."""
    return f"{100 * fraction:.0f}\N{NO-BREAK SPACE}%"


def _first_rows(table: pd.DataFrame, *, file: str) -> dict[str, Any]:
    """Return the first rows of a table, and a note on the file that has all of them."""
    num_left = len(table) - MAX_ROWS
    note = f"{num_left:,} more rows are in {file}." if num_left > 0 else ""
    return {"table": table.head(MAX_ROWS), "note": note}
