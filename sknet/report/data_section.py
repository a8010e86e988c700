"""The section on data of a store's report: the data sets that its runs were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sknet.report.contents import SHORT_KEY_LENGTH, DataFacts, ReportContents
from sknet.report.data_contents import copy_kinds
from sknet.report.data_figures import counts_figure
from sknet.report.data_page import copies_as_cards
from sknet.report.template import embedded

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
    data: DataFacts, contents: ReportContents, pictures: Mapping[str, bytes]
) -> dict[str, Any]:
    by_key = {key: pictures.get(sha256, b"") for key, sha256 in data.pictures.items()}
    short = data.digest[:SHORT_KEY_LENGTH]
    runs = [run for run in contents.runs if run.data and run.data.digest == data.digest]
    counts = pd.DataFrame(data.class_counts, columns=data.ordered_splits)
    return {
        "id": f"data-{short}",
        "title": f"{data.source}, samples {short}",
        "words": _words(data, len(runs)),
        "figures": (
            [] if counts.empty else [embedded(counts_figure(counts, data.titles, f"data-{short}"))]
        ),
        "counts": _counts_as_text(counts, data.titles),
        "copies": [
            copies_as_cards(kind, data.titles, by_key)
            for kind in copy_kinds(data.copies, data.num_copies)
        ],
    }


def _words(data: DataFacts, num_runs: int) -> str:
    splits = ", ".join(f"{data.splits[split]:,} {split}" for split in data.ordered_splits)
    leaked = ", ".join(
        f"{data.leaked[split]:,} of {split}"
        for split in data.ordered_splits
        if data.leaked.get(split)
    )
    sentences = [
        f"{splits}; {len(data.quarantined):,} left out.",
        f"{leaked} have a copy in another split." if leaked else "",
        f"{num_runs:,} {'run was' if num_runs == 1 else 'runs were'} trained on it.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _counts_as_text(counts: pd.DataFrame, titles: Sequence[str]) -> pd.DataFrame:
    text = pd.DataFrame({"class": list(titles)[: len(counts)]})
    for split in counts.columns:
        text[split] = [f"{count:,}" for count in counts[split]]
    return text
