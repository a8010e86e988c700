"""The section on data of a store's report: the data sets that its runs were trained on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from sknet.report.contents import SHORT_KEY_LENGTH, DataSetFacts, MeasuredSample, ReportContents
from sknet.report.data_contents import copy_kinds, find_suspects, sample_keys
from sknet.report.data_figures import counts_figure, measured_figures
from sknet.report.data_page import copies_as_cards, suspects_as_cards
from sknet.report.template import data_uri, embedded

MAX_DATA_SETS = 4
"""Most data sets that are shown, those of the newest runs."""


def data_section(contents: ReportContents, pictures: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return what the template shows of each data set.

    Args:
        contents: What the report shows.
        pictures: Content of the pictures by SHA-256.
    """
    return [_section(data, contents, pictures) for data in contents.data_sets[:MAX_DATA_SETS]]


def _section(
    data: DataSetFacts, contents: ReportContents, pictures: Mapping[str, bytes]
) -> dict[str, Any]:
    by_key = {key: pictures.get(sha256, b"") for key, sha256 in data.pictures.items()}
    short = data.digest[:SHORT_KEY_LENGTH]
    runs = [run for run in contents.runs if run.data and run.data.digest == data.digest]
    counts = pd.DataFrame(data.class_counts, columns=data.ordered_splits)
    measured = measured_table(data.measured)
    name = f"data-{short}"
    drawings = [] if counts.empty else [counts_figure(counts, data.titles, name)]
    drawings += measured_figures(measured, data.titles, f"{name}-")
    return {
        "id": name,
        "title": f"{data.source}, samples {short}",
        "words": _words(data, len(runs)),
        "figures": [embedded(drawing) for drawing in drawings],
        "samples": [
            {"uri": data_uri(by_key[row.key]), "words": f"{data.titles[row.label]}: {row.key}"}
            for row in _rows_of(measured, sample_keys(measured))
            if row.key in by_key
        ],
        "counts": _counts_as_text(counts, data.titles),
        "copies": [
            copies_as_cards(kind, data.titles, by_key)
            for kind in copy_kinds(data.copies, data.num_copies)
        ],
        "suspects": [
            suspects_as_cards(kind, data.titles, by_key) for kind in find_suspects(measured)
        ],
    }


def _rows_of(measured: pd.DataFrame, keys: Sequence[str]) -> Iterator[Any]:
    """Yield the rows with these keys, in the order of the labels."""
    chosen = measured[measured["key"].isin(keys)].sort_values(["label", "key"])
    yield from chosen.itertuples(index=False)


def measured_table(measured: Sequence[MeasuredSample]) -> pd.DataFrame:
    """Return what was measured as `DataContents.measured` has it."""
    rows = [sample.model_dump() for sample in measured]
    return pd.DataFrame(rows, columns=list(MeasuredSample.model_fields))


def _words(data: DataSetFacts, num_runs: int) -> str:
    splits = ", ".join(f"{data.splits[split]:,} {split}" for split in data.ordered_splits)
    leaked = ", ".join(
        f"{data.leaked[split]:,} of {split}"
        for split in data.ordered_splits
        if data.leaked.get(split)
    )
    sentences = [
        f"{splits}; {data.num_left_out:,} left out.",
        f"{leaked} have a copy in another split." if leaked else "",
        _measured_of(data),
        f"{num_runs:,} {'run was' if num_runs == 1 else 'runs were'} trained on it.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _measured_of(data: DataSetFacts) -> str:
    # What was left out can't be measured.
    if not data.measured or len(data.measured) + data.num_left_out >= sum(data.splits.values()):
        return ""
    return f"Sizes and brightness are those of {len(data.measured):,} images, chosen at random."


def _counts_as_text(counts: pd.DataFrame, titles: Sequence[str]) -> pd.DataFrame:
    text = pd.DataFrame({"class": list(titles)[: len(counts)]})
    for split in counts.columns:
        text[split] = [f"{count:,}" for count in counts[split]]
    return text
